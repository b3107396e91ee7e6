"""The supervised pool: Ray actors that each hold one scorer and get one shard after another.

Scores never pass through here. A scorer commits a shard's file itself, by rename, and returns a
receipt of a few hundred bytes. So a shard that runs twice does no harm, and if an actor, its node
or the driver dies, only the shards that were under way are lost.

The ledger decides what to do with a shard; this module reports events to it:

- While shards wait, actors are requested, up to the number of workers. Those without a place stay
  pending, which an autoscaler takes as demand; only actors that answered `ready` get shards.
- When several answers are in, receipts are read before deaths.
- An error of the RaygenomeError family would happen to every shard (a full disk, a missing file):
  it ends the run. Any other error concerns its shard: it is tried again, then quarantined.
- An actor that makes no progress for `stall_s` is killed and counts as dead. The same happens if
  its process lives and its scorer is not made within `start_timeout_s`. An actor without a place
  may wait.
- An actor has one shard at a time. A second one in advance would save half a millisecond per shard,
  and would make it unclear which of the two a death is due to.
- As soon as no shard waits, idle actors end, so that their GPUs become free.
- A cluster that is gone for good ends the run; all of its nodes may go, if one comes back.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

import ray
from ray.exceptions import RayError

from raygenome.cluster.connect import connected
from raygenome.cluster.health import ClusterHealth
from raygenome.cluster.signals import HeldSigterm
from raygenome.errors import RaygenomeError
from raygenome.pool.actor import (
    DEATHS,
    Answer,
    Scorer,
    death_cause,
    is_blameless,
    one_line,
)
from raygenome.pool.ledger import Ledger, Quarantine
from raygenome.pool.metrics import RunMetrics
from raygenome.pool.resources import NOTICE_S, ActorResources, WaitingNotice, resources_for
from raygenome.pool.workers import Call, Worker, WorkerPool

S = TypeVar("S")

#: How long the other answers of an actor that died may take to arrive.
_SETTLE_S = 2.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PoolOptions:
    """How the pool is run.

    Args:
        workers: the largest number of actors at a time, at least 1.
        device: "cpu" or "cuda"; an actor takes one core, or one GPU.
        worker_gpus: GPUs per actor, if not that; 0.5 puts two actors on one GPU.
        tags: of the metrics, such as the model.
        max_attempts: failures after which a shard is quarantined.
        stall_s: seconds without progress after which an actor is killed.
        start_timeout_s: seconds that an actor may take to make its scorer.
        poll_s: seconds between heartbeats.
        notice_s: seconds between two notices in the log that no worker has a place yet.
        patience_s: seconds of silence after which the cluster is lost; None is the default of
            `ClusterHealth`.
    """

    workers: int
    device: str = "cpu"
    worker_gpus: float | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    max_attempts: int = 3
    stall_s: float = 600.0
    start_timeout_s: float = 600.0
    poll_s: float = 0.5
    notice_s: float = NOTICE_S
    patience_s: float | None = None

    @property
    def resources(self) -> ActorResources:
        """The resources of a node that an actor takes.

        Raises:
            UsageError: Ray cannot give such a share of a GPU.
        """
        return resources_for(self.device, self.worker_gpus)


class ShardFailure(NamedTuple):
    """A shard that was given up: the last cause, in one line, and how many attempts there were."""

    shard: Any
    cause: str
    attempts: int


def run_shards(
    shards: Sequence[S],
    make_scorer: Callable[[], Scorer[S]],
    options: PoolOptions,
    *,
    on_receipt: Callable[[dict[str, Any]], None],
    on_progress: Callable[[int], None] | None = None,
) -> list[ShardFailure]:
    """Score every shard with a pool of actors, and return those that were given up.

    Uses the cluster that this process has joined, or else a private Ray.

    Args:
        shards: descriptors, picklable and small.
        make_scorer: called once in each actor; picklable and small (weights go by path).
        options: how the pool is run.
        on_receipt: called with each receipt, once per committed shard, in any order.
        on_progress: called with the rows done so far in the shards under way, when that changes;
            at the end of a shard it is called after `on_receipt`.

    Raises:
        ValueError: `options.workers` is below 1.
        UsageError: this machine has no GPU, or Ray cannot give such a share of one.
        PartialFailure: no actor could be started, or the cluster was lost.
        RaygenomeError: a scorer raised it.
    """
    if options.workers < 1:
        raise ValueError(f"workers is {options.workers}; a pool has at least 1")
    if not shards:
        return []
    device = "cuda" if options.resources.num_gpus else "cpu"
    with (
        connected(workers=options.workers, device=device) as private,
        ClusterHealth(private=private, patience_s=options.patience_s) as health,
    ):
        run = _PoolRun(shards, make_scorer, options, health, on_receipt, on_progress)
        given_up = run.run()
    return [ShardFailure(shards[entry.position], entry.cause, entry.attempts) for entry in given_up]


class _PoolRun(Generic[S]):
    """One run; each method below `run` is one step of its loop, or a part of such a step."""

    def __init__(
        self,
        shards: Sequence[S],
        make_scorer: Callable[[], Scorer[S]],
        options: PoolOptions,
        health: ClusterHealth,
        on_receipt: Callable[[dict[str, Any]], None],
        on_progress: Callable[[int], None] | None,
    ) -> None:
        self._shards = shards
        self._options = options
        self._health = health
        self._on_receipt = on_receipt
        self._on_progress = on_progress
        self._pool = WorkerPool(
            make_scorer,
            n_workers=options.workers,
            resources=options.resources,
            tags=options.tags,
            health=health,
            notice=WaitingNotice(options.resources, options.notice_s),
        )
        self._metrics = RunMetrics(options.tags)
        self._ledger = Ledger(len(shards), max_attempts=options.max_attempts)
        self._last_rows = 0
        self._fatal: RaygenomeError | None = None
        self._looked_at = time.monotonic()

    def run(self) -> list[Quarantine]:
        """Run until every shard is committed or given up; however it ends, all actors are ended."""
        with HeldSigterm() as sigterm:
            try:
                while not self._ledger.finished:
                    sigterm.check()
                    self._health.check()
                    self._step()
            finally:
                for worker in list(self._pool.workers):
                    self._pool.end(worker)
        return self._ledger.quarantined

    def _step(self) -> None:
        if self._health.is_healthy:
            self._pool.log_waiting()
        self._pool.kill_ended()
        self._pool.start(self._ledger.waiting)
        for worker in self._pool.workers:
            if worker.ready:
                self._give_shard(worker)
            if not worker.ready or self._has_shard(worker):
                self._pool.ask_heartbeat(worker, every_s=self._options.poll_s)
        self._handle_answers(self._pool.wait(self._options.poll_s))
        self._report_progress()
        self._kill_stalled()
        self._end_idle()

    def _has_shard(self, worker: Worker) -> bool:
        return self._ledger.shard_of(worker.name) is not None

    def _give_shard(self, worker: Worker) -> None:
        position = self._ledger.take(worker.name)
        if position is not None:
            self._pool.score(worker, position, self._shards[position])

    def _handle_answers(self, refs: Iterable[Any]) -> None:
        """Read answers, then discard the dead, then end the run if an answer was fatal."""
        for worker, death in self._read(refs).items():
            self._read(self._pool.wait_for(worker, _SETTLE_S))
            if worker in self._pool.workers:  # not yet discarded for another answer
                self._discard(worker, death_cause(death), blame=not is_blameless(death))
        if self._fatal is not None:
            raise self._fatal

    def _read(self, refs: Iterable[Any]) -> dict[Worker, Exception]:
        """Act on each answer, and return the actors whose answer was their death."""
        dead: dict[Worker, Exception] = {}
        for ref in refs:
            call = self._pool.calls.pop(ref, None)
            if call is None:  # an earlier answer has ended this actor
                continue
            try:
                answer = ray.get(ref)
            except DEATHS as death:
                dead[call.worker] = death
                continue
            except RayError as error:  # Ray could not transport the call or the answer
                answer = Answer(cause=one_line(f"{type(error).__name__}: {error}"))
            if answer.fatal is not None:
                self._fatal = self._fatal or answer.fatal
            elif call.method == "heartbeat":
                self._record_heartbeat(call.worker, answer)
            elif call.method == "ready":
                self._record_start(call.worker, answer)
            else:
                self._record_shard(call, answer)
        return dead

    def _record_heartbeat(self, worker: Worker, answer: Answer) -> None:
        """Record where an actor is; only a change since the last heartbeat is progress."""
        worker.awaits_heartbeat = False
        if not worker.alive:
            worker.alive, worker.alive_at = True, time.monotonic()
        if answer.under_way is not None and answer.under_way != worker.under_way:
            worker.under_way = answer.under_way
            worker.progress_at = time.monotonic()

    def _record_start(self, worker: Worker, answer: Answer) -> None:
        if answer.receipt is None:
            self._discard(worker, answer.cause)
        else:
            self._pool.mark_ready(worker)
            self._metrics.record_workers(self._pool.n_ready)
            _log.debug("worker %d is ready on node %s", worker.name, answer.receipt["node"])

    def _record_shard(self, call: Call, answer: Answer) -> None:
        if answer.receipt is None:
            self._record_failure(self._ledger.fail(call.worker.name, answer.cause))
        else:
            self._ledger.commit(call.worker.name)
            self._on_receipt(answer.receipt)

    def _record_failure(self, given_up: Quarantine | None) -> None:
        """Record that a shard failed; `given_up` is None if it will run again."""
        if given_up is None:
            self._metrics.record_retry()
            return
        self._metrics.record_failure()
        _log.error(
            "gave up on shard %s after %d attempts: %s",
            self._shards[given_up.position],
            given_up.attempts,
            given_up.cause,
        )

    def _discard(self, worker: Worker, cause: str, *, blame: bool = True) -> None:
        """End an actor that failed; its shard, or its start, is recorded as failed."""
        had_shard = self._has_shard(worker)
        _log.warning(
            "worker %d ended %s a shard: %s", worker.name, "in" if had_shard else "without", cause
        )
        self._pool.end(worker)
        self._metrics.record_workers(self._pool.n_ready)
        if had_shard:
            self._record_failure(self._ledger.lose(worker.name, cause, blame=blame))
        elif blame and not worker.ready:
            self._pool.record_start_failure(cause)

    def _kill_stalled(self) -> None:
        """Kill actors that have a shard and make no progress, and those that do not become ready.

        Time in which this process itself was stopped, or busy with a receipt, does not count.
        """
        now = time.monotonic()
        absent = max(now - self._looked_at - self._options.poll_s - _SETTLE_S, 0.0)
        self._looked_at = now
        stall_s, start_timeout_s = self._options.stall_s, self._options.start_timeout_s
        for worker in list(self._pool.workers):
            worker.progress_at += absent
            worker.alive_at += absent
            if self._has_shard(worker):
                if now - worker.progress_at > stall_s:
                    self._discard(worker, f"no progress for {stall_s:g} s")
            elif worker.alive and not worker.ready and now - worker.alive_at > start_timeout_s:
                self._discard(worker, f"the scorer was not made within {start_timeout_s:g} s")

    def _end_idle(self) -> None:
        if not self._ledger.waiting:
            for worker in list(self._pool.workers):
                if not self._has_shard(worker):
                    self._pool.end(worker)

    def _report_progress(self) -> None:
        """Report the rows of the shards under way, if they have changed."""
        rows = 0
        for worker in self._pool.workers:
            position, done = worker.under_way
            if position == self._ledger.shard_of(worker.name):
                rows += done
        if self._on_progress is not None and rows != self._last_rows:
            self._on_progress(rows)
        self._last_rows = rows
