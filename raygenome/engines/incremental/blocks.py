"""A stretch: the codes that some alleles' windows lie on, and where each window lies on them.

A stretch is one array of codes, put end to end from pieces of genome that hold all reference
windows, and *patches*, one for each allele that is no substitution of a single base. Positions
are indices into this array. A reference window is named by its anchor, the position of its first
base. The alternate window of an insertion or deletion is *spliced* from three sources:

    haplotype   aaaaaaaaaaaaaaaaaaaaaaaa A bbbbbbbbbbbbbbbbbbbbbbbbbb      A = ALT
    features    left left left  | patch patch patch patch |  right right
    found in    genome, as if the  the patch, a copy of     genome, as if the
                window began at    this part of the         window began at
                `left`             haplotype                `right`

Features whose bases all lie before the change are those of a window of the genome that begins at
`left`, features after it those of one that begins at `right` (further on by what was deleted), and
only those between see ALT: the patch holds the bases under them. Both are shared like any others.
"""

from typing import NamedTuple

import numpy as np

from raygenome.engines.incremental.chain import Chain
from raygenome.genome.intervals import union
from raygenome.genome.sequence import encode, reverse_complement
from raygenome.genome.windows import Alleles, Frame, Sequence, alt_window_start, haplotype_window


class Spliced(NamedTuple):
    """Alternate windows put together from three anchors; all arrays int64 (n,).

    Bases of the window before `first` are the genome's at `left`, those from `last` on the genome's
    at `right`; those under the features between are the stretch's at `patch`. An anchor may lie
    outside the stretch: it is where the window's first base would be.
    """

    left: np.ndarray
    patch: np.ndarray
    right: np.ndarray
    first: np.ndarray
    last: np.ndarray

    def positions(self, chain: Chain) -> np.ndarray:
        """Return the positions of the windows' features, int64 (n, features)."""
        begins, ends = middle(chain, self.first[:, None], self.last[:, None])
        feature = np.arange(chain.features)
        source = np.where(
            feature < begins,
            self.left[:, None],
            np.where(feature < ends, self.patch[:, None], self.right[:, None]),
        )
        return source + chain.feature_stride * feature


class Stretch(NamedTuple):
    """Codes and windows of some alleles, on one strand.

    Attributes:
        codes: uint8 (positions,).
        anchors: int64 (windows,), of the reference windows, each once.
        window_of: int64 (n,), the reference window of each allele.
        substituted: int64, rows of alleles that replace one base by another.
        bases: uint8, the codes of their ALT bases.
        spliced_rows: int64, rows of all others; alleles that change nothing are in neither.
        spliced: their windows.
    """

    codes: np.ndarray
    anchors: np.ndarray
    window_of: np.ndarray
    substituted: np.ndarray
    bases: np.ndarray
    spliced_rows: np.ndarray
    spliced: Spliced

    def reversed(self, width: int) -> "Stretch":
        """Return the same windows, of `width` bases, on the other strand."""
        turn = len(self.codes) - width
        left, patch, right, first, last = self.spliced
        return self._replace(
            codes=reverse_complement(self.codes),
            anchors=turn - self.anchors,
            bases=reverse_complement(self.bases)[::-1],
            spliced=Spliced(turn - right, turn - patch, turn - left, width - last, width - first),
        )


def make_stretch(alleles: Alleles, frame: Frame, chain: Chain, sequence: Sequence) -> Stretch:
    """Return the stretch of `alleles`, sorted by start, at least one, on the forward strand."""
    starts, window_of = np.unique(alleles.start, return_inverse=True)
    begins = starts - frame.centre
    lengths = np.fromiter((len(alt) for alt in alleles.alt), np.int64, len(alleles.alt))
    is_single = (alleles.ref_length == 1) & (lengths == 1)
    splices = [
        splice
        for row in np.flatnonzero(~is_single).tolist()
        if (splice := _splice(row, alleles, frame, chain, sequence)) is not None
    ]
    windows = np.stack([begins, begins + frame.width], axis=1)
    genome = _Pieces(np.concatenate([windows, *(splice.genome for splice in splices)]), sequence)
    anchors = genome.position(begins)

    single = np.flatnonzero(is_single)
    bases = encode(b"".join(alleles.alt[row] for row in single.tolist()))
    changes = bases != genome.codes[anchors[window_of[single]] + frame.centre]
    return Stretch(
        codes=np.concatenate([genome.codes, *(splice.patch for splice in splices)]),
        anchors=anchors,
        window_of=window_of,
        substituted=single[changes],
        bases=bases[changes],
        spliced_rows=np.array([splice.row for splice in splices], dtype=np.int64),
        spliced=_put_together(splices, genome),
    )


class _Splice(NamedTuple):
    """One spliced window in coordinates of the genome; `genome` its two intervals, int64 (2, 2)."""

    row: int
    left: int
    right: int
    first: int
    last: int
    genome: np.ndarray
    patch: np.ndarray
    patch_begin: int


def _put_together(splices: list[_Splice], genome: "_Pieces") -> Spliced:
    """Return the windows, whose patches come after the genome's pieces, one after another."""
    lengths = np.array([len(splice.patch) for splice in splices], dtype=np.int64)
    begins = len(genome.codes) + np.cumsum(lengths) - lengths
    anchors = [
        (
            genome.anchor(splice.genome[0], splice.left),
            int(begin) - splice.patch_begin,
            genome.anchor(splice.genome[1], splice.right),
            splice.first,
            splice.last,
        )
        for splice, begin in zip(splices, begins, strict=True)
    ]
    return Spliced(*np.array(anchors, dtype=np.int64).reshape(-1, 5).T)


def _splice(
    row: int, alleles: Alleles, frame: Frame, chain: Chain, sequence: Sequence
) -> _Splice | None:
    """Return how to put the alternate window together; None if it is the reference window."""
    start, ref_length = int(alleles.start[row]), int(alleles.ref_length[row])
    alt = encode(alleles.alt[row])
    width = frame.width
    begin = alt_window_start(start, ref_length, len(alt), frame)
    window = haplotype_window(sequence, start, ref_length, alt, begin, width)
    reference = sequence.fetch(start - frame.centre, start - frame.centre + width)
    if (window == reference).all():
        return None
    # What REF and ALT share at their ends is no change.
    ref = sequence.fetch(start, start + ref_length)
    head = _shared_prefix(ref, alt)
    tail = _shared_prefix(ref[head:][::-1], alt[head:][::-1])
    first = min(max(start + head - begin, 0), width)
    last = min(max(start + len(alt) - tail - begin, 0), width)
    shift = ref_length - len(alt)
    low, high = _patch_range(chain, width, first, last)
    return _Splice(
        row=row,
        left=begin,
        right=begin + shift,
        first=first,
        last=last,
        genome=np.array([[begin, begin + first], [begin + last + shift, begin + width + shift]]),
        patch=window[low:high],
        patch_begin=low,
    )


def middle(
    chain: Chain, first: np.ndarray | int, last: np.ndarray | int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the half-open range of features with a base in [first, last) or across a cut there.

    Features before it end at or before base `first` of the window; those after it begin at or
    after base `last`.
    """
    stride, under = chain.feature_stride, chain.feature_receptive
    begin = np.clip((np.asarray(first) - under) // stride + 1, 0, chain.features)
    end = np.clip(-(-np.asarray(last) // stride), begin, chain.features)
    return begin, end


def _patch_range(chain: Chain, width: int, first: int, last: int) -> tuple[int, int]:
    """Return the part of the window under the middle features of both strands."""
    ranges = []
    for strand, (a, b) in enumerate([(first, last), (width - last, width - first)]):
        begin, end = (int(x) for x in middle(chain, a, b))
        if begin < end:
            low = begin * chain.feature_stride
            high = (end - 1) * chain.feature_stride + chain.feature_receptive
            ranges.append((low, high) if strand == 0 else (width - high, width - low))
    if not ranges:
        return 0, 0
    return min(low for low, _ in ranges), max(high for _, high in ranges)


def _shared_prefix(one: np.ndarray, other: np.ndarray) -> int:
    """Return how many elements both begin with."""
    length = min(len(one), len(other))
    differ = np.flatnonzero(one[:length] != other[:length])
    return int(differ[0]) if len(differ) else length


class _Pieces:
    """The union of intervals of the genome, put end to end.

    Args:
        intervals: int64 (n, 2), half-open; empty ones are left out.
        sequence: the contig.
    """

    def __init__(self, intervals: np.ndarray, sequence: Sequence) -> None:
        intervals = intervals[intervals[:, 0] < intervals[:, 1]]
        self._begins, ends = union(intervals[:, 0], intervals[:, 1])
        self._offsets = np.r_[0, np.cumsum(ends - self._begins)][:-1]
        pieces = zip(self._begins.tolist(), ends.tolist(), strict=True)
        self.codes = np.concatenate([sequence.fetch(begin, end) for begin, end in pieces])

    def position(self, genome: np.ndarray) -> np.ndarray:
        """Return where bases of the genome lie in `codes`; they must lie there."""
        piece = np.searchsorted(self._begins, genome, side="right") - 1
        return genome - self._begins[piece] + self._offsets[piece]

    def anchor(self, interval: np.ndarray, anchor: int) -> int:
        """Return the position of `anchor`, counted from the piece that holds `interval`."""
        begin, end = int(interval[0]), int(interval[1])
        if begin >= end:
            return 0
        return int(self.position(np.array([begin]))[0]) - (begin - anchor)
