"""Runs of engines on made-up alleles, compared with the float64 oracle."""

from collections.abc import Iterable

import numpy as np
from support.builders import random_bases
from support.engine_oracle import (
    Case,
    Contig,
    Expected,
    Oracle,
    StageSpec,
    ToyNet,
    as_alleles,
    toy_net,
)

from raygenome.engines.choice import Engine, make_engine
from raygenome.engines.full import Effects
from raygenome.engines.incremental.planner import plan_chain
from raygenome.genome.windows import WindowSpec
from raygenome.models.net import Net

#: Largest error of a difference of probabilities, against float64.
TOLERANCE = 2e-6


def centred(net: Net, indel_mode: str = "symmetric") -> WindowSpec:
    width = net.config["window"]
    return WindowSpec(width, width // 2 - 1, indel_mode)


def make(net: Net, window_spec: WindowSpec, name: str = "incremental", **options: object) -> Engine:
    channels, n_value = net.ENCODING
    return make_engine(
        name, net, channels=channels, n_value=n_value, window_spec=window_spec, **options
    )


def joined(blocks: Iterable[Effects]) -> Effects:
    return Effects(*(np.concatenate(parts) for parts in zip(*blocks, strict=True)))


def answers(engine: Engine, cases: list[Case], bases: str) -> Effects:
    """Return the effects of sorted cases, concatenated."""
    return joined(engine.effects(as_alleles(cases), Contig(bases)))


def scored(
    net: Net, window_spec: WindowSpec, cases: list[Case], bases: str, **options: object
) -> Effects:
    engine = make(net, window_spec, **options)
    try:
        return answers(engine, cases, bases)
    finally:
        engine.close()


def oracle_of(net: Net) -> Oracle:
    return Oracle(net, *net.ENCODING)


def worst(found: Effects, expected: Expected) -> float:
    return float(np.abs(found.diff - expected.diff).max())


def check(found: Effects, expected: Expected) -> None:
    assert found.diff.dtype == found.log_odds.dtype == np.float32
    assert worst(found, expected) <= TOLERANCE
    np.testing.assert_allclose(found.log_odds, expected.log_odds, atol=3e-5, rtol=1e-5)
    assert not found.diff[~expected.changed].any(), "the window did not change"
    assert not found.log_odds[~expected.changed].any(), "the window did not change"


def lively_net(seed: int = 7) -> ToyNet:
    """Return a net small enough for hundreds of alleles, large enough for every routine."""
    stages = [
        StageSpec(24, 8, 4, "threshold"),
        StageSpec(32, 6, 2, "relu", norm=True),
        StageSpec(40, 5, 1, "gelu"),
    ]
    return toy_net(stages, features=24, slack=3, hidden=(48,), targets=37, seed=seed)


def dense_cases(rng: np.random.Generator, net: Net, begin: int, n: int) -> list[Case]:
    """Return alleles whose windows share all features except those at the ends."""
    step = plan_chain(net).feature_stride
    return [
        (begin + step * i, 2 if i % 5 == 0 else 1, random_bases(rng, 3 if i % 3 == 0 else 1))
        for i in range(n)
    ]
