"""The actors of a pool, from start to end, and the calls to them that are not yet answered."""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayError

from raygenome.cluster.health import ClusterHealth
from raygenome.errors import PartialFailure
from raygenome.pool.actor import ScorerActor
from raygenome.pool.resources import ActorResources, WaitingNotice

#: The run ends after so many failed starts in a row if no worker is ready.
MAX_FAILED_STARTS = 3

#: Longest pause, in seconds, between a failed start and the next one.
MAX_PAUSE_S = 60.0


class Worker:
    """What the driver knows of one actor.

    Attributes:
        name: its number; never used twice.
        handle: the actor.
        alive: whether its process has answered.
        ready: whether its scorer is made.
        awaits_heartbeat: whether a heartbeat request is unanswered.
        asked_at: time of the last heartbeat request.
        progress_at: time of its last progress.
        alive_at: time of its first answer.
        under_way: position of the last shard that it started, and the rows done in it.
    """

    def __init__(self, name: int, handle: Any) -> None:
        self.name = name
        self.handle = handle
        self.alive = False
        self.ready = False
        self.awaits_heartbeat = False
        self.asked_at = self.progress_at = self.alive_at = time.monotonic()
        self.under_way = (-1, 0)


class Call(NamedTuple):
    """An unanswered call; only calls of `score` have a position."""

    method: str
    worker: Worker
    position: int = -1


def _remote_actor(resources: ActorResources) -> Any:
    """Return the actor class for Ray; Ray itself retries nothing, since the ledger does."""
    remote: Any = ray.remote
    options = {"max_restarts": 0, "max_task_retries": 0, "concurrency_groups": {"heartbeat": 1}}
    return remote(**resources._asdict(), **options)(ScorerActor)


class WorkerPool:
    """The actors that exist, ready or pending; at most `n_workers`.

    While the cluster's head is silent, it is asked neither for actors nor to kill any: Ray would
    wait for the answer and at last end this process.

    Args:
        make_scorer: makes the scorer in each of them.
        n_workers: how many there may be at a time.
        resources: the resources that each takes of a node.
        tags: of the metrics.
        health: of the cluster.
        notice: logs that no worker has a place yet.
    """

    def __init__(
        self,
        make_scorer: Callable[[], Any],
        *,
        n_workers: int,
        resources: ActorResources,
        tags: Mapping[str, str],
        health: ClusterHealth,
        notice: WaitingNotice,
    ) -> None:
        self.workers: list[Worker] = []
        self.calls: dict[Any, Call] = {}
        self._remote_actor = _remote_actor(resources)
        self._make_scorer = ray.cloudpickle.dumps(make_scorer)
        self._tags = dict(tags)
        self._n_workers = n_workers
        self._health = health
        self._notice = notice
        self._to_kill: list[Any] = []
        self._started = 0
        self._failed_starts = 0
        self._start_at = time.monotonic()

    @property
    def n_ready(self) -> int:
        """How many are ready."""
        return sum(worker.ready for worker in self.workers)

    def start(self, waiting: int) -> None:
        """Ask for as many actors as there are `waiting` shards, less those that are pending.

        The first call to each is a heartbeat request: its answer says that there was a place.
        """
        if time.monotonic() < self._start_at:
            return
        pending = len(self.workers) - self.n_ready
        wanted = min(self._n_workers - len(self.workers), waiting - pending)
        if wanted <= 0 or not self._health.answers_now():
            return
        for _ in range(wanted):
            handle = self._remote_actor.remote(self._make_scorer, self._tags)
            worker = Worker(self._started, handle)
            self._started += 1
            self.workers.append(worker)
            self.ask_heartbeat(worker, every_s=0.0)
            self.calls[handle.ready.remote()] = Call("ready", worker)

    def score(self, worker: Worker, position: int, shard: Any) -> None:
        """Give a shard to an actor."""
        worker.progress_at = time.monotonic()
        self.calls[worker.handle.score.remote(position, shard)] = Call("score", worker, position)

    def ask_heartbeat(self, worker: Worker, *, every_s: float) -> None:
        """Ask an actor for a heartbeat, unless one is pending or was asked for within `every_s`."""
        now = time.monotonic()
        if not worker.awaits_heartbeat and now - worker.asked_at >= every_s:
            worker.awaits_heartbeat, worker.asked_at = True, now
            self.calls[worker.handle.heartbeat.remote()] = Call("heartbeat", worker)

    def wait(self, timeout_s: float) -> list[Any]:
        """Wait up to `timeout_s` for the first answer, then return all that are in."""
        refs = list(self.calls)
        if not refs:
            time.sleep(timeout_s)
            return []
        done, _ = ray.wait(refs, num_returns=1, timeout=timeout_s)
        return ray.wait(refs, num_returns=len(refs), timeout=0)[0] if done else []

    def wait_for(self, worker: Worker, timeout_s: float) -> list[Any]:
        """Wait up to `timeout_s` for all answers of one actor, and return those that are in."""
        refs = [ref for ref, call in self.calls.items() if call.worker is worker]
        return ray.wait(refs, num_returns=len(refs), timeout=timeout_s)[0] if refs else []

    def mark_ready(self, worker: Worker) -> None:
        """Record that the scorer of an actor is made."""
        worker.ready = True
        self._failed_starts = 0

    def end(self, worker: Worker) -> None:
        """Kill an actor and forget its calls; a commit by rename is whole or has not happened.

        If the head is silent, a later `kill_ended` kills it.
        """
        self.workers.remove(worker)
        self.calls = {ref: call for ref, call in self.calls.items() if call.worker is not worker}
        self._to_kill.append(worker.handle)
        self.kill_ended()

    def kill_ended(self) -> None:
        """Kill the actors that were ended, if the head answers."""
        while self._to_kill and self._health.answers_now():
            with suppress(RayError, RuntimeError):
                ray.kill(self._to_kill.pop(), no_restart=True)

    def record_start_failure(self, cause: str) -> None:
        """Count a failed start, and delay the next one.

        Raises:
            PartialFailure: MAX_FAILED_STARTS in a row have failed, and no worker is ready.
        """
        self._failed_starts += 1
        self._start_at = time.monotonic() + min(MAX_PAUSE_S, 0.25 * 2**self._failed_starts)
        if not self.n_ready and self._failed_starts >= MAX_FAILED_STARTS:
            raise PartialFailure(
                f"no worker could be started, {self._failed_starts} failed in a row; the last "
                f"cause: {cause}",
                "with --workers 0 the same runs in this process",
            )

    def log_waiting(self) -> None:
        """Log from time to time that there is no actor yet; this asks the cluster's head."""
        if any(worker.alive for worker in self.workers):
            self._notice.reset()
        else:
            self._notice.log_waiting()
