"""The order of samples depends on seed and epoch only; batches are cut into micro-batches."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raygenome.datasets.batches import Samples
from raygenome.training.order import (
    MAX_MICROBATCHES,
    dropout_seeds,
    epoch_samples,
    microbatches_of,
    steps_in_epoch,
)

rows = st.integers(1, 200)
seeds = st.integers(0, 2**40)
epochs = st.integers(0, 2000)


def same(one: Samples, other: Samples) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.slow
@given(seed=seeds, epoch=epochs, rows=rows)
def test_each_window_comes_once(seed: int, epoch: int, rows: int) -> None:
    found = epoch_samples(seed, epoch, rows)
    assert sorted(found.row.tolist()) == list(range(rows))
    assert not found.reverse.any()
    assert not found.shift.any()


@given(seed=seeds, epoch=epochs, rows=rows)
def test_with_both_strands_each_window_comes_once_on_each(seed: int, epoch: int, rows: int) -> None:
    found = epoch_samples(seed, epoch, rows, strands="both")
    pairs = sorted(zip(found.row.tolist(), found.reverse.tolist(), strict=True))
    assert pairs == [(row, strand) for row in range(rows) for strand in (False, True)]


def test_random_strands_are_about_half_and_half() -> None:
    found = epoch_samples(3, 0, 10_000, strands="random")
    assert sorted(found.row.tolist()) == list(range(10_000))
    assert 4_800 < found.reverse.sum() < 5_200
    again = epoch_samples(3, 1, 10_000, strands="random")
    strand = np.empty((2, 10_000), dtype=bool)
    strand[0][found.row], strand[1][again.row] = found.reverse, again.reverse
    assert 4_500 < (strand[0] != strand[1]).sum() < 5_500, "a coin for each epoch"


def test_alternating_strands_are_whole_epochs_forward_first() -> None:
    for epoch in range(4):
        found = epoch_samples(3, epoch, 50, strands="alternate")
        assert set(found.reverse.tolist()) == {epoch % 2 == 1}
        assert sorted(found.row.tolist()) == list(range(50))


@given(seed=seeds, shift=st.integers(0, 5))
def test_shifts_stay_in_bounds(seed: int, shift: int) -> None:
    found = epoch_samples(seed, 0, 300, shift=shift).shift
    assert set(found.tolist()) <= set(range(-shift, shift + 1))
    assert len(found) == 300


def test_every_shift_occurs_about_as_often() -> None:
    found = epoch_samples(1, 0, 7_000, shift=3).shift
    counts = np.bincount(found + 3)
    assert len(counts) == 7
    assert counts.min() > 850
    assert counts.max() < 1_150


@given(
    seed=seeds,
    epoch=epochs,
    rows=rows,
    strands=st.sampled_from(["forward", "both", "random", "alternate"]),
    limit=st.none() | st.integers(1, 500),
)
def test_the_order_is_a_function_of_seed_and_epoch(
    seed: int, epoch: int, rows: int, strands: str, limit: int | None
) -> None:
    options = {"strands": strands, "shift": 2, "limit": limit}
    first = epoch_samples(seed, epoch, rows, **options)
    epoch_samples(seed + 1, epoch, 5)  # other random draws change nothing
    assert same(first, epoch_samples(seed, epoch, rows, **options))
    total = rows * (2 if strands == "both" else 1)
    assert len(first.row) == min(total, limit or total)
    assert len({len(column) for column in first}) == 1


def test_other_seeds_and_epochs_have_other_orders() -> None:
    orders = [
        epoch_samples(seed, epoch, 100).row.tolist() for seed in range(4) for epoch in range(4)
    ]
    assert len({tuple(order) for order in orders}) == 16


def test_a_limit_draws_others_each_epoch() -> None:
    drawn = [set(epoch_samples(0, epoch, 1_000, limit=100).row.tolist()) for epoch in range(50)]
    assert all(len(rows) == 100 for rows in drawn)
    assert len(set.union(*drawn)) > 980


@given(
    rows=rows,
    batch=st.integers(1, 90),
    strands=st.sampled_from(["forward", "both", "random", "alternate"]),
    limit=st.none() | st.integers(1, 500),
)
def test_an_epoch_is_its_whole_batches(
    rows: int, batch: int, strands: str, limit: int | None
) -> None:
    samples = len(epoch_samples(0, 0, rows, strands=strands, limit=limit).row)
    assert steps_in_epoch(rows, batch, strands=strands, limit=limit) == samples // batch


@given(batch=st.integers(1, 3_000), data=st.data())
def test_workers_share_a_batch_exactly(batch: int, data: st.DataObject) -> None:
    world = data.draw(st.integers(1, min(batch, MAX_MICROBATCHES)))
    alone = microbatches_of(batch, 0, 1)
    parts = [microbatches_of(batch, rank, world) for rank in range(world)]
    assert alone.samples == slice(0, batch)
    assert len(alone.edges) - 1 == min(batch, MAX_MICROBATCHES)
    assert parts[0].edges[0] == 0
    assert parts[-1].edges[-1] == batch
    for one, other in pairwise(parts):
        assert one.edges[-1] == other.edges[0]
        assert one.first + len(one.edges) - 1 == other.first
    for part in parts:
        count = len(part.edges) - 1
        assert count >= 1
        assert part.edges == alone.edges[part.first : part.first + count + 1]
        assert all(begin < end for begin, end in pairwise(part.edges))
        assert part.samples == slice(part.edges[0], part.edges[-1])
    sizes = [part.samples.stop - part.samples.start for part in parts]
    if world == 2:
        assert abs(sizes[0] - sizes[1]) <= -(-batch // min(batch, MAX_MICROBATCHES))


def test_a_hundred_and_twenty_eight_are_halved() -> None:
    assert microbatches_of(128, 0, 2).samples == slice(0, 64)
    assert microbatches_of(128, 1, 2).samples == slice(64, 128)
    assert microbatches_of(128, 1, 2).first == 32


def test_lots_have_seeds_of_their_own() -> None:
    seen = [
        seed
        for run in range(3)
        for step in range(5)
        for layer in range(3)
        for seed in dropout_seeds(run, step, layer)
    ]
    assert len(seen) == len(set(seen)) == 3 * 5 * 3 * MAX_MICROBATCHES
    assert all(0 <= seed < 2**63 for seed in seen)
    assert dropout_seeds(1, 2, 0) == dropout_seeds(1, 2, 0)


@pytest.mark.parametrize("batch", [1, 2, 63, 64, 65, 100, 128, 1000])
def test_lots_differ_by_one_sample_at_most(batch: int) -> None:
    sizes = {end - begin for begin, end in pairwise(microbatches_of(batch, 0, 1).edges)}
    assert max(sizes) - min(sizes) <= 1
