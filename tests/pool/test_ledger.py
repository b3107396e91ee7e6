"""The books of the pool, in every order of events that hypothesis can think of."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raygenome.pool.ledger import LOSSES_PER_ATTEMPT, Ledger, Quarantine


def drain(ledger: Ledger, worker: object, depth: int = 2) -> list[int]:
    """Give `worker` all that it can take."""
    taken = []
    while (position := ledger.take(worker, depth=depth)) is not None:
        taken.append(position)
    return taken


def test_shards_are_given_in_order_and_to_the_depth() -> None:
    ledger = Ledger(5)
    assert drain(ledger, "a", depth=2) == [0, 1]
    assert drain(ledger, "b", depth=1) == [2]
    ledger.commit("a", 0)
    assert drain(ledger, "a") == [3]
    assert ledger.in_flight("a") == (1, 3)
    assert (ledger.waiting, ledger.running, ledger.finished) == (1, 3, False)


def test_no_shards_are_finished_at_once() -> None:
    assert Ledger(0).finished
    assert Ledger(0).take("a") is None


def test_a_shard_that_fails_is_tried_last_and_given_up_after_max_attempts() -> None:
    ledger = Ledger(3, max_attempts=2)
    assert ledger.take("a") == 0
    assert ledger.fail("a", 0, "ValueError: no") is None
    assert drain(ledger, "a", depth=3) == [1, 2, 0]
    assert ledger.fail("a", 0, "ValueError: again") == Quarantine(0, "ValueError: again", 2)
    ledger.commit("a", 1)
    ledger.commit("a", 2)
    assert ledger.finished
    assert ledger.committed == {1, 2}


def test_a_death_makes_suspects_that_run_alone_and_only_then_is_blame() -> None:
    ledger = Ledger(4, max_attempts=2)
    assert drain(ledger, "a") == [0, 1]
    assert ledger.lose("a", "killed") is None
    assert drain(ledger, "b") == [0], "a suspect runs alone, though work is waiting"
    ledger.commit("b", 0)
    assert drain(ledger, "b") == [1]
    assert ledger.lose("b", "killed once alone") is None
    assert drain(ledger, "c") == [1]
    assert ledger.lose("c", "killed twice alone") == Quarantine(1, "killed twice alone", 2)
    assert drain(ledger, "d") == [2, 3]


def test_a_worker_with_work_is_given_no_suspect() -> None:
    ledger = Ledger(4)
    drain(ledger, "a")
    drain(ledger, "b")
    ledger.lose("a", "killed")
    ledger.commit("b", 2)
    assert ledger.take("b") is None
    ledger.commit("b", 3)
    assert drain(ledger, "b") == [0]


def test_the_last_shard_of_a_worker_that_dies_is_alone() -> None:
    ledger = Ledger(2, max_attempts=1)
    drain(ledger, "a")
    ledger.commit("a", 0)
    assert ledger.lose("a", "killed") == Quarantine(1, "killed", 1)


def test_a_lost_node_is_no_blame_until_it_has_happened_too_often() -> None:
    ledger = Ledger(1, max_attempts=2)
    for turn in range(LOSSES_PER_ATTEMPT * 2 - 1):
        assert ledger.take(turn) == 0
        assert ledger.lose(turn, "node lost", blame=False) is None
    assert ledger.take("last") == 0
    assert ledger.lose("last", "node lost", blame=False) == Quarantine(0, "node lost", 2)


def test_a_worker_that_had_nothing_may_die() -> None:
    ledger = Ledger(1)
    assert ledger.lose("a", "killed") is None
    assert ledger.take("b") == 0


def test_a_receipt_of_a_shard_that_the_worker_does_not_have_is_a_bug() -> None:
    ledger = Ledger(2)
    ledger.take("a", depth=1)
    with pytest.raises(ValueError, match="not in list"):
        ledger.commit("a", 1)


def test_max_attempts_of_none_is_refused() -> None:
    with pytest.raises(ValueError, match="max_attempts is 0"):
        Ledger(1, max_attempts=0)


@settings(max_examples=300, deadline=None)
@given(
    shards=st.integers(0, 12),
    workers=st.integers(1, 4),
    depth=st.integers(1, 3),
    max_attempts=st.integers(1, 3),
    poison=st.sets(st.integers(0, 11)),
    broken=st.sets(st.integers(0, 11)),
    seed=st.integers(0, 2**32),
)
def test_every_shard_ends_committed_once_or_quarantined(
    shards: int,
    workers: int,
    depth: int,
    max_attempts: int,
    poison: set[int],
    broken: set[int],
    seed: int,
) -> None:
    """Poison kills its worker whenever it is the first in flight; innocents are never given up."""
    chance = random.Random(seed)
    ledger = Ledger(shards, max_attempts=max_attempts)
    alive, born, accidents = list(range(workers)), workers, 20
    receipts: list[int] = []
    while not ledger.finished:
        worker = chance.choice(alive)
        drain(ledger, worker, depth)
        flight = ledger.in_flight(worker)
        everywhere = sum(len(ledger.in_flight(name)) for name in alive) + ledger.waiting
        assert everywhere + len(receipts) + len(ledger.quarantined) == shards
        accident = accidents and chance.random() < 0.2
        if not flight and not accident:
            continue
        if accident or flight[0] in poison:
            accidents -= bool(accident)
            ledger.lose(worker, "death", blame=not accident)
            alive.remove(worker)
            alive.append(born)
            born += 1
        elif flight[0] in broken:
            ledger.fail(worker, flight[0], "error")
        else:
            ledger.commit(worker, flight[0])
            receipts.append(flight[0])
    bad = (poison | broken) & set(range(shards))
    assert sorted(receipts) == sorted(set(range(shards)) - bad)
    assert sorted(entry.position for entry in ledger.quarantined) == sorted(bad)
    assert all(entry.attempts == max_attempts for entry in ledger.quarantined)
