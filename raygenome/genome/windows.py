"""Reference and alternate windows: the bases that a model gets for an allele.

For an allele whose first REF base lies at `start` (0-based) and a model whose window has `width`
bases with the variant at index `centre` (width/2 - 1 in both published nets):

* the reference window is the genome at [start - centre, start - centre + width);
* the alternate haplotype is the contig with REF replaced by ALT, and the alternate window is
  `width` bases of it, from the coordinate that `alt_window_start` gives.

    genome     ...aaaaaaaaaaaaaa RRR bbbbbbbbbbbb...        R = REF, at `start`
    haplotype  ...aaaaaaaaaaaaaa A bbbbbbbbbbbb...          A = ALT
    symmetric        [aaaaaaaaaa A bbbbbbbbb]               bases are added at both sides
    left-anchor         [aaaaaaa A bbbbbbbbbbbb]            the first base stays at `centre`

Both windows are therefore substrings of a real haplotype. Beyond a contig's ends they hold N.
Substitutions (SNV, MNV: REF and ALT of one length) keep the reference window's place in both modes.
"""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np

from raygenome.genome.sequence import encode

INDEL_MODES = ("symmetric", "left-anchor")

#: Windows further apart than this, in bases, are fetched from the genome separately.
_FETCH_GAP = 1 << 16


class Sequence(Protocol):
    """One contig's bases."""

    def fetch(self, start: int, end: int) -> np.ndarray:
        """Return the codes of [start, end), 0-based, with N beyond the contig's ends."""


class Alleles(NamedTuple):
    """Alleles of one contig, sorted by start: the alleles of a shard for an engine.

    `start` is int64 (n,), the 0-based position of the first REF base; `ref_length` int64 (n,);
    `alt` a list of n upper-case ACGT byte strings.
    """

    start: np.ndarray
    ref_length: np.ndarray
    alt: list[bytes]

    def rows(self, begin: int, end: int) -> "Alleles":
        """Return the alleles of rows [begin, end)."""
        return Alleles(self.start[begin:end], self.ref_length[begin:end], self.alt[begin:end])


class WindowSpec(NamedTuple):
    """A model's window: its width, the index of the variant's first base, and the indel rule."""

    width: int
    centre: int
    indel_mode: str = "symmetric"


def alt_window_start(start: int, ref_length: int, alt_length: int, window_spec: WindowSpec) -> int:
    """Return where the alternate window begins, in the coordinates of the alternate haplotype.

    symmetric: DeepSEA's rule. Its published scorer builds ALT inside a longer window and crops
    the middle, so that with d = len(ALT) - len(REF) the first base is at centre - floor(d/2).
    Here the longer window is as long as the allele needs, not by 100 bases longer.

    left-anchor: the rule of kipoi-veff2. The point after index `centre` is fixed: a deletion
    adds bases at the right end, and an insertion after one anchor base ends at `centre` and drops
    bases at the left end.
    """
    if window_spec.indel_mode == "symmetric":
        return start - window_spec.centre + (alt_length - ref_length) // 2
    before_anchor = alt_length if ref_length == 1 else min(1, alt_length)
    return start + before_anchor - (window_spec.centre + 1)


def haplotype_window(
    sequence: Sequence, start: int, ref_length: int, alt: np.ndarray, begin: int, width: int
) -> np.ndarray:
    """Return `width` codes of the alternate haplotype, from its coordinate `begin` on.

    Haplotype coordinates equal the genome's up to `start`; then come the codes of `alt`, then the
    genome from start + ref_length on.
    """
    end = begin + width
    alt_end = start + len(alt)
    pieces = []
    if begin < start:
        pieces.append(sequence.fetch(begin, min(start, end)))
    if begin < alt_end and end > start:
        pieces.append(alt[max(begin - start, 0) : end - start])
    if end > alt_end:
        shift = ref_length - len(alt)
        pieces.append(sequence.fetch(max(begin, alt_end) + shift, end + shift))
    return np.concatenate(pieces)


def reference_windows(
    starts: np.ndarray, window_spec: WindowSpec, sequence: Sequence
) -> np.ndarray:
    """Return the reference windows of sorted `starts`: uint8 codes (n, width)."""
    windows = np.empty((len(starts), window_spec.width), dtype=np.uint8)
    for first, last in _close_runs(starts):
        origin = int(starts[first]) - window_spec.centre
        bases = sequence.fetch(
            origin, int(starts[last - 1]) - window_spec.centre + window_spec.width
        )
        views = np.lib.stride_tricks.sliding_window_view(bases, window_spec.width)
        windows[first:last] = views[starts[first:last] - window_spec.centre - origin]
    return windows


def alternate_windows(
    alleles: Alleles, reference: np.ndarray, window_spec: WindowSpec, sequence: Sequence
) -> np.ndarray:
    """Return the alternate windows of `alleles`: uint8 codes (n, width).

    Args:
        alleles: n alleles, sorted by start.
        reference: their reference windows, codes (n, width), in the same order.
        window_spec: the model's window.
        sequence: the contig of the alleles.
    """
    windows = reference.copy()
    for row, alt in enumerate(alleles.alt):
        ref_length = int(alleles.ref_length[row])
        codes = encode(alt)
        if len(alt) == ref_length:
            # The alternate haplotype has the genome's coordinates: ALT replaces REF in place.
            shown = codes[: window_spec.width - window_spec.centre]
            windows[row, window_spec.centre : window_spec.centre + len(shown)] = shown
        else:
            start = int(alleles.start[row])
            begin = alt_window_start(start, ref_length, len(alt), window_spec)
            windows[row] = haplotype_window(
                sequence, start, ref_length, codes, begin, window_spec.width
            )
    return windows


def _close_runs(starts: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield (first, last) row ranges of sorted `starts` without a gap over _FETCH_GAP."""
    if len(starts) == 0:
        return
    cuts = np.flatnonzero(np.diff(starts) > _FETCH_GAP) + 1
    yield from zip([0, *cuts.tolist()], [*cuts.tolist(), len(starts)], strict=True)
