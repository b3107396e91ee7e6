"""The planned alleles on disk: sorted, in one Arrow file that is read by row range.

Input is nearly always sorted by contig and position. Then each batch is written as it comes, once
the alleles of one position have been put in order. If the input is not sorted, the whole
file is sorted out of core at the end. Memory does not grow with the input in either case.
"""

from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raygenome.genome.alleles import PLAN_ORDER, PLANNED
from raygenome.ranking.external_sort import external_sort

#: Rows of each record batch except the last, so that a row's batch follows from its number.
BATCH = 65_536
#: Record batches that the external sort takes at a time, and the most that give its sample.
_BLOCK, _SAMPLED = 16, 64


class PlannedAllelesWriter:
    """Writes alleles to an Arrow file, sorted; a context manager.

    Args:
        path: the file.
        temp_dir: a folder for the temporary files of sorting.
    """

    def __init__(self, path: Path, temp_dir: Path) -> None:
        self._path = path
        self._temp_dir = temp_dir
        self._file = _BatchFile(path)
        self._held = PLANNED.empty_table()  # the alleles of the last position, while sorted
        self._last = (-1, -1)
        self._sorted = True
        self._rows: dict[int, int] = {}  # by contig

    def __enter__(self) -> "PlannedAllelesWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, alleles: pa.Table) -> None:
        """Add PLANNED rows, in input order."""
        if alleles.num_rows == 0:
            return
        contig = alleles["contig"].to_numpy()
        start = alleles["start"].to_numpy()
        for index, count in zip(*np.unique(contig, return_counts=True), strict=True):
            self._rows[int(index)] = self._rows.get(int(index), 0) + int(count)
        position = _positions(alleles)
        first = (int(contig[0]), int(start[0]))
        self._sorted &= first >= self._last and bool((np.diff(position) >= 0).all())
        self._last = (int(contig[-1]), int(start[-1]))
        if not self._sorted:
            self._file.write(pa.concat_tables([self._held, alleles]))
            self._held = PLANNED.empty_table()
            return
        # The next batch may have more alleles of the last position, so these wait for it.
        cut = int(np.searchsorted(position, position[-1]))
        if cut == 0:
            self._held = pa.concat_tables([self._held, alleles])
            return
        self._file.write(_order_ties(pa.concat_tables([self._held, alleles.slice(0, cut)])))
        self._held = alleles.slice(cut)

    def finish(self) -> list[tuple[int, int, int]]:
        """Write the last rows and sort if needed; return (contig, begin, end) of each contig."""
        self._file.write(_order_ties(self._held) if self._sorted else self._held)
        self._file.close()
        if not self._sorted:
            self._sort()
        ranges, begin = [], 0
        for contig in sorted(self._rows):
            ranges.append((contig, begin, begin + self._rows[contig]))
            begin += self._rows[contig]
        return ranges

    def _sort(self) -> None:
        unsorted = self._path.with_suffix(".unsorted")
        self._path.rename(unsorted)
        self._file = _BatchFile(self._path)
        with pa.memory_map(str(unsorted)) as source:
            batches = pa.ipc.open_file(source)
            count = batches.num_record_batches

            def read(numbers: Iterable[int]) -> pa.Table:
                return pa.Table.from_batches(map(batches.get_batch, numbers), PLANNED)

            ordered = external_sort(
                (read(range(i, min(i + _BLOCK, count))) for i in range(0, count, _BLOCK)),
                lambda table: table,
                _positions,
                _sort_rows,
                schema=PLANNED,
                rows=sum(self._rows.values()),
                sample=_positions(read(range(0, count, -(-count // _SAMPLED)))),
                scratch=self._temp_dir / "sorting",
            )
            with closing(ordered):
                for alleles in ordered:
                    self._file.write(alleles)
        self._file.close()
        unsorted.unlink()


class _BatchFile:
    """An Arrow file whose record batches all have BATCH rows, except the last."""

    def __init__(self, path: Path) -> None:
        self._sink = pa.OSFile(str(path), "wb")
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        self._writer = pa.ipc.new_file(self._sink, PLANNED, options=options)
        self._waiting = PLANNED.empty_table()
        self._open = True

    def write(self, table: pa.Table) -> None:
        self._waiting = pa.concat_tables([self._waiting, table])
        while self._waiting.num_rows >= BATCH:
            self._write_batch(self._waiting.slice(0, BATCH))
            self._waiting = self._waiting.slice(BATCH)

    def close(self) -> None:
        if not self._open:
            return
        self._open = False
        if self._waiting.num_rows:
            self._write_batch(self._waiting)
        self._writer.close()
        self._sink.close()

    def _write_batch(self, table: pa.Table) -> None:
        (batch,) = table.combine_chunks().to_batches()
        self._writer.write_batch(batch)


class PlannedAlleles:
    """Reads the file by row range.

    Args:
        source: the file, open for reads at any position, local or remote; closed with the reader.
    """

    def __init__(self, source: pa.NativeFile) -> None:
        self._source = source
        self._reader = pa.ipc.open_file(source)

    def close(self) -> None:
        """Close the file."""
        self._source.close()

    def rows(self, begin: int, end: int) -> pa.Table:
        """Return rows [begin, end); only the batches that hold them are read."""
        slices = [PLANNED.empty_table()]
        for index in range(begin // BATCH, -(-end // BATCH)):
            origin = index * BATCH
            first, last = max(begin - origin, 0), min(end - origin, BATCH)
            batch = self._reader.get_batch(index).slice(first, last - first)
            slices.append(pa.Table.from_batches([batch]))
        return pa.concat_tables(slices).combine_chunks()


def read_rows(path: Path, begin: int, end: int) -> pa.Table:
    """Return rows [begin, end) of a file on local disk."""
    with closing(PlannedAlleles(pa.OSFile(str(path), "rb"))) as reader:
        return reader.rows(begin, end)


def _positions(alleles: pa.Table) -> np.ndarray:
    """Return one integer per allele, int64 (n,), in the order of contig and start."""
    return alleles["contig"].to_numpy().astype(np.int64) << 32 | alleles["start"].to_numpy()


def _sort_rows(alleles: pa.Table) -> pa.Table:
    order = np.argsort(_positions(alleles), kind="stable")
    return _order_ties(alleles.take(pa.array(order)).combine_chunks())


def _order_ties(alleles: pa.Table) -> pa.Table:
    """Return `alleles`, sorted by contig and start, with those of one position in order."""
    position = _positions(alleles)
    same = np.diff(position) == 0
    tied = np.zeros(len(position), dtype=bool)
    tied[1:] |= same
    tied[:-1] |= same
    if not tied.any():
        return alleles
    # Only the rows that share a position are compared by REF and ALT; the others stay in place.
    rows = np.flatnonzero(tied)
    order = np.arange(len(position))
    keys = [(name, "ascending") for name in PLAN_ORDER]
    order[rows] = rows[pc.sort_indices(alleles.take(pa.array(rows)), sort_keys=keys).to_numpy()]
    return alleles.take(pa.array(order))
