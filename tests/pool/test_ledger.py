"""The ledger of the pool, in every order of events that hypothesis can think of."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raygenome.pool.ledger import LOSSES_PER_ATTEMPT, Ledger, Quarantine


def test_shards_are_given_in_order_one_per_worker() -> None:
    ledger = Ledger(3)
    assert ledger.take("a") == 0
    assert ledger.take("a") is None
    assert ledger.take("b") == 1
    ledger.commit("a")
    assert ledger.take("a") == 2
    assert (ledger.shard_of("a"), ledger.shard_of("b"), ledger.shard_of("c")) == (2, 1, None)
    assert (ledger.waiting, ledger.finished) == (0, False)


def test_no_shards_are_finished_at_once() -> None:
    assert Ledger(0).finished
    assert Ledger(0).take("a") is None


def test_a_shard_that_fails_is_tried_last_and_given_up_after_max_attempts() -> None:
    ledger = Ledger(2, max_attempts=2)
    assert ledger.take("a") == 0
    assert ledger.fail("a", "ValueError: no") is None
    assert ledger.take("a") == 1
    ledger.commit("a")
    assert ledger.take("a") == 0
    assert ledger.fail("a", "ValueError: again") == Quarantine(0, "ValueError: again", 2)
    assert ledger.finished
    assert ledger.committed == {1}


def test_a_shard_that_lost_its_worker_is_tried_next() -> None:
    ledger = Ledger(3, max_attempts=2)
    assert ledger.take("a") == 0
    assert ledger.lose("a", "killed once") is None
    assert ledger.take("b") == 0
    assert ledger.lose("b", "killed twice") == Quarantine(0, "killed twice", 2)
    assert ledger.take("c") == 1


def test_a_lost_node_is_no_failure_until_it_has_happened_too_often() -> None:
    ledger = Ledger(1, max_attempts=2)
    for turn in range(LOSSES_PER_ATTEMPT * 2 - 1):
        assert ledger.take(turn) == 0
        assert ledger.lose(turn, "node lost", blame=False) is None
    assert ledger.take("last") == 0
    assert ledger.lose("last", "node lost", blame=False) == Quarantine(0, "node lost", 2)


def test_a_worker_without_a_shard_may_die() -> None:
    ledger = Ledger(1)
    assert ledger.lose("a", "killed") is None
    assert ledger.take("b") == 0


def test_a_receipt_from_a_worker_without_a_shard_is_a_bug() -> None:
    ledger = Ledger(2)
    ledger.take("a")
    with pytest.raises(KeyError):
        ledger.commit("b")


def test_max_attempts_of_none_is_refused() -> None:
    with pytest.raises(ValueError, match="max_attempts is 0"):
        Ledger(1, max_attempts=0)


@settings(max_examples=300, deadline=None)
@given(
    shards=st.integers(0, 12),
    workers=st.integers(1, 4),
    max_attempts=st.integers(1, 3),
    poison=st.sets(st.integers(0, 11)),
    broken=st.sets(st.integers(0, 11)),
    seed=st.integers(0, 2**32),
)
def test_every_shard_ends_committed_once_or_quarantined(
    shards: int,
    workers: int,
    max_attempts: int,
    poison: set[int],
    broken: set[int],
    seed: int,
) -> None:
    """Poison kills its worker; shards without fault are never given up."""
    chance = random.Random(seed)
    ledger = Ledger(shards, max_attempts=max_attempts)
    alive, started, accidents = list(range(workers)), workers, 20
    receipts: list[int] = []
    while not ledger.finished:
        worker = chance.choice(alive)
        ledger.take(worker)
        position = ledger.shard_of(worker)
        running = sum(ledger.shard_of(name) is not None for name in alive)
        assert running + ledger.waiting + len(receipts) + len(ledger.quarantined) == shards
        accident = accidents and chance.random() < 0.2
        if position is None and not accident:
            continue
        if accident or position in poison:
            accidents -= bool(accident)
            ledger.lose(worker, "death", blame=not accident)
            alive.remove(worker)
            alive.append(started)
            started += 1
        elif position in broken:
            ledger.fail(worker, "error")
        else:
            ledger.commit(worker)
            receipts.append(position)
    bad = (poison | broken) & set(range(shards))
    assert sorted(receipts) == sorted(set(range(shards)) - bad)
    assert sorted(entry.position for entry in ledger.quarantined) == sorted(bad)
    assert all(entry.attempts == max_attempts for entry in ledger.quarantined)
