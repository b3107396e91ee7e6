"""Events in the life of a pool, with a real Ray and scorers that write tiny files."""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray
from support.pool_runs import Run, tasks
from support.pool_scorers import (
    FileScorer,
    StubScorer,
    Task,
    broken_scorer,
    dying_scorer,
    flaky_scorer,
    hanging_scorer,
    refused_scorer,
)

from raygenome.cluster.connect import connected
from raygenome.errors import DataError, RaygenomeError, StorageError
from raygenome.pool import PoolOptions, run_shards
from raygenome.pool.workers import WorkerPool

pytestmark = [pytest.mark.ray, pytest.mark.timeout(60)]


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    """Start one Ray for the tests of this file."""
    with connected(workers=2, device="cpu"):
        yield


@pytest.fixture
def run(ray_here: None, tmp_path: Path) -> Run:
    return Run(tmp_path)


def test_every_shard_is_committed_and_its_receipt_comes_once(run: Run) -> None:
    run([Task(index, "slow") for index in range(20)])
    assert run.failures == []
    assert run.done == run.parts() == list(range(20))
    assert all(run.attempts(index) == 1 for index in range(20))
    assert len({receipt["pid"] for receipt in run.receipts}) == 2
    assert {receipt["threads"] for receipt in run.receipts} == {"1"}


def test_one_worker_is_one_process(run: Run) -> None:
    run(tasks(5), workers=1)
    assert run.done == list(range(5))
    assert len({receipt["pid"] for receipt in run.receipts}) == 1


def test_no_shards_need_no_ray(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run([])
    assert run.failures == []


def test_no_workers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="workers is 0; a pool has at least 1"):
        Run(tmp_path)(tasks(1), workers=0)


def test_a_worker_killed_once_costs_no_shard(run: Run) -> None:
    run(tasks(12, s3="kill-once"))
    assert run.failures == []
    assert run.done == run.parts() == list(range(12))


def test_a_worker_killed_from_outside_costs_no_shard(run: Run) -> None:
    """The worker of a first receipt is killed while it scores its next shard."""
    killed: list[int] = []
    keep = run.receipts.append

    def kill_one(receipt: dict[str, Any]) -> None:
        keep(receipt)
        if not killed:
            killed.append(receipt["pid"])
            threading.Timer(0.05, os.kill, (receipt["pid"], signal.SIGKILL)).start()

    failures = run_shards(
        [Task(index, "slow", rows=2) for index in range(8)],
        partial(FileScorer, run.folder),
        PoolOptions(workers=2, poll_s=0.1),
        on_receipt=kill_one,
    )
    assert failures == []
    assert run.done == run.parts() == list(range(8))
    assert sum(run.attempts(index) for index in range(8)) <= 8 + 2


def test_a_poisonous_shard_is_given_up_and_all_others_are_committed(run: Run) -> None:
    run(tasks(12, s4="kill"))
    (failure,) = run.failures
    assert failure.shard == Task(4, "kill")
    assert failure.attempts == 3
    assert failure.cause.startswith("its worker process died")
    assert run.done == run.parts() == [index for index in range(12) if index != 4]
    assert run.attempts(4) == 3


def test_a_shard_that_ends_its_process_is_named_with_the_exit_code(run: Run) -> None:
    run(tasks(3, s1="exit"), max_attempts=1)
    assert [(each.shard.index, each.cause) for each in run.failures] == [
        (1, "its worker process ended with exit code 3")
    ]
    assert run.done == [0, 2]


def test_an_error_is_tried_again_and_then_given_up(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    run(tasks(8, s2="error", s5="error-once", s6="unpicklable"))
    causes = {failure.shard.index: failure.cause for failure in run.failures}
    assert set(causes) == {2, 6}
    assert causes[2].startswith("ValueError: no good in shard 2 (")
    assert "pool_scorers.py:" in causes[2]
    assert causes[6].startswith("LocalError: cannot travel")
    assert [run.attempts(index) for index in (2, 5, 6)] == [3, 2, 3]
    assert run.done == [0, 1, 3, 4, 5, 7]
    assert "gave up on shard 2 of the tests after 3 attempts: ValueError: no good" in caplog.text


def test_a_shard_that_hangs_is_killed_and_given_up(run: Run) -> None:
    run(tasks(6, s1="hang"), stall_s=1.0, max_attempts=1)
    assert [(each.shard.index, each.cause) for each in run.failures] == [(1, "no progress for 1 s")]
    assert run.done == [0, 2, 3, 4, 5]


def test_a_process_that_is_stopped_is_killed_too(run: Run) -> None:
    run(tasks(4, s1="freeze-once"), stall_s=1.0)
    assert run.failures == []
    assert run.done == [0, 1, 2, 3]


def test_a_slow_shard_that_makes_progress_is_left_alone(run: Run) -> None:
    run([Task(0, "slow", rows=20)], stall_s=1.0, workers=1)
    assert run.failures == []
    assert run.attempts(0) == 1


def test_progress_moves_inside_a_shard_and_ends_at_nothing_under_way(run: Run) -> None:
    run([Task(0, "write", rows=7), Task(1, "slow", rows=12), Task(2, "slow", rows=12)])
    assert run.done == [0, 1, 2]
    assert run.progress[-1] == 0
    assert max(run.progress) <= 24 + 7
    assert len(set(run.progress)) >= 5


def test_a_raygenome_error_ends_the_run_unchanged(run: Run) -> None:
    with pytest.raises(StorageError, match=r"^the disk is full$"):
        run(tasks(40, s3="full"))
    assert run.attempts(3) == 1
    assert Counter(run.done).most_common(1)[0][1] == 1
    assert set(run.done) <= set(run.parts())
    assert len(run.parts()) < 39


def test_a_raygenome_error_at_the_start_ends_the_run_unchanged(run: Run) -> None:
    with pytest.raises(DataError, match=r"^the weights are damaged; import the model again$"):
        run(tasks(4), make=refused_scorer)


def test_a_receipt_that_cannot_be_kept_ends_the_run(run: Run) -> None:
    def refuse(receipt: dict[str, Any]) -> None:
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        run_shards(
            tasks(4),
            partial(FileScorer, run.folder),
            PoolOptions(workers=2),
            on_receipt=refuse,
        )


@pytest.mark.parametrize(
    ("make", "cause"),
    [(broken_scorer, "OSError: weights are not there"), (dying_scorer, "its worker process died")],
)
def test_failed_starts_end_the_run_with_their_cause(run: Run, make: Any, cause: str) -> None:
    with pytest.raises(
        RaygenomeError, match=f"3 failed in a row; the last cause: {cause}"
    ) as caught:
        run(tasks(4), make=make)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("turned", [1, -1])
def test_answers_of_a_failed_start_may_come_in_any_order(
    run: Run, monkeypatch: pytest.MonkeyPatch, turned: int
) -> None:
    """The answer to the heartbeat arrives together with the failure that ends the actor."""

    def all_at_once(pool: WorkerPool, timeout_s: float) -> list[Any]:
        refs = list(pool.calls)
        if not refs:
            time.sleep(timeout_s)
        return ray.wait(refs, num_returns=len(refs), timeout=30)[0][::turned] if refs else []

    monkeypatch.setattr(WorkerPool, "wait", all_at_once)
    with pytest.raises(
        RaygenomeError, match="failed in a row; the last cause: OSError: weights are"
    ):
        run(tasks(4), make=broken_scorer)


def test_starts_that_hang_end_the_run_with_their_cause(run: Run) -> None:
    """The processes live and answer, but making the scorer does not end."""
    with pytest.raises(
        RaygenomeError, match=r"the last cause: the scorer was not made within 0\.5 s"
    ) as caught:
        run(tasks(4), make=hanging_scorer, start_timeout_s=0.5)
    assert "3 failed in a row" in str(caught.value)


def test_a_worker_without_a_place_may_wait_without_limit(run: Run) -> None:
    """Four are requested and there is room for two."""
    run([Task(index, "slow", rows=4) for index in range(8)], workers=4, start_timeout_s=0.5)
    assert run.failures == []
    assert run.done == list(range(8))
    assert len({receipt["pid"] for receipt in run.receipts}) == 2


def test_a_long_shard_holds_no_other_back(run: Run) -> None:
    """While one worker has the long shard, the other one does all the rest."""
    run([Task(0, "slow", rows=30), *[Task(index, "slow") for index in range(1, 12)]])
    assert run.receipts[-1]["shard"] == 0
    pids = Counter(receipt["pid"] for receipt in run.receipts)
    assert pids[run.receipts[-1]["pid"]] == 1


def test_one_failed_start_is_tried_again(run: Run) -> None:
    run(tasks(4), make=partial(flaky_scorer, run.folder), workers=1)
    assert run.done == [0, 1, 2, 3]


def test_many_small_shards_cost_the_driver_little(run: Run) -> None:
    began = time.perf_counter()
    run([Task(index) for index in range(300)], make=StubScorer)
    assert run.done == list(range(300))
    assert time.perf_counter() - began < 30
