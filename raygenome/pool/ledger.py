"""The books of a pool of workers: which shard waits, runs, is done, or is given up, and why.

Plain Python without Ray, threads or clocks, so that every order of events can be tried in
milliseconds; supervision.py turns what happens to actors into the verbs below. Shards are known
by their position, 0 .. shards - 1, and workers by any hashable name that is never used twice.

A shard ends in one of two ways: committed once, or quarantined after `max_attempts` blames. An
error that a shard reports is its own fault and one blame. A worker's death is different: the reply
of a shard that was finished may have died with it, so nobody can tell which of several shards in
flight was the cause. All of them become suspects, each of which is then run with no other shard
in flight beside it, and only a death in that state is blame.
"""

from collections import Counter, deque
from collections.abc import Hashable
from typing import NamedTuple

#: How often a shard may lose its worker while alone, without blame, per attempt that it is
#: allowed: spot nodes come and go, but a shard that takes its whole node down must end too.
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
        max_attempts: blames after which a shard is quarantined, at least 1.
    """

    def __init__(self, shards: int, *, max_attempts: int = 3) -> None:
        if max_attempts < 1:
            raise ValueError(f"max_attempts is {max_attempts}; it must be at least 1")
        self.max_attempts = max_attempts
        self.committed: set[int] = set()
        self.quarantined: list[Quarantine] = []
        self._queue = deque(range(shards))
        self._suspects: deque[int] = deque()
        self._flights: dict[Hashable, list[int]] = {}
        self._isolated: set[Hashable] = set()
        self._blames: Counter[int] = Counter()
        self._losses: Counter[int] = Counter()

    @property
    def waiting(self) -> int:
        """How many shards no worker has."""
        return len(self._queue) + len(self._suspects)

    @property
    def running(self) -> int:
        """How many shards are in flight."""
        return sum(map(len, self._flights.values()))

    @property
    def finished(self) -> bool:
        """Whether every shard is committed or quarantined."""
        return not self.waiting and not self.running

    def in_flight(self, worker: Hashable) -> tuple[int, ...]:
        """Return the positions that `worker` has, in the order in which it was given them."""
        return tuple(self._flights.get(worker, ()))

    def take(self, worker: Hashable, *, depth: int = 2) -> int | None:
        """Give `worker` its next shard and return its position; None where it gets none now.

        An empty worker gets a suspect first, and then nothing else until that is settled. Otherwise
        it gets shards in order while it has fewer than `depth`.
        """
        flight = self._flights.setdefault(worker, [])
        if not flight and self._suspects:
            self._isolated.add(worker)
            flight.append(self._suspects.popleft())
        elif len(flight) < depth and self._queue and worker not in self._isolated:
            flight.append(self._queue.popleft())
        else:
            return None
        return flight[-1]

    def commit(self, worker: Hashable, position: int) -> None:
        """Note the receipt of a shard that `worker` had."""
        self._land(worker, position)
        self.committed.add(position)

    def fail(self, worker: Hashable, position: int, cause: str) -> Quarantine | None:
        """Blame a shard for the error that it reported; return its quarantine if that was the last.

        It goes to the end of the queue, so that what was passing may have passed.
        """
        self._land(worker, position)
        return self._blame(position, cause, self._queue)

    def lose(self, worker: Hashable, cause: str, *, blame: bool = True) -> Quarantine | None:
        """Take back what `worker` had when it died, and return the quarantine that came of it.

        Args:
            worker: whose death it is; it may have had nothing.
            cause: one line.
            blame: False where the shard cannot be the cause, as when a node was preempted.
        """
        flight = self._flights.pop(worker, [])
        self._isolated.discard(worker)
        if len(flight) != 1:
            self._suspects.extend(flight)
            return None
        (position,) = flight
        if not blame:
            self._losses[position] += 1
            if self._losses[position] < LOSSES_PER_ATTEMPT * self.max_attempts:
                self._suspects.append(position)
                return None
            self._blames[position] = self.max_attempts - 1
        return self._blame(position, cause, self._suspects)

    def _land(self, worker: Hashable, position: int) -> None:
        """Take `position` out of the hands of `worker`, which must have it."""
        self._flights[worker].remove(position)
        self._isolated.discard(worker)

    def _blame(self, position: int, cause: str, again: deque[int]) -> Quarantine | None:
        """Count one blame, and either put the shard into `again` or give it up."""
        self._blames[position] += 1
        if self._blames[position] < self.max_attempts:
            again.append(position)
            return None
        entry = Quarantine(position, cause, self._blames[position])
        self.quarantined.append(entry)
        return entry
