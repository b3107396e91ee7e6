"""The trunk's rows, compared with every stage computed at every position in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.engine_oracle import ToyNet, beluga_stages, toy_net, toy_nets
from torch.nn import functional

from raygenome.engines.incremental.bilinear import direct, valid
from raygenome.engines.incremental.buffers import BufferPool
from raygenome.engines.incremental.chain import Chain
from raygenome.engines.incremental.convolution import FastConv
from raygenome.engines.incremental.gemm import Gemm
from raygenome.engines.incremental.planner import plan_chain
from raygenome.engines.incremental.trunk import Rows, Trunk, cover
from raygenome.engines.incremental.weights import WeightStore
from raygenome.genome.sequence import one_hot_table

pytestmark = pytest.mark.usefixtures("one_thread")


# Blocks.


def slow_cover(positions: list[int], stride: int, outputs: int) -> list[int]:
    """From left to right, begin a block at each position that no block covers yet."""
    covered: set[int] = set()
    starts = []
    for position in positions:
        if position not in covered:
            starts.append(position)
            covered |= {position + stride * i for i in range(outputs)}
    return starts


@settings(max_examples=300, deadline=None)
@given(
    positions=st.sets(st.integers(0, 300), min_size=1),
    stride=st.integers(1, 20),
    outputs=st.integers(1, 30),
)
def test_cover(positions: set[int], stride: int, outputs: int) -> None:
    starts = cover(np.array(sorted(positions)), stride, outputs).tolist()
    assert sorted(starts) == slow_cover(sorted(positions), stride, outputs)
    made = [start + stride * i for start in starts for i in range(outputs)]
    assert positions <= set(made)
    assert len(made) == len(set(made)), "a row would be computed twice"


def test_cover_of_dense_positions_is_full_blocks() -> None:
    starts = cover(np.arange(1600), 16, 25)
    assert len(starts) == 1600 // 25


def test_cover_of_a_lone_window_is_its_lattice() -> None:
    starts = cover(1000 + 4 * np.arange(240), 4, 24)
    assert starts.tolist() == [1000 + 4 * 24 * i for i in range(10)]


# Rows.


def make_trunk(chain: Chain, n_value: float, more_points: int) -> Trunk:
    """Return a trunk whose algorithms have `more_points` points than taps; 0 is as written."""
    gemm = Gemm(torch.device("cpu"), "fp32")
    weights = WeightStore(gemm)
    convs = []
    for i, stage in enumerate(chain.stages[1:], 1):
        taps = stage.kernel
        algorithm = valid(taps + more_points, taps) if more_points else direct(taps)
        weight = weights.spectral(f"stage{i}", algorithm, stage.weight.transpose(1, 2))
        convs.append(FastConv(algorithm, weight, stage.bias, gemm))
    return Trunk(chain, convs, torch.from_numpy(one_hot_table("AGCT", n_value)), gemm)


def everywhere(
    chain: Chain, codes: np.ndarray, n_value: float
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return by stage the convolution and the pooled rows of all positions, (positions, C)."""
    x = torch.from_numpy(one_hot_table("AGCT", n_value)[codes].T[None]).double()
    found = []
    for stage in chain.stages:
        a = functional.conv1d(x, stage.weight.double(), stage.bias.double(), dilation=stage.stride)
        t = stage.activation.apply_(a.clone())
        reach = stage.stride * (stage.pool - 1)
        moved = [
            t[:, :, stage.stride * i : t.shape[2] - reach + stage.stride * i]
            for i in range(stage.pool)
        ]
        x = torch.stack(moved).amax(0)
        found.append((a[0].T.numpy(), x[0].T.numpy()))
    return found


def needed_by(chain: Chain, features: set[int]) -> list[tuple[set[int], set[int]]]:
    """Return by stage the convolution and the pooled positions that `features` are made of."""
    found = []
    pooled = features
    for stage in reversed(chain.stages):
        outputs = {p + stage.stride * i for p in pooled for i in range(stage.pool)}
        found.insert(0, (outputs, pooled))
        pooled = {p + stage.stride * k for p in outputs for k in range(stage.kernel)}
    return found


def check_rows(rows: Rows, positions: set[int], expected: np.ndarray) -> None:
    at = np.array(sorted(positions))
    assert (rows.of[at] > 0).all(), "a row that is needed is not held"
    assert not rows.values[0].any()
    found = rows.values[torch.from_numpy(rows.of[at].astype(np.int64))].numpy()
    scale = 1 + np.abs(expected).max()
    np.testing.assert_allclose(found, expected[at], atol=3e-6 * scale, rtol=0)


def check_trunk(
    trunk: Trunk,
    chain: Chain,
    codes: np.ndarray,
    features: set[int],
    n_value: float,
    buffers: BufferPool,
) -> None:
    mask = np.zeros(len(codes), dtype=bool)
    mask[list(features)] = True
    with torch.inference_mode():
        rows = trunk.run(codes, mask, buffers)
    assert rows[0].convolved is None
    twins = everywhere(chain, codes, n_value)
    for held, twin, needed in zip(rows, twins, needed_by(chain, features), strict=True):
        if held.convolved is not None:
            check_rows(held.convolved, needed[0], twin[0])
        check_rows(held.pooled, needed[1], twin[1])


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(net=toy_nets(), more_points=st.integers(0, 20), data=st.data())
def test_rows_of_any_net_anywhere(net: ToyNet, more_points: int, data: st.DataObject) -> None:
    chain = plan_chain(net)
    trunk = make_trunk(chain, 0.25, more_points)
    under = chain.feature_receptive
    length = data.draw(st.integers(under, under + 300), label="length")
    anywhere = st.integers(0, length - under)
    buffers = BufferPool(torch.device("cpu"))
    rng = np.random.default_rng(data.draw(st.integers(0, 99), label="seed"))
    for _ in range(2):  # the second time, in buffers that the first has filled
        features = data.draw(st.sets(anywhere, min_size=1, max_size=30), label="features")
        codes = rng.integers(0, 5, length).astype(np.uint8)
        check_trunk(trunk, chain, codes, features, 0.25, buffers)


@pytest.mark.parametrize("every", [1, 16, 333])
def test_rows_of_many_blocks(every: int) -> None:
    """More rows than are computed at once."""
    chain = plan_chain(toy_net(beluga_stages(), features=20))
    codes = np.random.default_rng(1).integers(0, 5, 4000).astype(np.uint8)
    features = set(range(0, len(codes) - chain.feature_receptive + 1, every))
    buffers = BufferPool(torch.device("cpu"))
    check_trunk(make_trunk(chain, 0.0, 12), chain, codes, features, 0.0, buffers)
