"""The actors of a pool, from birth to end, and the calls to them that are not yet answered."""

import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayError

from raygenome.cluster.health import Pulse
from raygenome.errors import PartialFailure
from raygenome.pool.actor import ScorerActor
from raygenome.pool.resources import Place, Waiting

#: Births that may fail in a row, with no actor alive, before the run is given up.
MAX_FAILED_BIRTHS = 3

#: Longest pause, in seconds, between a birth that failed and the next one.
MAX_PAUSE_S = 60.0


class Member:
    """What the driver knows of one actor.

    `alive` is whether its process has answered, `ready` whether its scorer is made. `heard_at` is
    the time of its last progress, `under_way` the position of the last shard that it began and
    the rows done in it. `shard_s` is how long its last shard took, `begun_at` when that which it
    is in was given or came first.
    """

    def __init__(self, name: int, handle: Any) -> None:
        self.name = name
        self.handle = handle
        self.alive = False
        self.ready = False
        self.beating = False
        self.beaten_at = self.heard_at = self.begun_at = time.monotonic()
        self.shard_s = math.inf
        self.under_way = (-1, 0)


class Call(NamedTuple):
    """What a pending answer is the answer to; only `score` has a position."""

    verb: str
    member: Member
    position: int = -1


def _remote_actor(place: Place) -> Any:
    """Return the actor class as Ray knows it; Ray retries nothing, since it blames nobody."""
    remote: Any = ray.remote
    options = {"max_restarts": 0, "max_task_retries": 0, "concurrency_groups": {"beat": 1}}
    return remote(**place._asdict(), **options)(ScorerActor)


class Crew:
    """The actors that there are, at most `workers`, ready or pending.

    Args:
        make_scorer: what each of them makes its scorer with.
        workers: how many there may be at a time.
        place: what each takes of a node.
        tags: of the metrics.
        pulse: of the cluster; while its head is silent it is asked neither for actors nor to kill
            any, since Ray would wait for the answer and at last end this process.
    """

    def __init__(
        self,
        make_scorer: Callable[[], Any],
        *,
        workers: int,
        place: Place,
        tags: Mapping[str, str],
        pulse: Pulse,
    ) -> None:
        self.members: list[Member] = []
        self.calls: dict[Any, Call] = {}
        self._remote_actor = _remote_actor(place)
        self._make_scorer = ray.cloudpickle.dumps(make_scorer)
        self._tags = dict(tags)
        self._workers = workers
        self._pulse = pulse
        self._doomed: list[Any] = []
        self._waiting = Waiting(place)
        self._born = 0
        self._failed_births = 0
        self._spawn_at = time.monotonic()

    @property
    def ready(self) -> int:
        """How many are ready."""
        return sum(member.ready for member in self.members)

    def spawn(self, waiting: int) -> None:
        """Ask for actors while there are shards waiting that no pending actor is there for.

        The first call to each is a beat: its answer says that there was a place for it.
        """
        if time.monotonic() < self._spawn_at:
            return
        pending = len(self.members) - self.ready
        wanted = min(self._workers - len(self.members), waiting - pending)
        if wanted <= 0 or not self._pulse.answers():
            return
        for _ in range(wanted):
            handle = self._remote_actor.remote(self._make_scorer, self._tags)
            member = Member(self._born, handle)
            self._born += 1
            self.members.append(member)
            self.beat(member, poll_s=0.0)
            self.calls[handle.ready.remote()] = Call("ready", member)

    def score(self, member: Member, position: int, shard: Any) -> None:
        """Hand a shard to an actor."""
        self.calls[member.handle.score.remote(position, shard)] = Call("score", member, position)

    def beat(self, member: Member, *, poll_s: float) -> None:
        """Ask an actor how far it is, unless that was done within `poll_s` or is unanswered."""
        now = time.monotonic()
        if not member.beating and now - member.beaten_at >= poll_s:
            member.beating, member.beaten_at = True, now
            self.calls[member.handle.beat.remote()] = Call("beat", member)

    def wait(self, timeout_s: float) -> list[Any]:
        """Return all answers that are in, after waiting up to `timeout_s` for the first."""
        refs = list(self.calls)
        if not refs:
            time.sleep(timeout_s)
            return []
        done, _ = ray.wait(refs, num_returns=1, timeout=timeout_s)
        return ray.wait(refs, num_returns=len(refs), timeout=0)[0] if done else []

    def wait_for(self, member: Member, timeout_s: float) -> list[Any]:
        """Return the answers of one actor that are in, after waiting up to `timeout_s` for all."""
        refs = [ref for ref, call in self.calls.items() if call.member is member]
        return ray.wait(refs, num_returns=len(refs), timeout=timeout_s)[0] if refs else []

    def welcome(self, member: Member) -> None:
        """Note that an actor is ready."""
        member.ready = True
        self._failed_births = 0

    def end(self, member: Member) -> None:
        """Kill an actor and forget its calls; a commit by rename is whole or has not happened.

        Where the head is silent, it is killed by a later `sweep`.
        """
        self.members.remove(member)
        self.calls = {ref: call for ref, call in self.calls.items() if call.member is not member}
        self._doomed.append(member.handle)
        self.sweep()

    def sweep(self) -> None:
        """Kill the actors that were ended, as far as the head is there to do it."""
        while self._doomed and self._pulse.answers():
            with suppress(RayError, RuntimeError):
                ray.kill(self._doomed.pop(), no_restart=True)

    def mourn(self, cause: str) -> None:
        """Count a birth that failed, and put off the next.

        Raises:
            PartialFailure: it was the last of MAX_FAILED_BIRTHS in a row, and none is alive.
        """
        self._failed_births += 1
        self._spawn_at = time.monotonic() + min(MAX_PAUSE_S, 0.25 * 2**self._failed_births)
        alive = any(member.ready for member in self.members)
        if not alive and self._failed_births >= MAX_FAILED_BIRTHS:
            raise PartialFailure(
                f"no worker could be started, {self._failed_births} failed in a row; the last: "
                f"{cause}; with --workers 0 the same runs in this process"
            )

    def complain(self) -> None:
        """Say in the log, now and then, that there is no actor yet; that asks the cluster."""
        if any(member.alive for member in self.members):
            self._waiting.over()
        else:
            self._waiting.complain()
