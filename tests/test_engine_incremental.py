"""The incremental engine against the whole net in float64 on windows written out as strings."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from builders import random_bases
from engine_oracle import (
    ACTIVATIONS,
    Case,
    Contig,
    Expected,
    Oracle,
    StageSpec,
    ToyNet,
    all_alts,
    as_alleles,
    beluga_stages,
    random_case,
    toy_net,
    with_n,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from raygenome.engines.choice import Engine, make_engine
from raygenome.engines.full import Effects
from raygenome.engines.incremental import head as head_module
from raygenome.genome.windows import Frame
from raygenome.models import LayeredNet, build
from raygenome.registry.weights import randomise

#: Largest error of a difference of probabilities, against float64.
TOLERANCE = 2e-6
INDEL_MODES = ["symmetric", "left-anchor"]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """What is not in the engine's threads, the float64 nets, runs on one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def paid(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Return the answers of `head_pays`, as they come: True is a dense head."""
    answers: list[bool] = []
    plain = head_module.head_pays

    def recorded(*args: object) -> bool:
        answers.append(plain(*args))  # type: ignore[arg-type]
        return answers[-1]

    monkeypatch.setattr(head_module, "head_pays", recorded)
    return answers


def centred(net: LayeredNet, indel_mode: str = "symmetric") -> Frame:
    width = net.config["window"]
    return Frame(width, width // 2 - 1, indel_mode)


def make(net: LayeredNet, frame: Frame, name: str = "incremental", **options: object) -> Engine:
    channels, n_value = net.DEFAULT_CHANNEL_ORDER, net.DEFAULT_N_VALUE
    return make_engine(name, net, channels=channels, n_value=n_value, frame=frame, **options)


def answers(engine: Engine, cases: list[Case], bases: str) -> Effects:
    """Return the effects of sorted cases, all in one."""
    blocks = list(engine.effects(as_alleles(cases), Contig(bases)))
    return Effects(*(np.concatenate(parts) for parts in zip(*blocks, strict=True)))


def scored(
    net: LayeredNet, frame: Frame, cases: list[Case], bases: str, **options: object
) -> Effects:
    engine = make(net, frame, **options)
    try:
        return answers(engine, cases, bases)
    finally:
        engine.close()


def oracle_of(net: LayeredNet) -> Oracle:
    return Oracle(net, net.DEFAULT_CHANNEL_ORDER, net.DEFAULT_N_VALUE)


def worst(found: Effects, expected: Expected) -> float:
    return float(np.abs(found.diff - expected.diff).max())


def check(found: Effects, expected: Expected) -> None:
    assert found.diff.dtype == found.log_odds.dtype == np.float32
    assert worst(found, expected) <= TOLERANCE
    np.testing.assert_allclose(found.log_odds, expected.log_odds, atol=3e-5, rtol=1e-5)
    assert not found.diff[~expected.changed].any(), "the window did not change"
    assert not found.log_odds[~expected.changed].any(), "the window did not change"


# Random small nets, random alleles.

MONOTONE = [name for name in ACTIVATIONS if name not in ("threshold", "gelu")]


@st.composite
def stage_specs(draw: Callable) -> StageSpec:
    pool_first = draw(st.booleans())
    return StageSpec(
        channels=draw(st.integers(1, 7)),
        kernel=draw(st.integers(1, 6)),
        pool=draw(st.integers(1, 4)),
        activation=draw(st.sampled_from(MONOTONE if pool_first else list(ACTIVATIONS))),
        norm=draw(st.booleans()),
        pool_first=pool_first,
    )


@st.composite
def toy_nets(draw: Callable) -> ToyNet:
    return toy_net(
        draw(st.lists(stage_specs(), min_size=1, max_size=3)),
        features=draw(st.integers(2, 9)),
        slack=draw(st.integers(0, 5)),
        hidden=draw(st.lists(st.integers(1, 9), max_size=2)),
        targets=draw(st.integers(1, 5)),
        activation=draw(st.sampled_from(list(ACTIVATIONS))),
        seed=draw(st.integers(0, 99)),
    )


@settings(max_examples=150, deadline=None)
@given(net=toy_nets(), data=st.data())
def test_any_net_any_allele(net: ToyNet, data: st.DataObject) -> None:
    width = net.config["window"]
    centre = data.draw(st.integers(0, width - 1), label="centre")
    frame = Frame(width, centre, data.draw(st.sampled_from(INDEL_MODES), label="indel mode"))
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
    found = scored(net, frame, cases, bases, both_strands=both_strands)
    check(found, oracle_of(net).effects(cases, bases, frame, both_strands=both_strands))


@pytest.mark.parametrize("indel_mode", INDEL_MODES)
def test_a_net_shaped_as_beluga(indel_mode: str) -> None:
    net = toy_net(beluga_stages(), features=106, slack=10, hidden=(12,), targets=9)
    assert net.config["window"] == 2000
    rng = np.random.default_rng(1)
    bases = random_bases(rng, 3000)
    frame = centred(net, indel_mode)
    cases = sorted(
        [random_case(rng, bases, 300) for _ in range(20)] + all_alts(range(1400, 1430, 3))
    )
    check(scored(net, frame, cases, bases), oracle_of(net).effects(cases, bases, frame))


# Full-size nets.


def published(architecture: str) -> LayeredNet:
    net = build(architecture)
    randomise(net, 3)
    return net.eval()


def awkward_cases(rng: np.random.Generator, bases: str, n: int) -> list[Case]:
    """Return alleles of all kinds, up to 300 bases long, at the ends and around a run of N too."""
    end, middle = len(bases), len(bases) // 2
    cases = [random_case(rng, bases, 300) for _ in range(n)]
    cases += all_alts(range(middle, middle + n // 8))  # dense, multi-allelic
    for length in (2, 15, 16, 17, 48, 300):
        cases += [(middle - 30 + length, 1, random_bases(rng, length))]
        cases += [(middle + 30 - length, length, "T")]
        cases += [(middle + 9, length, random_bases(rng, length))]
    cases += [(0, 1, "G"), (3, 1, "ACCA"), (1, 5, "T"), (end - 1, 1, "T"), (end - 9, 8, "C")]
    cases += [(bases.index("N") - 20, 1, "A"), (bases.rindex("N") + 8, 1, "CT")]
    return sorted(cases)


def compared(
    net: LayeredNet, cases: list[Case], bases: str, indel_mode: str, oracle: Oracle
) -> tuple[float, float]:
    """Check the engine; return its largest error of a difference and the full engine's."""
    frame = centred(net, indel_mode)
    expected = oracle.effects(cases, bases, frame)
    incremental = scored(net, frame, cases, bases)
    check(incremental, expected)
    full = scored(net, frame, cases, bases, name="full")
    assert np.abs(expected.diff).max() > 1e-3, "a net that answers nothing tests nothing"
    print(f"{indel_mode}: {worst(incremental, expected):.2e}, full {worst(full, expected):.2e}")
    return worst(incremental, expected), worst(full, expected)


def test_basset_on_a_few_alleles() -> None:
    net = published("basset")
    rng = np.random.default_rng(5)
    bases = random_bases(rng, 900)
    cases = sorted([random_case(rng, bases, 40) for _ in range(10)] + all_alts(range(400, 406)))
    errors = compared(net, cases, bases, "symmetric", oracle_of(net))
    assert errors[0] <= errors[1]


def test_deepsea_on_a_few_alleles() -> None:
    net = published("deepsea")
    rng = np.random.default_rng(6)
    bases = random_bases(rng, 1300)
    cases = sorted([(600, 1, "A"), (600, 1, "C"), (606, 4, "TA"), (640, 1, "GATTACA")])
    errors = compared(net, cases, bases, "symmetric", oracle_of(net))
    assert errors[0] <= errors[1]


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "n"), [("deepsea", 60), ("basset", 200)])
def test_published_nets_are_no_further_from_float64_than_the_full_engine(
    architecture: str, n: int
) -> None:
    net = published(architecture)
    rng = np.random.default_rng(11)
    bases = random_bases(rng, 1200) + "N" * 90 + random_bases(rng, 1500)
    cases = awkward_cases(rng, bases, n)
    oracle = oracle_of(net)
    for indel_mode in INDEL_MODES:
        error, of_full = compared(net, cases, bases, indel_mode, oracle)
        assert error <= of_full
