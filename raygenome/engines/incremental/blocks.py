"""A sequence block: the bases under the windows of some alleles, and where each window lies.

A sequence block is one array of base codes. It holds pieces of the genome with all reference
windows, end to end, and then *patches*, one for each allele that is not a substitution of a single
base. Positions are indices into this array. A reference window is named by its anchor, the position
of its first base. The alternate window of an insertion or deletion is put together from three
sources:

    haplotype   aaaaaaaaaaaaaaaaaaaaaaaa A bbbbbbbbbbbbbbbbbbbbbbbbbb      A = ALT
    features    left left left  | patch patch patch patch |  right right
    found in    genome, as if the  the patch, a copy of     genome, as if the
                window began at    this part of the         window began at
                `left`             haplotype                `right`

Features with all their bases before the change equal those of a window of the genome that begins at
`left`. Features after the change equal those of a window that begins at `right`, shifted by the
difference in length. These two kinds are shared with other windows. Only the features between see
ALT; the patch holds the bases under them. Substitutions of several bases go the same way.
"""

from typing import NamedTuple

import numpy as np

from raygenome.engines.incremental.chain import Chain
from raygenome.genome.intervals import union
from raygenome.genome.sequence import encode, reverse_complement
from raygenome.genome.windows import (
    Alleles,
    Sequence,
    WindowSpec,
    alt_window_start,
    haplotype_window,
)


class IndelWindows(NamedTuple):
    """Alternate windows put together from three anchors; all arrays int64 (n,).

    Bases of the window before `first` are the genome's at `left`; bases from `last` on are the
    genome's at `right`; bases under the features between are the patch's, at `patch`. An anchor may
    lie outside the block: it is where the window's first base would be.
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


class SequenceBlock(NamedTuple):
    """Codes and windows of some alleles, on one strand.

    Attributes:
        codes: uint8 (positions,).
        anchors: int64 (windows,), of the reference windows, without repeats.
        window_of: int64 (n,), the reference window of each allele.
        substituted: int64, rows of alleles that replace one base by another.
        bases: uint8, the codes of their ALT bases.
        indel_rows: int64, rows of all others; alleles that change nothing are in neither list.
        indels: their windows.
    """

    codes: np.ndarray
    anchors: np.ndarray
    window_of: np.ndarray
    substituted: np.ndarray
    bases: np.ndarray
    indel_rows: np.ndarray
    indels: IndelWindows

    def reversed(self, width: int) -> "SequenceBlock":
        """Return the same windows, of `width` bases, on the other strand."""
        turn = len(self.codes) - width
        left, patch, right, first, last = self.indels
        return self._replace(
            codes=reverse_complement(self.codes),
            anchors=turn - self.anchors,
            bases=reverse_complement(self.bases)[::-1],
            indels=IndelWindows(
                turn - right, turn - patch, turn - left, width - last, width - first
            ),
        )


def make_block(
    alleles: Alleles, window_spec: WindowSpec, chain: Chain, sequence: Sequence
) -> SequenceBlock:
    """Return the block of `alleles`, at least one, sorted by start, on the forward strand."""
    starts, window_of = np.unique(alleles.start, return_inverse=True)
    begins = starts - window_spec.centre
    lengths = np.fromiter((len(alt) for alt in alleles.alt), np.int64, len(alleles.alt))
    is_single = (alleles.ref_length == 1) & (lengths == 1)
    indels = [
        indel
        for row in np.flatnonzero(~is_single).tolist()
        if (indel := _indel_window(row, alleles, window_spec, chain, sequence)) is not None
    ]
    windows = np.stack([begins, begins + window_spec.width], axis=1)
    genome = _Pieces(np.concatenate([windows, *(indel.genome for indel in indels)]), sequence)
    anchors = genome.position(begins)

    single = np.flatnonzero(is_single)
    bases = encode(b"".join(alleles.alt[row] for row in single.tolist()))
    changes = bases != genome.codes[anchors[window_of[single]] + window_spec.centre]
    return SequenceBlock(
        codes=np.concatenate([genome.codes, *(indel.patch for indel in indels)]),
        anchors=anchors,
        window_of=window_of,
        substituted=single[changes],
        bases=bases[changes],
        indel_rows=np.array([indel.row for indel in indels], dtype=np.int64),
        indels=_put_together(indels, genome),
    )


class _IndelWindow(NamedTuple):
    """One such window in coordinates of the genome; `genome` is its two intervals, int64 (2, 2)."""

    row: int
    left: int
    right: int
    first: int
    last: int
    genome: np.ndarray
    patch: np.ndarray
    patch_begin: int


def _put_together(indels: list[_IndelWindow], genome: "_Pieces") -> IndelWindows:
    """Return the windows; their patches follow the pieces of the genome, one after another."""
    lengths = np.array([len(indel.patch) for indel in indels], dtype=np.int64)
    begins = len(genome.codes) + np.cumsum(lengths) - lengths
    anchors = [
        (
            genome.anchor(indel.genome[0], indel.left),
            int(begin) - indel.patch_begin,
            genome.anchor(indel.genome[1], indel.right),
            indel.first,
            indel.last,
        )
        for indel, begin in zip(indels, begins, strict=True)
    ]
    return IndelWindows(*np.array(anchors, dtype=np.int64).reshape(-1, 5).T)


def _indel_window(
    row: int, alleles: Alleles, window_spec: WindowSpec, chain: Chain, sequence: Sequence
) -> _IndelWindow | None:
    """Return how to put the alternate window together; None if it is the reference window."""
    start, ref_length = int(alleles.start[row]), int(alleles.ref_length[row])
    alt = encode(alleles.alt[row])
    width = window_spec.width
    begin = alt_window_start(start, ref_length, len(alt), window_spec)
    window = haplotype_window(sequence, start, ref_length, alt, begin, width)
    reference = sequence.fetch(start - window_spec.centre, start - window_spec.centre + width)
    if (window == reference).all():
        return None
    # The bases that REF and ALT share at their ends are unchanged.
    ref = sequence.fetch(start, start + ref_length)
    head = _shared_prefix(ref, alt)
    tail = _shared_prefix(ref[head:][::-1], alt[head:][::-1])
    first = min(max(start + head - begin, 0), width)
    last = min(max(start + len(alt) - tail - begin, 0), width)
    shift = ref_length - len(alt)
    low, high = _patch_range(chain, width, first, last)
    return _IndelWindow(
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
    """Return the half-open range of features that see [first, last), or the joint if it is empty.

    Features before this range end at or before base `first` of the window; features after it begin
    at or after base `last`.
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
    """Return the length of the common prefix."""
    length = min(len(one), len(other))
    differ = np.flatnonzero(one[:length] != other[:length])
    return int(differ[0]) if len(differ) else length


class _Pieces:
    """The union of intervals of the genome, end to end.

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
        """Return the positions in `codes` of bases of the genome; they must be inside."""
        piece = np.searchsorted(self._begins, genome, side="right") - 1
        return genome - self._begins[piece] + self._offsets[piece]

    def anchor(self, interval: np.ndarray, anchor: int) -> int:
        """Return the position of `anchor`, counted from the piece that holds `interval`."""
        begin, end = int(interval[0]), int(interval[1])
        if begin >= end:
            return 0
        return int(self.position(np.array([begin]))[0]) - (begin - anchor)
