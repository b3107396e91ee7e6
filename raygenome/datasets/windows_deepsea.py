"""DeepSEA's recipe for windows: bins of 200 bases, each in the middle of a window of 1,000.

A bin gets a target's label if more than half of its bases lie in the union of the target's peaks.
A bin is kept if a peak of any transcription factor has a base in it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from raygenome.cluster.compute import require_choice
from raygenome.datasets.packed import label_bytes
from raygenome.datasets.peaks import TargetPeaks
from raygenome.errors import DataError
from raygenome.genome.intervals import union
from raygenome.genome.targets import Target

WINDOW = 1_000
BIN = 200
#: The targets whose peaks keep a bin: TF targets, all targets, or TF targets if there are any.
KEEP = ("auto", "tf", "any")


def resolve_keep(targets: Sequence[Target], keep: str) -> str:
    """Return "tf" or "any" for one of `KEEP`.

    Raises:
        UsageError: `keep` is another word.
        DataError: `keep` is "tf", and no target is a TF.
    """
    require_choice("keep", keep, KEEP)
    factors = bool(_factors(targets).any())
    if keep == "tf" and not factors:
        raise DataError(
            "--keep tf keeps the bins of TF targets, and no target has the category TF",
            "correct the table, or keep the bins of every target with --keep any",
        )
    return keep if keep != "auto" else "tf" if factors else "any"


def keepers(targets: Sequence[Target], keep: str) -> np.ndarray:
    """Return the targets whose peaks keep a bin, bool (T,), for "tf" or "any"."""
    factors = _factors(targets)
    return factors if keep == "tf" else np.ones_like(factors)


def _factors(targets: Sequence[Target]) -> np.ndarray:
    return np.array([target.category.upper() == "TF" for target in targets], dtype=bool)


def peak_windows(
    peaks: Callable[[], Iterable[TargetPeaks]], length: int, keeping: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the windows of one contig, in order.

    Args:
        peaks: gives the peaks of each target that has any on the contig; called twice.
        length: of the contig; it has no windows if it is shorter than one. The bases after its
            last whole bin are left out.
        keeping: which targets' peaks keep a bin, bool (T,).

    Yields:
        Starts of windows, int64 (n,), which may be negative, and their packed labels, uint8
        (n, label_bytes(T)).
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
    labels = np.zeros((len(bins), label_bytes(len(keeping))), dtype=np.uint8)
    for target, starts, ends in peaks():
        touched, covered = coverage(starts, ends, len(kept))
        labelled = touched[2 * covered > BIN]
        labels[row_of[labelled[kept[labelled]]], target >> 3] |= np.uint8(1 << (target & 7))
    yield bins * BIN - (WINDOW - BIN) // 2, labels


def coverage(starts: np.ndarray, ends: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the bins that spans overlap, and the covered bases of each: int64 (k,) each.

    Args:
        starts: 0-based starts of the spans, (n,), in any order; spans may overlap.
        ends: their ends, (n,).
        bins: number of bins; spans beyond the last bin are ignored.
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
    # Spans are sorted and do not touch, so those that share a bin are adjacent.
    news = np.flatnonzero(np.concatenate([[True], np.diff(touched) > 0]))
    return touched[news], np.add.reduceat(shared, news)
