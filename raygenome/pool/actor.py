"""The Ray actor that holds a scorer, its answers, and the meaning of its death.

Errors of a scorer are returned as answers and not raised: what Ray makes of a raised exception
depends on whether its class can be pickled and subclassed.
"""

import logging
import pickle
import re
import traceback
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, TypeVar

import ray
from ray import exceptions

from raygenome.errors import RaygenomeError
from raygenome.pool.metrics import WorkerMetrics

S_contra = TypeVar("S_contra", contravariant=True)

#: What Ray raises for the death of an actor; these classes have no common base class.
DEATHS = (
    exceptions.RayActorError,
    exceptions.WorkerCrashedError,
    exceptions.NodeDiedError,
    exceptions.OutOfMemoryError,
)

_log = logging.getLogger(__name__)


class Scorer(Protocol[S_contra]):
    """What an actor holds: made once, then given one shard after another."""

    @property
    def rows_done(self) -> int:
        """Rows scored since it was made, over all shards; read from another thread."""

    def score_shard(self, shard: S_contra) -> dict[str, Any]:
        """Score `shard`, commit its file, and return its receipt; again gives the same file."""


class Answer(NamedTuple):
    """The answer of an actor to a call; one of the fields is set.

    receipt: of the shard, or the node of the actor that is ready.
    cause: one line on what went wrong with this call.
    fatal: an error that ends the run.
    under_way: the position of the last shard that was started, and the rows done in it.
    """

    receipt: dict[str, Any] | None = None
    cause: str = ""
    fatal: RaygenomeError | None = None
    under_way: tuple[int, int] | None = None


class ScorerActor:
    """Runs in a Ray worker; `heartbeat` has its own thread and answers while a shard is scored.

    Args:
        make_scorer: makes the scorer; pickled, because unpickling it may import large modules,
            which should happen in `ready`, while `heartbeat` answers.
        tags: of the metrics.
    """

    def __init__(self, make_scorer: bytes, tags: Mapping[str, str]) -> None:
        self._make_scorer = make_scorer
        self._tags = tags
        self._scorer: Scorer[Any] | None = None
        self._metrics: WorkerMetrics | None = None
        self._under_way = (-1, 0)

    def ready(self) -> Answer:
        """Make the scorer, and answer with the id of this node."""
        try:
            self._scorer = pickle.loads(self._make_scorer)()
        except Exception as error:  # noqa: BLE001 - the driver judges it
            return _error_answer("the scorer could not be made", error)
        self._metrics = WorkerMetrics(self._tags)
        return Answer({"node": ray.get_runtime_context().get_node_id()})

    def score(self, position: int, shard: Any) -> Answer:
        """Score the shard at `position` of the driver's list, and answer with its receipt."""
        if self._scorer is None:
            return Answer(cause="the actor was given a shard before it was ready")
        self._under_way = (position, self._scorer.rows_done)
        try:
            receipt = self._scorer.score_shard(shard)
        except Exception as error:  # noqa: BLE001 - the driver judges it
            return _error_answer(f"the shard at {position} failed", error)
        if self._metrics is not None:
            self._metrics.record(receipt)
        return Answer(receipt)

    @ray.method(concurrency_group="heartbeat")
    def heartbeat(self) -> Answer:
        """Answer with the shard and the rows that the scorer has reached."""
        position, before = self._under_way
        rows = self._scorer.rows_done - before if self._scorer else 0
        return Answer(under_way=(position, rows))


def _error_answer(what: str, error: Exception) -> Answer:
    """Log an error with its traceback in this worker's log, and return it as an answer."""
    _log.error(what, exc_info=error)
    if isinstance(error, RaygenomeError):
        return Answer(fatal=error)
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return Answer(cause=one_line(f"{type(error).__name__}: {error}") + place)


def one_line(text: str) -> str:
    """Return `text` with each run of whitespace replaced by one space."""
    return " ".join(text.split())


def is_blameless(death: Exception) -> bool:
    """Return whether the shard cannot have caused an actor's death, because its node was lost.

    Ray declares a node dead only after some seconds of silence. Until then its actors cannot be
    reached, while Ray notices at once when a process ends on a node that is alive.
    """
    return isinstance(death, exceptions.ActorUnavailableError) or _node_lost(death)


def _node_lost(death: Exception) -> bool:
    if isinstance(death, exceptions.NodeDiedError) or getattr(death, "preempted", False):
        return True
    return "node has died" in str(death)


def death_cause(death: Exception) -> str:
    """Return one line for a user on an actor's death; Ray's own text has ten lines or more."""
    if _node_lost(death):
        return "its node was lost"
    if isinstance(death, exceptions.OutOfMemoryError):
        return "its worker was killed by Ray because its node ran out of memory"
    if isinstance(death, exceptions.ActorUnavailableError):
        return "its worker could not be reached"
    if code := re.search(r"exit code (\d+)", str(death)):
        return f"its worker process ended with exit code {code[1]}"
    return "its worker process died (it crashed or was killed, perhaps for lack of memory)"
