"""Sequence blocks, compared with windows cut from edited strings, on both strands."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.builders import random_bases
from support.engine_oracle import (
    Case,
    Contig,
    StageSpec,
    all_alts,
    as_alleles,
    other_strand,
    random_case,
    toy_net,
    windows_of,
    with_n,
)

from raygenome.engines.incremental.blocks import SequenceBlock, make_block, middle
from raygenome.engines.incremental.chain import Chain
from raygenome.engines.incremental.planner import plan_chain
from raygenome.genome.sequence import decode
from raygenome.genome.windows import WindowSpec
from raygenome.models import build

NETS = [
    toy_net([StageSpec(2, 4, 3), StageSpec(2, 2, 2)], features=5, slack=2),
    toy_net([StageSpec(2, 5)], features=12),
    toy_net([StageSpec(2, 1, 4)], features=6, slack=3),
    toy_net([StageSpec(2, 3), StageSpec(2, 3, 5), StageSpec(2, 2)], features=3, slack=4),
]
CHAINS = [plan_chain(net) for net in NETS]


def check_block(
    cases: list[Case], bases: str, window_spec: WindowSpec, chain: Chain
) -> SequenceBlock:
    """Check both strands of the block of sorted `cases`; return the forward one."""
    block = make_block(as_alleles(cases), window_spec, chain, Contig(bases))
    pairs = [windows_of(bases, case, window_spec) for case in cases]
    check_rows(block, cases, pairs)
    check_strand(block, pairs, chain, window_spec.centre)
    turned = block.reversed(window_spec.width)
    other_pairs = [(other_strand(ref), other_strand(alt)) for ref, alt in pairs]
    check_strand(turned, other_pairs, chain, window_spec.width - 1 - window_spec.centre)
    return block


def check_rows(block: SequenceBlock, cases: list[Case], pairs: list[tuple[str, str]]) -> None:
    """Each allele whose windows differ is one of the two kinds, each window there once."""
    single = {row for row, (_, length, alt) in enumerate(cases) if length == len(alt) == 1}
    changed = {row for row, (ref, alt) in enumerate(pairs) if ref != alt}
    assert block.substituted.tolist() == sorted(single & changed)
    assert block.indel_rows.tolist() == sorted(changed - single)
    assert len(set(block.anchors.tolist())) == len({start for start, _, _ in cases})
    assert len(block.window_of) == len(cases)


def check_strand(
    block: SequenceBlock, pairs: list[tuple[str, str]], chain: Chain, changed_at: int
) -> None:
    codes, width = decode(block.codes), chain.width
    for (ref, _), window in zip(pairs, block.window_of, strict=True):
        begin = int(block.anchors[window])
        assert codes[begin : begin + width] == ref
        assert begin >= 0
    letters = decode(block.bases)
    for row, base in zip(block.substituted, letters, strict=True):
        ref, alt = pairs[row]
        assert ref[:changed_at] + base + ref[changed_at + 1 :] == alt
        assert ref[changed_at] != base
    positions = block.indels.positions(chain)
    assert positions.shape == (len(block.indel_rows), chain.features)
    under, stride = chain.feature_receptive, chain.feature_stride
    for row, places in zip(block.indel_rows, positions.tolist(), strict=True):
        _, alt = pairs[row]
        for feature, place in enumerate(places):
            assert 0 <= place <= len(codes) - under
            expected = alt[feature * stride : feature * stride + under]
            assert codes[place : place + under] == expected, f"allele {row}, feature {feature}"


@pytest.mark.slow
@settings(max_examples=250, deadline=None)
@given(
    chain=st.sampled_from(CHAINS),
    indel_mode=st.sampled_from(["symmetric", "left-anchor"]),
    data=st.data(),
)
def test_every_window_is_found_in_the_stretch(
    chain: Chain, indel_mode: str, data: st.DataObject
) -> None:
    width = chain.width
    window_spec = WindowSpec(
        width, data.draw(st.integers(0, width - 1), label="centre"), indel_mode
    )
    length = data.draw(st.integers(1, 6 * width), label="contig")
    rng = np.random.default_rng(data.draw(st.integers(0, 9999), label="seed"))
    # With few letters or long repeats, REF and ALT share bases, and shifted flanks are equal.
    bases = random_bases(rng, length)
    if data.draw(st.booleans(), label="repeats"):
        bases = (bases[:3] * length)[:length]
    if data.draw(st.booleans(), label="N"):
        begin = int(rng.integers(length))
        bases = with_n(bases, begin, min(begin + width // 3, length))
    longest = data.draw(st.sampled_from([3, width // 2, 2 * width]), label="longest")
    cases = [random_case(rng, bases, longest) for _ in range(data.draw(st.integers(1, 10)))]
    check_block(sorted(cases), bases, window_spec, chain)


@settings(max_examples=150, deadline=None)
@given(
    ref=st.text("AC", min_size=1, max_size=9),
    alt=st.text("AC", min_size=1, max_size=9),
    left=st.text("AC", max_size=30),
    right=st.text("AC", max_size=30),
    chain=st.sampled_from(CHAINS),
    indel_mode=st.sampled_from(["symmetric", "left-anchor"]),
)
@example("A", "AA", "A" * 30, "A" * 30, CHAINS[0], "symmetric")  # the window is what it was
@example("AA", "A", "", "", CHAINS[0], "left-anchor")
def test_alleles_that_share_bases_with_what_is_around(
    ref: str, alt: str, left: str, right: str, chain: Chain, indel_mode: str
) -> None:
    window_spec = WindowSpec(chain.width, chain.width // 2 - 1, indel_mode)
    check_block([(len(left), len(ref), alt)], left + ref + right, window_spec, chain)


@pytest.mark.slow
@pytest.mark.parametrize("indel_mode", ["symmetric", "left-anchor"])
@pytest.mark.parametrize("architecture", ["deepsea", "basset"])
def test_published_nets(architecture: str, indel_mode: str) -> None:
    chain = plan_chain(build(architecture))
    rng = np.random.default_rng(2)
    bases = with_n(random_bases(rng, 4000), 2500, 2600)
    window_spec = WindowSpec(chain.width, chain.width // 2 - 1, indel_mode)
    cases = [random_case(rng, bases, 300) for _ in range(30)]
    cases += [(1500, 1, random_bases(rng, 2000)), (1200, 2400, "A"), (0, 4000, "ACGT")]
    cases += [(0, 1, "ACGT"), (3999, 1, "ACGT"), (3990, 10, "T")]
    check_block(sorted(cases + all_alts(range(2000, 2008))), bases, window_spec, chain)


def test_ref_need_not_be_the_genomes() -> None:
    """Only the length of REF counts: the bases of the genome are replaced."""
    chain, bases = CHAINS[0], random_bases(np.random.default_rng(3), 200)
    window_spec = WindowSpec(chain.width, 10)
    for base in "ACGT":
        block = check_block([(90, 1, base)], bases, window_spec, chain)
        assert len(block.substituted) == (base != bases[90])


def test_windows_far_apart_do_not_fetch_what_is_between() -> None:
    chain, bases = CHAINS[0], random_bases(np.random.default_rng(4), 20_000)
    window_spec = WindowSpec(chain.width, chain.width // 2)
    cases = [(500, 1, "ACC"), (10_000, 1, "C"), (19_000, 4, "G")]
    block = check_block(cases, bases, window_spec, chain)
    assert len(block.codes) < 6 * chain.width


@pytest.mark.slow
def test_a_short_change_needs_a_short_patch() -> None:
    """An insertion adds only the bases of the features that see it to the block."""
    chain = plan_chain(build("deepsea"))
    bases = random_bases(np.random.default_rng(5), 3000)
    window_spec = WindowSpec(chain.width, 499)
    alone = make_block(as_alleles([(1500, 1, "A")]), window_spec, chain, Contig(bases))
    both = make_block(as_alleles([(1500, 1, "ACGTA")]), window_spec, chain, Contig(bases))
    under = chain.feature_receptive
    assert len(both.codes) - len(alone.codes) < 2 * under + 5 + 2 * chain.feature_stride


@settings(max_examples=200, deadline=None)
@given(chain=st.sampled_from(CHAINS), data=st.data())
def test_middle_features_are_those_that_see_the_change(chain: Chain, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, chain.width))
    last = data.draw(st.integers(first, chain.width))
    begin, end = middle(chain, first, last)
    assert 0 <= begin <= end <= chain.features
    for feature in range(chain.features):
        at = feature * chain.feature_stride
        past = at + chain.feature_receptive
        # One that only touches the change from outside sees one side of the cut only.
        sees = at < last and past > first
        assert (begin <= feature < end) == sees
