"""Which shard of a pool waits, runs, is committed, or was given up, and why.

Plain Python without Ray, threads or clocks, so that tests can try every order of events in
milliseconds; pool.py calls these methods when something happens to an actor. Shards are known by
their position, 0 .. shards - 1, and workers by any hashable name that is never used twice. A
worker has at most one shard at a time.

A shard ends in one of two ways: committed once, or quarantined after `max_attempts` failures. An
error that it reports is a failure, and so is the death of its worker, unless the death cannot be
the shard's fault.
"""

from collections import Counter, deque
from collections.abc import Hashable
from typing import NamedTuple

#: For each attempt that a shard is allowed, it may lose its worker this many times without being
#: at fault: spot nodes come and go, but a shard that takes its whole node down must end too.
LOSSES_PER_ATTEMPT = 10


class Quarantine(NamedTuple):
    """A shard that was given up: its position, the last cause in one line, how often it failed."""

    position: int
    cause: str
    attempts: int


class Ledger:
    """Where each of `shards` shards is; every shard is in exactly one place at any time.

    Args:
        shards: how many there are.
        max_attempts: failures after which a shard is quarantined, at least 1.
    """

    def __init__(self, shards: int, *, max_attempts: int = 3) -> None:
        if max_attempts < 1:
            raise ValueError(f"max_attempts is {max_attempts}; it must be at least 1")
        self.max_attempts = max_attempts
        self.committed: set[int] = set()
        self.quarantined: list[Quarantine] = []
        self._queue = deque(range(shards))
        self._running: dict[Hashable, int] = {}
        self._failures: Counter[int] = Counter()
        self._losses: Counter[int] = Counter()

    @property
    def waiting(self) -> int:
        """How many shards no worker has."""
        return len(self._queue)

    @property
    def finished(self) -> bool:
        """Whether every shard is committed or quarantined."""
        return not self._queue and not self._running

    def shard_of(self, worker: Hashable) -> int | None:
        """Return the position of the shard of `worker`; None if it has no shard."""
        return self._running.get(worker)

    def take(self, worker: Hashable) -> int | None:
        """Give `worker` the next shard, and return it; None if it has one already or none waits."""
        if worker in self._running or not self._queue:
            return None
        self._running[worker] = self._queue.popleft()
        return self._running[worker]

    def commit(self, worker: Hashable) -> None:
        """Record that the shard of `worker` is committed."""
        self.committed.add(self._running.pop(worker))

    def fail(self, worker: Hashable, cause: str) -> Quarantine | None:
        """Record the error that a shard reported; return its quarantine if this was the last one.

        The shard goes to the end of the queue, since a temporary problem may be over by then.
        """
        position = self._running.pop(worker)
        if entry := self._count_failure(position, cause):
            return entry
        self._queue.append(position)
        return None

    def lose(self, worker: Hashable, cause: str, *, blame: bool = True) -> Quarantine | None:
        """Take back the shard of a worker that died; return its quarantine if this was the last.

        The shard goes to the front of the queue.

        Args:
            worker: which died; it may have had no shard.
            cause: one line.
            blame: False if the shard cannot be the cause, as when a node was preempted.
        """
        position = self._running.pop(worker, None)
        if position is None:
            return None
        if not blame:
            self._losses[position] += 1
        lost_too_often = self._losses[position] >= LOSSES_PER_ATTEMPT * self.max_attempts
        if lost_too_often:
            self._failures[position] = self.max_attempts - 1
        if (blame or lost_too_often) and (entry := self._count_failure(position, cause)):
            return entry
        self._queue.appendleft(position)
        return None

    def _count_failure(self, position: int, cause: str) -> Quarantine | None:
        """Count one failure; return the quarantine if the shard is given up."""
        self._failures[position] += 1
        if self._failures[position] < self.max_attempts:
            return None
        self.quarantined.append(Quarantine(position, cause, self._failures[position]))
        return self.quarantined[-1]
