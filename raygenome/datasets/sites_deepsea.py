"""DeepSEA's recipe for sites: bins of 200 bases, in windows of 1,000 around them.

A bin has a target's label if more than half of it is in the target's peaks, all of them together.
It is kept if any peak of a transcription factor has a base in it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from raygenome.datasets.packing import packed_labels
from raygenome.datasets.peaks import TargetPeaks
from raygenome.errors import DataError, UsageError
from raygenome.genome.intervals import union
from raygenome.genome.targets import Target

WINDOW = 1_000
BIN = 200
#: Whose peaks make a bin worth keeping: TF targets', any target's, or TF's if there are any.
KEEP = ("auto", "tf", "any")


def resolve_keep(targets: Sequence[Target], keep: str) -> str:
    """Return "tf" or "any" for one of `KEEP`.

    Raises:
        UsageError: it is none of them.
        DataError: peaks of TF targets were asked for, and there are none.
    """
    if keep not in KEEP:
        raise UsageError(f"--keep {keep} is not known; it must be one of {', '.join(KEEP)}")
    factors = bool(_factors(targets).any())
    if keep == "tf" and not factors:
        raise DataError(
            "no target has the category TF, whose peaks would keep bins; "
            "correct the table, or keep the bins of every target with --keep any"
        )
    return keep if keep != "auto" else "tf" if factors else "any"


def keepers(targets: Sequence[Target], keep: str) -> np.ndarray:
    """Return whose peaks make a bin worth keeping, bool (T,), by "tf" or "any"."""
    factors = _factors(targets)
    return factors if keep == "tf" else np.ones_like(factors)


def _factors(targets: Sequence[Target]) -> np.ndarray:
    return np.array([target.category.upper() == "TF" for target in targets], dtype=bool)


def sites(
    peaks: Callable[[], Iterable[TargetPeaks]], length: int, keeping: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the sites of one contig, in order.

    Args:
        peaks: gives the peaks of each target that has any there; called twice.
        length: of the contig; it has no sites if it is shorter than a window, and what is left of
            it behind the last whole bin has none either.
        keeping: whose peaks make a bin worth keeping, bool (T,).

    Yields:
        Starts of windows, int64 (n,), which may be negative, and their labels as bits, uint8
        (n, packed_labels(T)).
    """
    if length < WINDOW:
        return
    kept = np.zeros(length // BIN, dtype=bool)
    for target, starts, ends in peaks():
        if keeping[target]:
            kept[coverage(starts, ends, len(kept))[0]] = True
    bins = np.flatnonzero(kept)
    if len(bins) == 0:
        return
    row_of = np.cumsum(kept) - 1
    labels = np.zeros((len(bins), packed_labels(len(keeping))), dtype=np.uint8)
    for target, starts, ends in peaks():
        touched, covered = coverage(starts, ends, len(kept))
        labelled = touched[2 * covered > BIN]
        labels[row_of[labelled[kept[labelled]]], target >> 3] |= np.uint8(1 << (target & 7))
    yield bins * BIN - (WINDOW - BIN) // 2, labels


def coverage(starts: np.ndarray, ends: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the bins that have a base in any of some spans, and how many bases: int64 (k,) each.

    Args:
        starts: 0-based, (n,), in any order; spans may overlap.
        ends: (n,).
        bins: how many bins there are; what lies beyond is passed over.
    """
    starts, ends = union(starts, np.minimum(ends, bins * BIN))
    inside = starts < ends
    starts, ends = starts[inside], ends[inside]
    if len(starts) == 0:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    first = starts // BIN
    count = (ends - 1) // BIN - first + 1
    span = np.repeat(np.arange(len(starts)), count)
    touched = np.arange(len(span)) - np.repeat(np.cumsum(count) - count, count) + first[span]
    origin = touched * BIN
    shared = np.minimum(ends[span], origin + BIN) - np.maximum(starts[span], origin)
    # Spans are sorted and apart, so those that share a bin follow one another.
    news = np.flatnonzero(np.concatenate([[True], np.diff(touched) > 0]))
    return touched[news], np.add.reduceat(shared, news)
