"""The supervised pool: Ray actors that each hold one scorer and are fed shard by shard.

Scores never pass through here. A scorer commits a shard's file itself, by rename, and hands back a
receipt of a few hundred bytes, so that a shard that is run twice does no harm, and whatever dies,
an actor, its node or the driver, costs at most the shards that were under way.

What becomes of a shard is decided by the ledger; this module tells it what it sees:

- Actors are asked for, up to the number of workers, while shards wait. Those without a place stay
  pending, which is what an autoscaler goes by; only actors that answered `ready` are fed.
- When several answers are in, receipts are read before deaths.
- An error of the RaygenomeError family would meet every shard (a full disk, a missing file): it
  ends the run as itself. Any other error is the shard's own: tried again, then quarantined.
- An actor that makes no progress for `stall_s` is killed, and counts as dead.
- Once no shard waits, idle actors end, so that their GPUs go back.
"""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import ray
from ray.exceptions import RayError

from raygenome.errors import RaygenomeError
from raygenome.pool.actor import (
    DEATHS,
    Answer,
    Scorer,
    death_cause,
    node_lost,
    one_line,
)
from raygenome.pool.cluster import connected
from raygenome.pool.crew import Call, Crew, Member
from raygenome.pool.ledger import Ledger, Quarantine
from raygenome.pool.sigterm import HeldSigterm

S = TypeVar("S")

#: How long the other answers of an actor that died may take to come in.
SETTLE_S = 2.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PoolOptions:
    """How the pool is run.

    Args:
        workers: the most actors at a time, at least 1.
        device: "cpu" or "cuda"; an actor takes one core, or one GPU.
        address: of a cluster, as `cluster.connected` takes it.
        depth: shards an actor has at a time, so that it need not wait for the driver.
        stall_s: seconds without progress after which an actor is killed.
        max_attempts: failures after which a shard is quarantined.
        poll_s: seconds between heartbeats.
    """

    workers: int
    device: str = "cpu"
    address: str | None = None
    depth: int = 2
    stall_s: float = 600.0
    max_attempts: int = 3
    poll_s: float = 0.5


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
    """Have every shard scored by a pool of actors, and return those that were given up.

    Args:
        shards: descriptors, picklable and small.
        make_scorer: called once in each actor; picklable and small (weights go by path).
        options: how the pool is run.
        on_receipt: called with each receipt, once a committed shard, in any order.
        on_progress: called with the rows done so far in the shards under way, when that changes;
            of a shard's end it is told after `on_receipt` is.

    Raises:
        ValueError: `options.workers` is below 1.
        UsageError: there is no cluster at the address, or no GPU on this machine.
        RaygenomeError: a scorer raised it, or no actor could be started.
    """
    if options.workers < 1:
        raise ValueError(f"workers is {options.workers}; a pool has at least 1")
    if not shards:
        return []
    with connected(workers=options.workers, device=options.device, address=options.address):
        pool = _Pool(shards, make_scorer, options, on_receipt, on_progress)
        given_up = pool.run()
    return [ShardFailure(shards[entry.position], entry.cause, entry.attempts) for entry in given_up]


class _Pool(Generic[S]):
    """One run; below `run`, a method is a step of its loop or of a step."""

    def __init__(
        self,
        shards: Sequence[S],
        make_scorer: Callable[[], Scorer[S]],
        options: PoolOptions,
        on_receipt: Callable[[dict[str, Any]], None],
        on_progress: Callable[[int], None] | None,
    ) -> None:
        self._shards = shards
        self._make_scorer = make_scorer
        self._options = options
        self._on_receipt = on_receipt
        self._on_progress = on_progress
        self._crew = Crew(make_scorer, workers=options.workers, device=options.device)
        self._ledger = Ledger(len(shards), max_attempts=options.max_attempts)
        self._rows_told = 0
        self._fatal: RaygenomeError | None = None
        self._looked_at = time.monotonic()

    def run(self) -> list[Quarantine]:
        """Run until every shard is settled; whatever ends the run, no actor is left."""
        with HeldSigterm() as sigterm:
            try:
                while not self._ledger.finished:
                    sigterm.check()
                    self._step()
            finally:
                for member in list(self._crew.members):
                    self._crew.end(member)
        return self._ledger.quarantined

    def _step(self) -> None:
        self._crew.spawn(self._ledger.waiting)
        self._feed()
        for member in self._busy():
            self._crew.beat(member, poll_s=self._options.poll_s)
        self._hear(self._crew.wait(self._options.poll_s))
        self._tell_progress()
        self._kill_stalled()
        self._end_idle()

    def _busy(self) -> list[Member]:
        return [each for each in self._crew.members if self._ledger.in_flight(each.name)]

    def _feed(self) -> None:
        """Give shards to the actors that are ready: one to each first, then further ones.

        When fewer wait than there are actors nobody gets a further one, so that the last shards
        are spread out.
        """
        for depth in range(1, self._options.depth + 1):
            for member in self._crew.members:
                if depth > 1 and self._ledger.waiting < len(self._crew.members):
                    return
                if member.ready:
                    self._give(member, depth)

    def _give(self, member: Member, depth: int) -> None:
        if not self._ledger.in_flight(member.name):
            member.heard_at = time.monotonic()
        position = self._ledger.take(member.name, depth=depth)
        if position is not None:
            self._crew.score(member, position, self._shards[position])

    def _hear(self, refs: Iterable[Any]) -> None:
        """Read answers, then bury the dead, then end the run if one said so."""
        for member, death in self._read(refs).items():
            self._read(self._crew.wait_for(member, SETTLE_S))
            self._bury(member, death_cause(death), blame=not node_lost(death))
        if self._fatal is not None:
            raise self._fatal

    def _read(self, refs: Iterable[Any]) -> dict[Member, Exception]:
        """Act on each answer, and return the actors whose answer was their death."""
        dead: dict[Member, Exception] = {}
        for ref in refs:
            call = self._crew.calls.pop(ref)
            try:
                answer = ray.get(ref)
            except DEATHS as death:
                dead[call.member] = death
                continue
            except RayError as error:  # Ray could not carry the question or the answer
                answer = Answer(cause=one_line(f"{type(error).__name__}: {error}"))
            if answer.fatal is not None:
                self._fatal = self._fatal or answer.fatal
            elif call.verb == "beat":
                self._note_beat(call.member, answer)
            elif call.verb == "ready":
                self._note_birth(call.member, answer)
            else:
                self._note_shard(call, answer)
        return dead

    def _note_beat(self, member: Member, answer: Answer) -> None:
        """Note where an actor is; only what differs from the last time is progress."""
        member.beating = False
        if answer.under_way is not None and answer.under_way != member.under_way:
            member.under_way = answer.under_way
            member.heard_at = time.monotonic()

    def _note_birth(self, member: Member, answer: Answer) -> None:
        if answer.receipt is None:
            self._bury(member, answer.cause)
        else:
            self._crew.welcome(member)
            _log.debug("worker %d is ready on node %s", member.name, answer.receipt["node"])

    def _note_shard(self, call: Call, answer: Answer) -> None:
        call.member.heard_at = time.monotonic()
        if answer.receipt is None:
            self._report(self._ledger.fail(call.member.name, call.position, answer.cause))
        else:
            self._ledger.commit(call.member.name, call.position)
            self._on_receipt(answer.receipt)

    def _report(self, entry: Quarantine | None) -> None:
        if entry is not None:
            _log.error(
                "gave up on shard %s after %d attempts: %s",
                self._shards[entry.position],
                entry.attempts,
                entry.cause,
            )

    def _bury(self, member: Member, cause: str, *, blame: bool = True) -> None:
        """End an actor that failed, and draw the consequences for its shards or for the crew."""
        held = len(self._ledger.in_flight(member.name))
        _log.warning("worker %d ended with %d shards in hand: %s", member.name, held, cause)
        self._crew.end(member)
        self._report(self._ledger.lose(member.name, cause, blame=blame))
        if blame and not member.ready:
            self._crew.mourn(cause)

    def _kill_stalled(self) -> None:
        """Kill the actors that have work and show no progress.

        Time in which this process itself was stopped, or busy with a receipt, does not count.
        """
        now = time.monotonic()
        absent = max(now - self._looked_at - self._options.poll_s - SETTLE_S, 0.0)
        self._looked_at = now
        for member in self._busy():
            member.heard_at += absent
            if now - member.heard_at > self._options.stall_s:
                self._bury(member, f"no progress for {self._options.stall_s:g} s")

    def _end_idle(self) -> None:
        if not self._ledger.waiting:
            busy = self._busy()
            for member in [each for each in self._crew.members if each not in busy]:
                self._crew.end(member)

    def _tell_progress(self) -> None:
        """Tell the rows of the shards under way, where they are not what was told last."""
        rows = 0
        for member in self._crew.members:
            position, done = member.under_way
            if position in self._ledger.in_flight(member.name):
                rows += done
        if self._on_progress is not None and rows != self._rows_told:
            self._on_progress(rows)
        self._rows_told = rows
