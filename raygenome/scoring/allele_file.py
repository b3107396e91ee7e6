"""The spool: the alleles of a plan on disk, sorted, in one Arrow file that is read by row range.

Input is nearly always sorted by contig and position; then each batch is written as it comes, once
the alleles of one position have been put in order. Where it is not, DuckDB sorts the whole file
out of core at the end. Either way memory does not grow with the input.
"""

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

SCHEMA = pa.schema(
    [
        ("contig", pa.int32()),
        ("start", pa.int32()),
        ("id", pa.string()),
        ("ref", pa.string()),
        ("alt", pa.string()),
        ("record", pa.int64()),
        ("allele", pa.int16()),
    ]
)
#: Rows of each record batch but the last, so that a row's batch follows from its number.
BATCH = 65_536

_TIES = [(name, "ascending") for name in ("contig", "start", "ref", "alt", "record", "allele")]


class Spool:
    """Writes alleles to an Arrow file, sorted; a context manager.

    Args:
        path: the file.
        scratch: a folder for what sorting puts on the disk.
    """

    def __init__(self, path: Path, scratch: Path) -> None:
        self._path = path
        self._scratch = scratch
        self._file = _BatchFile(path)
        self._held = SCHEMA.empty_table()
        self._last = (-1, -1)
        self._sorted = True
        self._rows: dict[int, int] = {}

    def __enter__(self) -> "Spool":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def append(self, alleles: pa.Table) -> None:
        """Add alleles, in input order."""
        if alleles.num_rows == 0:
            return
        alleles = alleles.cast(SCHEMA)
        contig = alleles["contig"].to_numpy()
        start = alleles["start"].to_numpy()
        for index, count in zip(*np.unique(contig, return_counts=True), strict=True):
            self._rows[int(index)] = self._rows.get(int(index), 0) + int(count)
        place = contig.astype(np.int64) << 32 | start
        first = (int(contig[0]), int(start[0]))
        self._sorted &= first >= self._last and bool((np.diff(place) >= 0).all())
        self._last = (int(contig[-1]), int(start[-1]))
        if not self._sorted:
            self._file.write(pa.concat_tables([self._held, alleles]))
            self._held = SCHEMA.empty_table()
            return
        # The last position may go on in the next batch, so its alleles wait for it.
        cut = int(np.searchsorted(place, place[-1]))
        if cut == 0:
            self._held = pa.concat_tables([self._held, alleles])
            return
        self._file.write(_order_ties(pa.concat_tables([self._held, alleles.slice(0, cut)])))
        self._held = alleles.slice(cut)

    def finish(self) -> list[tuple[int, int, int]]:
        """Write what is left, sort if that is needed; return (contig, begin, end) of the rows."""
        self._file.write(_order_ties(self._held) if self._sorted else self._held)
        self._file.close()
        if not self._sorted:
            self._sort()
        runs, begin = [], 0
        for contig in sorted(self._rows):
            runs.append((contig, begin, begin + self._rows[contig]))
            begin += self._rows[contig]
        return runs

    def _sort(self) -> None:
        from raygenome.results import duck  # only unsorted input pays for it

        unsorted = self._path.with_suffix(".unsorted")
        self._path.rename(unsorted)
        self._file = _BatchFile(self._path)
        with (
            duck.storage_errors(f"sorting {self._path}"),
            pa.memory_map(str(unsorted)) as source,
            duck.connect(temp_dir=self._scratch) as sql,
        ):
            reader = pa.ipc.open_file(source)
            batches = (reader.get_batch(i) for i in range(reader.num_record_batches))
            sql.register("alleles", pa.RecordBatchReader.from_batches(SCHEMA, batches))
            order = ", ".join(name for name, _ in _TIES)
            ordered = sql.sql(f"SELECT * FROM alleles ORDER BY {order}")
            for batch in ordered.to_arrow_reader(BATCH):
                self._file.write(pa.Table.from_batches([batch]).cast(SCHEMA))
        self._file.close()
        unsorted.unlink()


class _BatchFile:
    """An Arrow file whose record batches all have BATCH rows, but for the last."""

    def __init__(self, path: Path) -> None:
        self._sink = pa.OSFile(str(path), "wb")
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        self._writer = pa.ipc.new_file(self._sink, SCHEMA, options=options)
        self._waiting = SCHEMA.empty_table()
        self._open = True

    def write(self, table: pa.Table) -> None:
        self._waiting = pa.concat_tables([self._waiting, table])
        while self._waiting.num_rows >= BATCH:
            self._put(self._waiting.slice(0, BATCH))
            self._waiting = self._waiting.slice(BATCH)

    def close(self) -> None:
        if not self._open:
            return
        self._open = False
        if self._waiting.num_rows:
            self._put(self._waiting)
        self._writer.close()
        self._sink.close()

    def _put(self, table: pa.Table) -> None:
        (batch,) = table.combine_chunks().to_batches()
        self._writer.write_batch(batch)


class SpoolReader:
    """Reads a spool by row range; a context manager.

    Args:
        source: the spool, open for reads at any place, local or remote; closed with the reader.
    """

    def __init__(self, source: pa.NativeFile) -> None:
        self._source = source
        self._reader = pa.ipc.open_file(source)

    def __enter__(self) -> "SpoolReader":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._source.close()

    def rows(self, begin: int, end: int) -> pa.Table:
        """Return rows [begin, end); only the batches that hold them are read."""
        return pa.concat_tables([SCHEMA.empty_table(), *self._slices(begin, end)]).combine_chunks()

    def _slices(self, begin: int, end: int) -> Iterator[pa.Table]:
        for index in range(begin // BATCH, -(-end // BATCH)):
            origin = index * BATCH
            batch = self._reader.get_batch(index)
            first, last = max(begin - origin, 0), min(end - origin, BATCH)
            yield pa.Table.from_batches([batch.slice(first, last - first)])


def read_rows(path: Path, begin: int, end: int) -> pa.Table:
    """Return rows [begin, end) of a spool on local disk."""
    with SpoolReader(pa.OSFile(str(path), "rb")) as reader:
        return reader.rows(begin, end)


def _order_ties(table: pa.Table) -> pa.Table:
    """Return `table`, sorted by contig and start, with the alleles of one position in order."""
    place = table["contig"].to_numpy().astype(np.int64) << 32 | table["start"].to_numpy()
    same = np.diff(place) == 0
    tied = np.zeros(len(place), dtype=bool)
    tied[1:] |= same
    tied[:-1] |= same
    if not tied.any():
        return table
    # Only the rows that share a position are compared by REF and ALT; they fill their own places.
    rows = np.flatnonzero(tied)
    order = np.arange(len(place))
    indices = pc.sort_indices(table.take(pa.array(rows)), sort_keys=_TIES).to_numpy()
    order[rows] = rows[indices]
    return table.take(pa.array(order))
