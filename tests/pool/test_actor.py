"""The actor of the pool, run in this process, and the causes of deaths that Ray reports."""

from pathlib import Path

import pytest
from ray import cloudpickle, exceptions
from ray.core.generated.common_pb2 import ActorDiedErrorContext, NodeDeathInfo
from support.pool_scorers import FileScorer, Task

from raygenome.errors import StorageError
from raygenome.pool.actor import Answer, ScorerActor, death_cause, is_blameless


class CountingScorer:
    """Counts rows over all shards, as scorers do, and records a heartbeat after each."""

    def __init__(self) -> None:
        self.rows_done = 0
        self.seen: list[Answer] = []
        self.actor: ScorerActor | None = None

    def score_shard(self, rows: int) -> dict[str, int]:
        assert self.actor is not None
        for _ in range(rows):
            self.rows_done += 1
            self.seen.append(self.actor.heartbeat())
        return {"rows": rows}


def ready(scorer: object) -> ScorerActor:
    """Return an actor in the state after `ready`, which itself needs Ray."""
    actor = ScorerActor(b"", {})
    actor._scorer = scorer  # type: ignore[assignment]
    return actor


def test_heartbeats_count_the_rows_of_the_shard_under_way() -> None:
    scorer = CountingScorer()
    scorer.actor = actor = ready(scorer)
    assert actor.heartbeat().under_way == (-1, 0)
    assert actor.score(4, 2) == Answer({"rows": 2})
    assert actor.score(9, 1) == Answer({"rows": 1})
    assert [answer.under_way for answer in scorer.seen] == [(4, 1), (4, 2), (9, 1)]


def test_an_actor_that_is_not_ready_scores_nothing() -> None:
    actor = ScorerActor(cloudpickle.dumps(CountingScorer), {})
    assert "before it was ready" in actor.score(0, 1).cause
    assert actor.heartbeat().under_way == (-1, 0)


def test_errors_are_answers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    actor = ready(FileScorer(tmp_path))
    answer = actor.score(0, Task(0, "error"))
    assert answer.cause.startswith("ValueError: no good in shard 0 (")
    assert answer.receipt is None
    fatal = actor.score(1, Task(1, "full")).fatal
    assert isinstance(fatal, StorageError)
    assert "Traceback" in caplog.text, "the whole story is in the worker's log"


def test_a_failed_start_is_an_answer() -> None:
    def broken() -> CountingScorer:
        raise OSError("weights are not there")

    answer = ScorerActor(cloudpickle.dumps(broken), {}).ready()
    assert answer.cause.startswith("OSError: weights are not there (")


def test_a_scorer_whose_module_is_missing_is_an_answer() -> None:
    """On a node that lacks a package, a scorer that was pickled by name cannot be loaded."""
    answer = ScorerActor(b"cnot_installed\nscorer\n.", {}).ready()
    assert answer.cause.startswith("ModuleNotFoundError: No module named 'not_installed'")


def died(message: str, *, preempted: bool = False) -> exceptions.ActorDiedError:
    context = ActorDiedErrorContext(error_message=message, actor_id=bytes(16))
    if preempted:
        context.node_death_info.reason = NodeDeathInfo.AUTOSCALER_DRAIN_PREEMPTED
    return exceptions.ActorDiedError(context)


@pytest.mark.parametrize(
    ("death", "cause", "blameless"),
    [
        (died("... because its node has died. Node Id: 12"), "its node was lost", True),
        (died("whatever", preempted=True), "its node was lost", True),
        (exceptions.NodeDiedError("node 12 died"), "its node was lost", True),
        (exceptions.OutOfMemoryError("95 % used"), "ran out of memory", False),
        (exceptions.ActorUnavailableError("rpc", bytes(16)), "could not be reached", True),
        (died("Worker exits with an exit code 7."), "ended with exit code 7", False),
        (died("connection error code 2. End of file."), "its worker process died", False),
        (exceptions.WorkerCrashedError(), "its worker process died", False),
    ],
)
def test_a_death_has_a_cause_in_one_line(death: Exception, cause: str, blameless: bool) -> None:
    assert cause in death_cause(death)
    assert "\n" not in death_cause(death)
    assert is_blameless(death) is blameless
