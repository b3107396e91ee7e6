"""A part: the Parquet file with the effects of one shard, and what ranking needs of them.

One column a target, so that "every variant that moves GM12878 CTCF" reads one column. Rows are in
the plan's order: position, then REF, ALT, record, allele. Nothing of time, host or number of
workers goes into a file, so that the same shard gives the same bytes wherever it is scored.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raygenome.ranking import sort_keys

ROW_GROUP = 65_536

KEYS = [
    ("chrom", pa.string()),
    ("pos", pa.int32()),
    ("id", pa.string()),
    ("ref", pa.string()),
    ("alt", pa.string()),
    ("record", pa.int64()),
    ("allele", pa.int16()),
]
SUMMARY = [
    ("score", pa.float32()),
    ("top", pa.list_(pa.struct([("target", pa.int16()), ("diff", pa.float32())]))),
]
SKIPPED = pa.schema([*KEYS[:-1], ("allele", pa.int32()), ("reason", pa.string())])

_FLOATS = {"float16": (np.float16, pa.float16()), "float32": (np.float32, pa.float32())}


def part_schema(
    names: Sequence[str], *, dtype: str, columns: bool, summary: bool, provenance: dict[str, object]
) -> pa.Schema:
    """Return the schema of a part.

    Args:
        names: the targets' unique names.
        dtype: "float16" or "float32", of the target columns.
        columns: whether there is a column a target.
        summary: whether there are `score` and `top`.
        provenance: what the footer says of the run, under the key "raygenome".
    """
    fields = [*KEYS, *(SUMMARY if summary else [])]
    if columns:
        fields += [(name, _FLOATS[dtype][1]) for name in names]
    return pa.schema(fields, {"raygenome": json.dumps(provenance, sort_keys=True)})


class PartWriter:
    """Writes rows of effects to a part, a row group at a time.

    Args:
        path: a temporary name; the caller publishes it.
        schema: of `part_schema`.
        keys: the key columns of every row of the part, in order.
        top_k: how many targets `top` lists.
        dtype: of the target columns.
    """

    def __init__(
        self, path: Path, schema: pa.Schema, keys: pa.Table, *, top_k: int, dtype: str
    ) -> None:
        self._schema = schema
        self._keys = keys
        self._top_k = top_k
        self._dtype = _FLOATS[dtype][0]
        self._targets = schema.names[len(KEYS) :]
        self._summary = "top" in self._targets
        if self._summary:
            self._targets = self._targets[len(SUMMARY) :]
        self._written = 0
        self._blocks: list[np.ndarray] = []
        self._score: list[np.ndarray] = []
        self._top: list[np.ndarray] = []
        self._strongest: list[np.ndarray] = []
        self._waiting = 0
        self._writer = pq.ParquetWriter(
            path,
            schema,
            compression="zstd",
            write_page_checksum=True,
            write_page_index=True,
            use_dictionary=["chrom", "ref", "alt"],
        )

    def append(self, effects: np.ndarray) -> None:
        """Add rows: float32 (n, targets), in the order of the keys."""
        while len(effects):
            room = ROW_GROUP - self._waiting
            self._take(effects[:room])
            effects = effects[room:]
            if self._waiting == ROW_GROUP:
                self._flush()

    def _take(self, effects: np.ndarray) -> None:
        if self._summary:
            self._score.append(np.abs(effects).max(axis=1))
            self._top.append(sort_keys.strongest(effects, self._top_k))
            self._strongest.append(self._top[-1][:, 0].copy())
        if self._targets:
            # Rounded at once: a row group of 919 float32 columns would hold 240 MB.
            self._blocks.append(effects.astype(self._dtype))
        self._waiting += len(effects)

    def _flush(self) -> None:
        keys = self._keys.slice(self._written, self._waiting).combine_chunks()
        columns = [keys.column(name) for name, _ in KEYS]
        if self._summary:
            columns.append(pa.array(np.concatenate(self._score)))
            columns.append(_top_column(np.concatenate(self._top)))
        if self._targets:
            by_target = np.ascontiguousarray(np.concatenate(self._blocks).T)
            columns += [pa.array(column) for column in by_target]
        self._writer.write_table(pa.table(columns, schema=self._schema), row_group_size=ROW_GROUP)
        self._written += self._waiting
        self._waiting = 0
        self._blocks, self._score, self._top = [], [], []

    @property
    def strongest(self) -> np.ndarray:
        """The first key of each row's `top`, uint64 (rows so far,); see `toplist.strongest`."""
        return np.concatenate([np.empty(0, np.uint64), *self._strongest])

    def close(self) -> None:
        """Write what is left and the footer; only a part with every row gets one."""
        if self._waiting:
            self._flush()
        if self._written != self._keys.num_rows:
            raise RuntimeError(f"{self._written} rows of {self._keys.num_rows} were scored")
        self._writer.close()

    def abandon(self) -> None:
        """Let go of the file; what is on the disk is no part and is swept."""
        self._writer.close()


def _top_column(keys_nk: np.ndarray) -> pa.ListArray:
    """Return the `top` column of keys (n, k), strongest first."""
    diff, target = sort_keys.decode(keys_nk.ravel())
    structs = pa.StructArray.from_arrays(
        [pa.array(target.astype(np.int16)), pa.array(diff)], ["target", "diff"]
    )
    n, k = keys_nk.shape
    return pa.ListArray.from_arrays(pa.array(np.arange(n + 1, dtype=np.int32) * k), structs)


def bytes_per_row(targets: int, *, dtype: str, datasets: int) -> int:
    """Return about how many bytes a scored allele takes on the disk, ranking included.

    `datasets` counts those that have a column a target.

    Measured: zstd leaves effects about as long as they are; keys, score and top take some 90 bytes
    (110 with names such as dbSNP's), a summary 16, ranking 56 while it sorts and 18 at its end.
    """
    width = 2 if dtype == "float16" else 4
    return 220 + targets * width * datasets
