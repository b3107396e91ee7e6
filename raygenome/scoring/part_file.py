"""A part: the Parquet file with the effects of one shard's alleles.

There is one column per target, so that "every variant that moves GM12878 CTCF" reads one column.
Rows are in the plan's order. Nothing in a file depends on time, host or number of workers, so the
same shard gives the same bytes wherever it is scored.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raygenome.engines.full import Effects
from raygenome.genome.alleles import KEYS, SCORE, Shard, select
from raygenome.ranking import sort_keys

ROW_GROUP = 65_536

#: The types of target columns, by the name that --effect-dtype gives them.
_FLOATS = {"float16": pa.float16(), "float32": pa.float32()}


class ColumnMaker(Protocol):
    """Makes some columns of a part from effects, one row group at a time."""

    @property
    def fields(self) -> list[pa.Field]:
        """The names and types of the columns."""

    def add(self, effects: Effects) -> None:
        """Add the effects of the next alleles."""

    def take(self) -> list[pa.Array]:
        """Return the columns of the rows added since the last call, and forget these rows."""


class ScoreColumns:
    """The columns `score`, the largest |diff| of an allele, and `top`, its strongest targets.

    Args:
        top_k: how many targets `top` lists.
    """

    def __init__(self, top_k: int) -> None:
        self.fields = list(SCORE)
        self._top_k = top_k
        self._score: list[np.ndarray] = []
        self._top: list[np.ndarray] = []
        self._strongest: list[np.ndarray] = [np.empty(0, np.uint64)]

    def add(self, effects: Effects) -> None:
        """Add the effects of the next alleles."""
        self._score.append(np.abs(effects.diff).max(axis=1))
        self._top.append(sort_keys.strongest(effects.diff, self._top_k))
        self._strongest.append(self._top[-1][:, 0].copy())

    def take(self) -> list[pa.Array]:
        """Return `score` and `top` of the rows added since the last call."""
        columns = [pa.array(np.concatenate(self._score)), _top_column(np.concatenate(self._top))]
        self._score, self._top = [], []
        return columns

    @property
    def strongest(self) -> np.ndarray:
        """The first `sort_keys.strongest` key of every row so far: uint64 (n,)."""
        return np.concatenate(self._strongest)


class TargetColumns:
    """One column per target.

    Args:
        names: of the targets.
        effect: "diff" or "log_odds".
        dtype: "float16" or "float32".
    """

    def __init__(self, names: Sequence[str], effect: str, dtype: str) -> None:
        self.fields = [pa.field(name, _FLOATS[dtype]) for name in names]
        self._effect = effect
        self._dtype = dtype
        self._blocks: list[np.ndarray] = []

    def add(self, effects: Effects) -> None:
        """Add the effects of the next alleles."""
        # Rounded at once: a row group of 919 float32 columns would take 240 MB.
        self._blocks.append(getattr(effects, self._effect).astype(self._dtype))

    def take(self) -> list[pa.Array]:
        """Return the columns of the rows added since the last call."""
        by_target = np.ascontiguousarray(np.concatenate(self._blocks).T)
        self._blocks = []
        return [pa.array(column) for column in by_target]


class PartWriter:
    """Writes the key columns and those of `makers` to a part, one row group at a time.

    Args:
        path: a temporary name; the caller publishes the file.
        keys: the KEYS columns of every row of the part, in order.
        makers: of the other columns, in order.
        provenance: the footer's description of the run, under the key "raygenome".
    """

    def __init__(
        self,
        path: Path,
        keys: pa.Table,
        makers: Sequence[ColumnMaker],
        provenance: dict[str, object],
    ) -> None:
        fields = [*KEYS, *(field for maker in makers for field in maker.fields)]
        self._schema = pa.schema(fields, {"raygenome": json.dumps(provenance, sort_keys=True)})
        self._keys = keys
        self._makers = makers
        self._written = 0
        self._waiting = 0
        self._writer = pq.ParquetWriter(
            path,
            self._schema,
            compression="zstd",
            write_page_checksum=True,
            write_page_index=True,
            use_dictionary=["chrom", "ref", "alt"],
        )

    def append(self, effects: Effects) -> None:
        """Add the effects of the next alleles."""
        begin = 0
        while begin < len(effects.diff):
            end = begin + ROW_GROUP - self._waiting
            piece = Effects(*(values[begin:end] for values in effects))
            for maker in self._makers:
                maker.add(piece)
            self._waiting += len(piece.diff)
            begin = end
            if self._waiting == ROW_GROUP:
                self._write_row_group()

    def _write_row_group(self) -> None:
        keys = self._keys.slice(self._written, self._waiting).combine_chunks()
        columns = [*keys.columns, *(column for maker in self._makers for column in maker.take())]
        self._writer.write_table(pa.table(columns, schema=self._schema), row_group_size=ROW_GROUP)
        self._written += self._waiting
        self._waiting = 0

    def close(self) -> None:
        """Write the last rows and the footer; only a part with every row gets one."""
        if self._waiting:
            self._write_row_group()
        if self._written != self._keys.num_rows:
            raise RuntimeError(f"{self._written} rows of {self._keys.num_rows} were scored")
        self._writer.close()

    def abandon(self) -> None:
        """Close the file; the caller removes it."""
        self._writer.close()


def key_columns(shard: Shard, alleles: pa.Table) -> pa.Table:
    """Return the KEYS columns of a part; `alleles` are the shard's planned alleles."""
    columns = {
        "chrom": pa.repeat(shard.chrom, alleles.num_rows),
        "pos": pa.array(alleles["start"].to_numpy() + 1),  # 1-based, as in the VCF
    }
    return select(KEYS, columns, alleles)


def _top_column(keys_nk: np.ndarray) -> pa.ListArray:
    """Return the `top` column of keys (n, k), strongest first."""
    diff, target = sort_keys.decode(keys_nk.ravel())
    structs = pa.StructArray.from_arrays(
        [pa.array(target.astype(np.int16)), pa.array(diff)], ["target", "diff"]
    )
    n, k = keys_nk.shape
    return pa.ListArray.from_arrays(pa.array(np.arange(n + 1, dtype=np.int32) * k), structs)
