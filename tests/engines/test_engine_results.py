"""Results of the incremental engine: what they depend on, algorithms, chunks and bfloat16."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.builders import random_bases
from support.engine_oracle import (
    Case,
    Contig,
    StageSpec,
    all_alts,
    as_alleles,
    random_case,
    toy_net,
)
from support.engine_runs import (
    answers,
    centred,
    check,
    dense_cases,
    lively_net,
    make,
    oracle_of,
    scored,
)

from raygenome.engines.incremental import engine as engine_module
from raygenome.engines.incremental.engine import cut
from raygenome.engines.incremental.planner import plan_chain

pytestmark = pytest.mark.usefixtures("one_thread")

INDEL_MODES = ["symmetric", "left-anchor"]


# What a result may depend on.


def busy_shard(seed: int, n: int = 150) -> tuple[list[Case], str]:
    """Return alleles, half of them dense, and their contig."""
    rng = np.random.default_rng(seed)
    bases = random_bases(rng, 2600)
    cases = [random_case(rng, bases, 30) for _ in range(n // 2)] + all_alts(
        range(700, 700 + n // 8)
    )
    return sorted(cases), bases


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every shard many chunks."""
    monkeypatch.setitem(engine_module.CHUNK, "cpu", (40, 1 << 20))


@pytest.mark.slow
@pytest.mark.usefixtures("small_chunks")
def test_bytes_depend_on_neither_threads_nor_other_shards() -> None:
    net = lively_net()
    shards = [busy_shard(seed) for seed in range(4)]
    assert (
        len(list(cut(as_alleles(shards[0][0]), plan_chain(net), *engine_module.CHUNK["cpu"]))) > 2
    )
    found = set()
    for threads, order in [(1, [0, 1, 2, 3]), (2, [3, 2, 1, 0]), (3, [1, 1, 3, 0, 2])]:
        engine = make(net, centred(net), threads=threads)
        of_shard = {i: answers(engine, *shards[i]) for i in order}
        engine.close()
        found.add(b"".join(array.tobytes() for i in range(4) for array in of_shard[i]))
    assert len(found) == 1
    check(of_shard[0], oracle_of(net).effects(*shards[0], centred(net)))


@pytest.mark.parametrize("callers", [2, 5])
def test_bytes_do_not_depend_on_the_callers_threads(callers: int) -> None:
    net, (cases, bases) = lively_net(), busy_shard(1)
    one = scored(net, centred(net), cases, bases)
    torch.set_num_threads(callers)
    many = scored(net, centred(net), cases, bases)
    assert torch.get_num_threads() == callers
    assert one.diff.tobytes() == many.diff.tobytes()
    assert one.log_odds.tobytes() == many.log_odds.tobytes()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_bytes_do_not_depend_on_sharing(
    precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    net = toy_net([StageSpec(64, 5, 4)], features=90, hidden=(500,), targets=9)
    rng = np.random.default_rng(3)
    bases = random_bases(rng, 1500)
    window_spec = centred(net)
    cases = sorted(dense_cases(rng, net, 500, 30) + [random_case(rng, bases, 30) for _ in range(9)])
    alone = scored(net, window_spec, cases, bases, precision=precision)
    engines = [make(net, window_spec, precision=precision, share_as="a net") for _ in range(2)]
    together = [answers(engine, cases, bases) for engine in engines]
    assert list(tmp_path.glob("*/*.weights")), "nothing was shared"
    for engine in engines:
        engine.close()
    assert not list(tmp_path.glob("*/*.weights"))
    for found in together:
        assert found.diff.tobytes() == alone.diff.tobytes()
        assert found.log_odds.tobytes() == alone.log_odds.tobytes()


@pytest.mark.usefixtures("small_chunks")
def test_chunks_that_are_given_up_leave_no_trace() -> None:
    net, (cases, bases) = lively_net(), busy_shard(2)
    window_spec = centred(net)
    fresh = scored(net, window_spec, cases, bases, threads=2)
    engine = make(net, window_spec, threads=2)
    started = engine.effects(as_alleles(cases), Contig(bases))
    next(started)
    started.close()  # type: ignore[attr-defined]
    with pytest.raises(ZeroDivisionError):
        list(engine.effects(as_alleles(cases), BrokenContig(bases)))
    again = answers(engine, cases, bases)
    engine.close()
    assert again.diff.tobytes() == fresh.diff.tobytes()


class BrokenContig(Contig):
    """Fails at its end."""

    def fetch(self, start: int, end: int) -> np.ndarray:
        if end > len(self.bases) - 500:
            raise ZeroDivisionError
        return super().fetch(start, end)


def test_substitutions_that_reach_nothing_are_exactly_zero() -> None:
    """Reference and alternate logits are then equal to the bit, for any number of rows."""
    net = lively_net()
    net.layers[0].bias.data.fill_(-100.0)  # the first layer is dead
    window_spec = centred(net)
    bases = random_bases(np.random.default_rng(0), 3000)
    for starts in ([1500], range(1500, 1530)):
        found = scored(net, window_spec, all_alts(starts), bases)
        assert not found.diff.any()
        assert not found.log_odds.any()


def test_a_window_of_another_width_is_refused() -> None:
    net = lively_net()
    window_spec = centred(net)
    with pytest.raises(ValueError, match=r"the window has \d+ bases, the net needs \d+"):
        make(net, window_spec._replace(width=window_spec.width + 5))


def test_no_alleles_no_effects() -> None:
    net = lively_net()
    engine = make(net, centred(net))
    assert list(engine.effects(as_alleles([]), Contig("ACGT"))) == []
    engine.close()


@pytest.mark.parametrize("indel_mode", INDEL_MODES)
def test_dense_and_sparse_heads(indel_mode: str, paid: list[bool]) -> None:
    net = lively_net()
    window_spec, oracle = centred(net, indel_mode), oracle_of(net)
    rng = np.random.default_rng(4)
    bases = random_bases(rng, 6000)
    dense = sorted(all_alts(range(2000, 2100)) + dense_cases(rng, net, 2003, 20))
    check(scored(net, window_spec, dense, bases), oracle.effects(dense, bases, window_spec))
    assert paid == [True, True]
    sparse = [(start, *case[1:]) for start in range(0, 6000, 450) for case in dense[:3]]
    check(scored(net, window_spec, sparse, bases), oracle.effects(sparse, bases, window_spec))
    assert paid == [True, True, False, False]


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(
    starts=st.lists(st.integers(0, 3000), max_size=60),
    most=st.integers(1, 50),
    most_bytes=st.integers(1, 1 << 20),
)
def test_chunks_are_all_the_rows_in_order(starts: list[int], most: int, most_bytes: int) -> None:
    chain = plan_chain(TOY)
    cases = [(start, 1, "A" * (1 + start % 3)) for start in sorted(starts)]
    chunks = list(cut(as_alleles(cases), chain, most, most_bytes))
    assert [row for begin, end in chunks for row in range(begin, end)] == list(range(len(cases)))
    assert all(begin < end for begin, end in chunks)


TOY = lively_net()


# bfloat16.


@pytest.mark.parametrize("density", ["dense", "sparse"])
def test_bf16_substitutions_are_closer_than_the_full_engines(
    density: str, paid: list[bool]
) -> None:
    """The engine propagates the difference of a substitution, so the error is relative to it."""
    net = lively_net()
    window_spec = centred(net)
    rng = np.random.default_rng(5)
    bases = random_bases(rng, 20_000)
    starts = range(900, 1000) if density == "dense" else range(0, 20_000, 450)
    cases = all_alts(starts)
    expected = oracle_of(net).effects(cases, bases, window_spec).diff
    errors = [
        scored(net, window_spec, cases, bases, name=name, precision="bf16").diff - expected
        for name in ("incremental", "full")
    ]
    assert paid == [density == "dense"] * 2
    ours, full = (np.linalg.norm(error) / np.linalg.norm(expected) for error in errors)
    assert ours < 0.05, "relative to the differences themselves"
    assert ours < full / 2
    assert 1e-6 < np.abs(errors[0]).max() < 0.005


def test_bf16_spliced_windows_are_as_close_as_the_full_engines() -> None:
    net = lively_net()
    window_spec = centred(net)
    rng = np.random.default_rng(6)
    bases = random_bases(rng, 5000)
    cases = dense_cases(rng, net, 1000, 150)
    cases = [case for case in cases if case[1] > 1 or len(case[2]) > 1]
    expected = oracle_of(net).effects(cases, bases, window_spec).diff
    errors = [
        scored(net, window_spec, cases, bases, name=name, precision="bf16").diff - expected
        for name in ("incremental", "full")
    ]
    ours, full = (np.linalg.norm(error) / np.linalg.norm(expected) for error in errors)
    assert ours < 0.05
    assert ours < 1.5 * full
    assert np.abs(errors[0]).max() < 0.02
