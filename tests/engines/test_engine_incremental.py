"""The incremental engine against the whole net in float64 on windows written out as strings."""

import contextlib
import gzip
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.builders import BASES, random_bases
from support.engine_oracle import (
    Case,
    Oracle,
    ToyNet,
    all_alts,
    as_alleles,
    beluga_stages,
    random_case,
    toy_net,
    toy_nets,
    with_n,
)
from support.engine_runs import (
    centred,
    check,
    dense_cases,
    joined,
    make,
    oracle_of,
    scored,
    worst,
)

from raygenome.genome.fasta import Reference
from raygenome.genome.sequence import decode
from raygenome.genome.windows import WindowSpec
from raygenome.models import build
from raygenome.models.net import Net
from raygenome.registry.weights import randomise

pytestmark = pytest.mark.usefixtures("one_thread")

INDEL_MODES = ["symmetric", "left-anchor"]


# Random small nets, random alleles.


@pytest.mark.slow
@settings(max_examples=80, deadline=None)
@given(net=toy_nets(), data=st.data())
def test_any_net_any_allele(net: ToyNet, data: st.DataObject) -> None:
    width = net.config["window"]
    centre = data.draw(st.integers(0, width - 1), label="centre")
    window_spec = WindowSpec(
        width, centre, data.draw(st.sampled_from(INDEL_MODES), label="indel mode")
    )
    both_strands = data.draw(st.booleans(), label="both strands")
    length = data.draw(st.integers(2, 4 * width), label="contig")
    rng = np.random.default_rng(data.draw(st.integers(0, 999), label="seed"))
    bases = random_bases(rng, length)
    if data.draw(st.booleans(), label="N"):
        begin = int(rng.integers(length))
        bases = with_n(bases, begin, min(begin + 9, length))
    cases = [random_case(rng, bases, 3 * width // 2) for _ in range(12)]
    first = int(rng.integers(length))
    cases = sorted([*cases, *all_alts(range(first, min(first + 8, length)))])
    found = scored(net, window_spec, cases, bases, both_strands=both_strands)
    check(found, oracle_of(net).effects(cases, bases, window_spec, both_strands=both_strands))


@pytest.mark.parametrize("indel_mode", INDEL_MODES)
def test_a_net_shaped_as_beluga(indel_mode: str) -> None:
    net = toy_net(beluga_stages(), features=106, slack=10, hidden=(12,), targets=9)
    assert net.config["window"] == 2000
    rng = np.random.default_rng(1)
    bases = random_bases(rng, 3000)
    window_spec = centred(net, indel_mode)
    cases = sorted(
        [random_case(rng, bases, 300) for _ in range(20)] + all_alts(range(1400, 1430, 3))
    )
    check(scored(net, window_spec, cases, bases), oracle_of(net).effects(cases, bases, window_spec))


@pytest.mark.slow
@pytest.mark.parametrize("indel_mode", INDEL_MODES)
def test_a_narrow_beluga(indel_mode: str) -> None:
    net = build("beluga", {"channels": (24, 20, 16), "hidden": 30, "targets": 40})
    randomise(net, 3)
    rng = np.random.default_rng(9)
    bases = random_bases(rng, 3000)
    cases = sorted(
        [random_case(rng, bases, 300) for _ in range(20)] + all_alts(range(1400, 1430, 3))
    )
    window_spec = centred(net.eval(), indel_mode)
    expected = oracle_of(net).effects(cases, bases, window_spec)
    found = scored(net, window_spec, cases, bases)
    check(found, expected)
    assert np.abs(expected.diff).max() > 1e-3
    assert worst(found, expected) <= 2e-6


# Full-size nets.


def published(architecture: str) -> Net:
    net = build(architecture)
    randomise(net, 3)
    return net.eval()


def awkward_cases(rng: np.random.Generator, bases: str, n: int) -> list[Case]:
    """Return alleles of all kinds, up to 300 bases long, at the ends and around a run of N too."""
    end, middle = len(bases), len(bases) // 2
    cases = [random_case(rng, bases, 300) for _ in range(n)]
    cases += all_alts(range(middle, middle + 4))
    for length in (2, 16, 17, 300):
        cases += [(middle - 30 + length, 1, random_bases(rng, length))]
        cases += [(middle + 30 - length, length, "T")]
        cases += [(middle + 9, length, random_bases(rng, length))]
    cases += [(0, 1, "G"), (3, 1, "ACCA"), (1, 5, "T"), (end - 1, 1, "T"), (end - 9, 8, "C")]
    cases += [(bases.index("N") - 20, 1, "A"), (bases.rindex("N") + 8, 1, "CT")]
    return sorted(cases)


def compared(
    net: Net, cases: list[Case], bases: str, window_spec: WindowSpec, oracle: Oracle
) -> tuple[float, float]:
    """Check the engine; return its largest error of a difference and the full engine's."""
    expected = oracle.effects(cases, bases, window_spec)
    assert np.abs(expected.diff).max() > 1e-3, "a net that answers nothing tests nothing"
    incremental = scored(net, window_spec, cases, bases)
    check(incremental, expected)
    full = scored(net, window_spec, cases, bases, name="full")
    errors = worst(incremental, expected), worst(full, expected)
    print("largest errors of diff: incremental {:.2e}, full {:.2e}".format(*errors))
    return errors


@pytest.mark.slow
def test_basset_on_a_few_alleles(paid: list[bool]) -> None:
    net = published("basset")
    rng = np.random.default_rng(5)
    bases = random_bases(rng, 900)
    cases = sorted([random_case(rng, bases, 40) for _ in range(10)] + all_alts(range(400, 406)))
    error, of_full = compared(net, cases, bases, centred(net), oracle_of(net))
    assert error <= of_full
    assert paid == [False, False]


@pytest.mark.slow
def test_deepsea_on_a_few_alleles(paid: list[bool]) -> None:
    net = published("deepsea")
    rng = np.random.default_rng(6)
    bases = random_bases(rng, 1300)
    cases = sorted([(600, 1, "A"), (600, 1, "C"), (606, 4, "TA"), (640, 1, "GATTACA")])
    error, of_full = compared(net, cases, bases, centred(net), oracle_of(net))
    assert error <= of_full
    assert paid == [False, False]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "n", "indel_mode"),
    [("deepsea", 6, "left-anchor"), *(("basset", 40, mode) for mode in INDEL_MODES)],
)
def test_published_nets_are_no_further_from_float64_than_the_full_engine(
    architecture: str, n: int, indel_mode: str
) -> None:
    net = published(architecture)
    rng = np.random.default_rng(11)
    bases = random_bases(rng, 1200) + "N" * 90 + random_bases(rng, 1500)
    window_spec = centred(net, indel_mode)
    error, of_full = compared(net, awkward_cases(rng, bases, n), bases, window_spec, oracle_of(net))
    assert error <= of_full


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["deepsea", "basset"])
def test_published_nets_where_variants_are_dense(architecture: str, paid: list[bool]) -> None:
    net = published(architecture)
    rng = np.random.default_rng(12)
    bases = random_bases(rng, 2500)
    cases = dense_cases(rng, net, 1000, 14)
    error, of_full = compared(net, cases, bases, centred(net), oracle_of(net))
    assert error <= of_full
    assert paid == [True, True]


# Real sequence and real variants.


def real_cases(path: Path, begin: int, end: int) -> Iterator[Case]:
    """Yield the alleles of a VCF whose REF lies in [begin, end)."""
    with gzip.open(path, "rt") as lines:
        for line in lines:
            if line.startswith("#"):
                continue
            _, pos, _, ref, alts = line.split("\t")[:5]
            start = int(pos) - 1
            if start >= end:
                return
            if start >= begin:
                yield from (
                    (start, len(ref), a) for a in alts.split(",") if not set(a) - set(BASES)
                )


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "span"), [("deepsea", 1100), ("basset", 3000)])
def test_real_variants_on_real_sequence(real_data: Path, architecture: str, span: int) -> None:
    net = published(architecture)
    window_spec = centred(net)
    begin = 1_200_000
    origin, width = begin - 2 * window_spec.width, span + 4 * window_spec.width
    path = real_data / "hg19" / "vcf" / "1000g_chr20_1-2M.sites.vcf.gz"
    cases = list(real_cases(path, begin, begin + span))
    assert any(length > 1 or len(alt) > 1 for _, length, alt in cases), "there is no indel"
    with contextlib.closing(
        Reference.open(real_data / "hg19" / "genome" / "hg19_mini.fa.gz")
    ) as reference:
        contig = reference.contig("chr20")
        bases = decode(contig.fetch(origin, origin + width))
        moved = [(start - origin, length, alt) for start, length, alt in cases]
        expected = oracle_of(net).effects(moved, bases, window_spec)
        errors = []
        for name in ("incremental", "full"):
            engine = make(net, window_spec, name)
            found = joined(engine.effects(as_alleles(cases), contig))
            engine.close()
            errors.append(worst(found, expected))
            if name == "incremental":
                check(found, expected)
    print(
        len(cases),
        "alleles; largest errors of diff: incremental {:.2e}, full {:.2e}".format(*errors),
    )
    assert errors[0] <= errors[1]
