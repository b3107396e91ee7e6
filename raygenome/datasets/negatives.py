"""Negatives: random windows outside every peak, drawn from tiles between peaks and runs of N."""

from collections.abc import Iterable, Iterator

import numpy as np

from raygenome.datasets.peaks import Peaks, TargetPeaks
from raygenome.datasets.splits import STRADDLES, Excluded, Splits
from raygenome.errors import DataError
from raygenome.genome.fasta import Reference
from raygenome.genome.intervals import Spans, union
from raygenome.genome.sequence import N_CODE
from raygenome.progress.bars import NoProgress, Progress

#: Bases of the genome that are read at once.
_BLOCK = 1 << 22
#: Number of spans that are collected before their union is computed.
_MANY = 1 << 20


def draw_negatives(
    count: int,
    seed: int,
    window_size: int,
    *,
    reference: Reference,
    peaks: Peaks,
    excluded: Excluded,
    splits: Splits,
    progress: Progress | None = None,
) -> dict[str, np.ndarray]:
    """Return the starts of `count` windows outside every peak, sorted, by contig.

    They are tiles, so no two of them overlap. None holds an N or an excluded base, and none
    crosses the border of a split.

    Raises:
        DataError: there is no room for so many windows.
    """
    progress = progress or NoProgress()
    progress.begin("negatives", sum(reference.contigs.values()), unit="bases")
    tiles, seen = {}, 0
    try:
        for contig, length in reference.contigs.items():
            taken = [_union_of(peaks.on(contig)), excluded.regions.on(contig)]
            taken.append(runs_of_n(reference, contig))
            starts = tiles_between(*_union_all(taken), length, window_size)
            tiles[contig] = starts[splits.of(contig, starts, window_size) != STRADDLES]
            seen += length
            progress.update(seen)
    finally:
        progress.end()
    ends = np.cumsum([len(starts) for starts in tiles.values()])
    room = int(ends[-1])
    if room < count:
        raise DataError(
            f"--negatives {count:,} is too many: outside every peak there is room for {room:,} "
            f"windows of {window_size:,} bases",
            f"give --negatives {room} or fewer",
        )
    chosen = np.sort(np.random.default_rng(seed).choice(room, count, replace=False))
    parts = np.split(chosen, np.searchsorted(chosen, ends[:-1]))
    begins = np.concatenate([[0], ends[:-1]])
    return {
        contig: tiles[contig][part - begin]
        for contig, part, begin in zip(tiles, parts, begins, strict=True)
    }


def tiles_between(
    starts: np.ndarray, ends: np.ndarray, length: int, window_size: int
) -> np.ndarray:
    """Return the starts of tiles laid side by side from the start of each gap: int64 (n,).

    Args:
        starts: starts of the spans between the gaps, (k,), sorted; spans do not touch and may
            reach beyond the contig.
        ends: their ends, (k,).
        length: length of the contig.
        window_size: bases per tile.
    """
    begins = np.concatenate([[0], ends])
    stops = np.minimum(np.concatenate([starts, [length]]), length)
    fits = np.maximum(stops - begins, 0) // window_size
    gap = np.repeat(np.arange(len(begins)), fits)
    within = np.arange(len(gap)) - np.repeat(np.cumsum(fits) - fits, fits)
    return begins[gap] + within * window_size


def runs_of_n(reference: Reference, contig: str) -> Spans:
    """Return the runs of N of a contig: sorted starts and ends; a long run may be in pieces.

    The genome is read block by block.
    """
    found = [np.empty((2, 0), dtype=np.int64)]
    length = reference.contigs[contig]
    for origin in range(0, length, _BLOCK):
        stop = min(origin + _BLOCK, length)
        is_n = np.zeros(stop - origin + 2, dtype=np.int8)
        is_n[1:-1] = reference.fetch(contig, origin, stop) == N_CODE
        steps = np.diff(is_n)
        found.append(np.stack([np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)]) + origin)
    starts, ends = np.concatenate(found, axis=1)
    return starts, ends


def _union_of(peaks: Iterable[TargetPeaks]) -> Spans:
    """Return the union of the peaks of all targets; memory does not grow with their number."""
    held: list[Spans] = [(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))]
    for spans in _spans_of(peaks):
        held.append(spans)
        if sum(len(starts) for starts, _ in held[1:]) > _MANY:
            held = [_union_all(held)]
    return _union_all(held)


def _spans_of(peaks: Iterable[TargetPeaks]) -> Iterator[Spans]:
    for _, starts, ends in peaks:
        yield starts, ends


def _union_all(spans: list[Spans]) -> Spans:
    starts, ends = (np.concatenate(values) for values in zip(*spans, strict=True))
    return union(starts, ends)
