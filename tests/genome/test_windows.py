"""Windows, compared with a full haplotype string, and with published coordinates and strings."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from raygenome.genome.sequence import MemoryContig, decode, encode
from raygenome.genome.windows import (
    INDEL_MODES,
    Alleles,
    WindowSpec,
    alt_window_start,
    alternate_windows,
    haplotype_window,
    reference_windows,
)


def contig_of(bases: str) -> MemoryContig:
    return MemoryContig(encode(bases))


def random_bases(rng: np.random.Generator, length: int) -> str:
    return "".join(rng.choice(list("ACGT"), length))


def haplotype(bases: str, start: int, ref_length: int, alt: str) -> str:
    return bases[:start] + alt + bases[start + ref_length :]


def slow_window(bases: str, begin: int, width: int) -> str:
    """Return [begin, begin + width) of a string with N beyond its ends."""
    return "".join(bases[i] if 0 <= i < len(bases) else "N" for i in range(begin, begin + width))


@st.composite
def cases(draw: st.DrawFn) -> tuple[str, int, int, str, int, str]:
    """Return contig bases, start, REF length, ALT, window width, indel mode."""
    width = draw(st.sampled_from([10, 11, 20, 50]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    bases = random_bases(rng, draw(st.integers(30, 150)))
    start = draw(st.integers(0, len(bases) - 1))
    ref_length = draw(st.integers(1, min(width, len(bases) - start)))
    alt = random_bases(rng, draw(st.integers(1, width)))
    return bases, start, ref_length, alt, width, draw(st.sampled_from(INDEL_MODES))


def test_a_contig_in_memory_has_n_beyond_its_ends() -> None:
    bases = random_bases(np.random.default_rng(3), 40)
    contig = contig_of(bases)
    for start in range(-50, 60):
        for length in (0, 1, 7, 40, 120):
            found = contig.fetch(start, start + length)
            assert decode(found) == slow_window(bases, start, length)
    found[:] = 0  # the caller's own
    assert decode(contig.codes) == bases


@pytest.mark.slow
@given(cases())
@settings(max_examples=500, deadline=None)
def test_alternate_window_is_the_haplotypes(case: tuple[str, int, int, str, int, str]) -> None:
    bases, start, ref_length, alt, width, mode = case
    window_spec = WindowSpec(width, width // 2 - 1, mode)
    alleles = Alleles(np.array([start]), np.array([ref_length]), [alt.encode()])
    contig = contig_of(bases)
    reference = reference_windows(alleles.start, window_spec, contig)
    (window,) = alternate_windows(alleles, reference, window_spec, contig)

    begin = alt_window_start(start, ref_length, len(alt), window_spec)
    assert decode(window) == slow_window(haplotype(bases, start, ref_length, alt), begin, width)
    assert decode(reference[0]) == slow_window(bases, start - window_spec.centre, width)
    if len(alt) == ref_length:  # written in place, by another path
        slow = haplotype_window(contig, start, ref_length, encode(alt), begin, width)
        assert decode(window) == decode(slow)


@given(cases())
@settings(max_examples=200, deadline=None)
def test_symmetric_is_deepseas_crop_of_a_longer_window(
    case: tuple[str, int, int, str, int, str],
) -> None:
    bases, start, ref_length, alt, width, _ = case
    window_spec = WindowSpec(width, width // 2 - 1)
    slack = 200  # DeepSEA takes 50 on each side; the law does not depend on it
    ref_extended = slow_window(bases, start - window_spec.centre - slack, width + 2 * slack)
    at = window_spec.centre + slack
    alt_extended = ref_extended[:at] + alt + ref_extended[at + ref_length :]
    crop = (len(alt_extended) - width) // 2
    begin = alt_window_start(start, ref_length, len(alt), window_spec)
    window = haplotype_window(contig_of(bases), start, ref_length, encode(alt), begin, width)
    assert decode(window) == alt_extended[crop : crop + width]


@pytest.mark.parametrize(
    ("width", "ref", "alt", "offset"),
    [
        (1000, "A", "G", 499),
        (600, "A", "G", 299),
        (1000, "AC", "GT", 499),
        (1000, "A", "AC", 499),  # 499 - floor(1 / 2)
        (1000, "A", "ACGT", 498),  # 499 - floor(3 / 2)
        (1000, "AC", "A", 500),  # 499 - floor(-1 / 2)
        (1000, "ACGT", "A", 501),  # 499 - floor(-3 / 2)
    ],
)
def test_index_of_the_first_alt_base(width: int, ref: str, alt: str, offset: int) -> None:
    window_spec = WindowSpec(width, width // 2 - 1)
    assert 10_000 - alt_window_start(10_000, len(ref), len(alt), window_spec) == offset


@pytest.mark.parametrize(
    ("pos", "first_1000", "last_1000"),
    [
        (109_817_590, 109_817_091, 109_818_090),
        (23_508_363, 23_507_864, 23_508_863),
        (209_709, 209_210, 210_209),
        (52_599_188, 52_598_689, 52_599_688),
    ],
)
def test_published_coordinates(pos: int, first_1000: int, last_1000: int) -> None:
    """The four hg19 examples of DeepSEA's help page: 1000 bp inside the 1100 bp it names."""
    window_spec = WindowSpec(1000, 499)
    begin = alt_window_start(pos - 1, 1, 1, window_spec)
    assert (begin + 1, begin + 1000) == (first_1000, last_1000)


@pytest.mark.parametrize(
    ("flanks", "ref_length", "alt", "expected"),
    [
        # kipoi-veff2's test_dataloader.py, L = 10: hg38 chr22, the ten bases around and the ALT.
        ("TGGTGATTTT", 1, "T", "TGGTTATTTT"),
        ("CTGTGCTCAA", 1, "C", "CTGTCCTCAA"),
        ("CACCAAGGCC", 1, "G", "CACCGAGGCC"),
        ("CACCAAGGCCTG", 3, "G", "CACCGGCCTG"),
        ("TTATTTATTT", 1, "G", "TTATGTATTT"),
        ("ATCTTTATTT", 1, "A", "ATCTATATTT"),
        ("TGAGGATGTT", 1, "A", "TGAGAATGTT"),
    ],
)
def test_left_anchor_gives_kipoi_veff2s_windows(
    flanks: str, ref_length: int, alt: str, expected: str
) -> None:
    window_spec = WindowSpec(10, 4, "left-anchor")
    start = 4
    alleles = Alleles(np.array([start]), np.array([ref_length]), [alt.encode()])
    reference = reference_windows(alleles.start, window_spec, contig_of(flanks))
    assert decode(reference[0]) == flanks[:10]
    assert (
        decode(alternate_windows(alleles, reference, window_spec, contig_of(flanks))[0]) == expected
    )


def test_left_anchor_pushes_an_insertion_to_the_left() -> None:
    contig = contig_of("ACGGTTCAGCATTCGA")
    window_spec = WindowSpec(10, 4, "left-anchor")
    begin = alt_window_start(6, 1, 3, window_spec)
    window = haplotype_window(contig, 6, 1, encode("CTT"), begin, 10)
    assert decode(window) == "TT" + "CTT" + "AGCAT"  # ALT ends at index 4


def test_reference_windows_far_apart_and_close_together() -> None:
    rng = np.random.default_rng(5)
    bases = random_bases(rng, 400_000)
    starts = np.sort(rng.choice(400_000, 300, replace=False))
    starts[:3] = 0, 0, 1
    windows = reference_windows(np.sort(starts), WindowSpec(100, 49), contig_of(bases))
    for start, window in zip(np.sort(starts), windows, strict=True):
        assert decode(window) == slow_window(bases, int(start) - 49, 100)
    assert reference_windows(
        np.array([], dtype=np.int64), WindowSpec(100, 49), contig_of(bases)
    ).shape == (
        0,
        100,
    )
