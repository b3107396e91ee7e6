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
- An actor that makes no progress for `stall_s` is killed, and counts as dead; and so is one whose
  process lives and whose scorer is not made within `birth_s`. One without a place may wait.
- An actor has a second shard in hand only where shards take less than a second, so that the
  driver's millisecond would tell, and many are left: what it holds back, an idle one could do.
- Once no shard waits, idle actors end, so that their GPUs go back.
- A cluster that is gone for good ends the run; all of its nodes may go, if one comes back.
"""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import ray
from ray.exceptions import RayError

from raygenome.cluster.connect import connected
from raygenome.cluster.health import Pulse
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
from raygenome.pool.options import PoolOptions
from raygenome.pool.workers import Call, Crew, Member

S = TypeVar("S")

#: How long the other answers of an actor that died may take to come in.
SETTLE_S = 2.0

#: An actor whose last shard took less has a further one in hand, while that many shards an actor
#: or more wait.
BRISK_S = 1.0
PLENTY = 2

_log = logging.getLogger(__name__)


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
        UsageError: there is no cluster at the address, or no GPU on this machine, or no such
            share of one.
        PartialFailure: no actor could be started, or the cluster was lost.
        RaygenomeError: a scorer raised it.
    """
    if options.workers < 1:
        raise ValueError(f"workers is {options.workers}; a pool has at least 1")
    if not shards:
        return []
    device = "cuda" if options.place.num_gpus else "cpu"
    with (
        connected(workers=options.workers, device=device, address=options.address) as private,
        Pulse(private=private) as pulse,
    ):
        pool = _Pool(shards, make_scorer, options, pulse, on_receipt, on_progress)
        given_up = pool.run()
    return [ShardFailure(shards[entry.position], entry.cause, entry.attempts) for entry in given_up]


class _Pool(Generic[S]):
    """One run; below `run`, a method is a step of its loop or of a step."""

    def __init__(
        self,
        shards: Sequence[S],
        make_scorer: Callable[[], Scorer[S]],
        options: PoolOptions,
        pulse: Pulse,
        on_receipt: Callable[[dict[str, Any]], None],
        on_progress: Callable[[int], None] | None,
    ) -> None:
        self._shards = shards
        self._options = options
        self._pulse = pulse
        self._on_receipt = on_receipt
        self._on_progress = on_progress
        self._crew = Crew(
            make_scorer,
            workers=options.workers,
            place=options.place,
            tags=options.tags,
            pulse=pulse,
        )
        self._metrics = RunMetrics(options.tags)
        self._ledger = Ledger(len(shards), max_attempts=options.max_attempts)
        self._rows_told = 0
        self._fatal: RaygenomeError | None = None
        self._looked_at = time.monotonic()

    def run(self) -> list[Quarantine]:
        """Run until every shard is settled; whatever ends the run, no actor is left that can be."""
        with HeldSigterm() as sigterm:
            try:
                while not self._ledger.finished:
                    sigterm.check()
                    self._pulse.check()
                    self._step()
            finally:
                for member in list(self._crew.members):
                    self._crew.end(member)
        return self._ledger.quarantined

    def _step(self) -> None:
        if self._pulse.well:
            self._crew.complain()
        self._crew.sweep()
        self._crew.spawn(self._ledger.waiting)
        self._feed()
        for member in self._crew.members:
            if not member.ready or self._ledger.in_flight(member.name):
                self._crew.beat(member, poll_s=self._options.poll_s)
        self._hear(self._crew.wait(self._options.poll_s))
        self._tell_progress()
        self._kill_stalled()
        self._end_idle()

    def _feed(self) -> None:
        """Give shards to the actors that are ready: one to each first, then further ones."""
        for depth in range(1, self._options.depth + 1):
            for member in self._crew.members:
                if depth > 1 and self._ledger.waiting < PLENTY * len(self._crew.members):
                    return
                if member.ready and (depth == 1 or member.shard_s < BRISK_S):
                    self._give(member, depth)

    def _give(self, member: Member, depth: int) -> None:
        if not self._ledger.in_flight(member.name):
            member.heard_at = member.begun_at = time.monotonic()
        position = self._ledger.take(member.name, depth=depth)
        if position is not None:
            self._crew.score(member, position, self._shards[position])

    def _hear(self, refs: Iterable[Any]) -> None:
        """Read answers, then bury the dead, then end the run if one said so."""
        for member, death in self._read(refs).items():
            self._read(self._crew.wait_for(member, SETTLE_S))
            if member in self._crew.members:  # else another answer of it was a failure
                self._bury(member, death_cause(death), blame=not is_blameless(death))
        if self._fatal is not None:
            raise self._fatal

    def _read(self, refs: Iterable[Any]) -> dict[Member, Exception]:
        """Act on each answer, and return the actors whose answer was their death."""
        dead: dict[Member, Exception] = {}
        for ref in refs:
            call = self._crew.calls.pop(ref, None)
            if call is None:  # of an actor that was ended for an answer before this one
                continue
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
        if not member.alive:
            member.alive, member.begun_at = True, time.monotonic()
        if answer.under_way is not None and answer.under_way != member.under_way:
            member.under_way = answer.under_way
            member.heard_at = time.monotonic()

    def _note_birth(self, member: Member, answer: Answer) -> None:
        if answer.receipt is None:
            self._bury(member, answer.cause)
        else:
            self._crew.welcome(member)
            self._metrics.workers(self._crew.ready)
            _log.debug("worker %d is ready on node %s", member.name, answer.receipt["node"])

    def _note_shard(self, call: Call, answer: Answer) -> None:
        member, now = call.member, time.monotonic()
        member.shard_s = now - member.begun_at
        member.heard_at = member.begun_at = now
        if answer.receipt is None:
            self._report(1, self._ledger.fail(member.name, call.position, answer.cause))
        else:
            self._ledger.commit(member.name, call.position)
            self._on_receipt(answer.receipt)

    def _report(self, tried: int, entry: Quarantine | None) -> None:
        """Tell what became of shards that were `tried` in vain; `entry` is of the one given up."""
        self._metrics.retries(tried - (entry is not None))
        if entry is not None:
            self._metrics.failed()
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
        self._metrics.workers(self._crew.ready)
        self._report(held, self._ledger.lose(member.name, cause, blame=blame))
        if blame and not member.ready:
            self._crew.mourn(cause)

    def _kill_stalled(self) -> None:
        """Kill the actors that have work and show no progress, and those that are never ready.

        Time in which this process itself was stopped, or busy with a receipt, does not count.
        """
        now = time.monotonic()
        absent = max(now - self._looked_at - self._options.poll_s - SETTLE_S, 0.0)
        self._looked_at = now
        stall_s, birth_s = self._options.stall_s, self._options.birth_s
        for member in list(self._crew.members):
            member.heard_at += absent
            member.begun_at += absent
            if self._ledger.in_flight(member.name):
                if now - member.heard_at > stall_s:
                    self._bury(member, f"no progress for {stall_s:g} s")
            elif member.alive and not member.ready and now - member.begun_at > birth_s:
                self._bury(member, f"the scorer was not made within {birth_s:g} s")

    def _end_idle(self) -> None:
        if not self._ledger.waiting:
            for member in list(self._crew.members):
                if not self._ledger.in_flight(member.name):
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
