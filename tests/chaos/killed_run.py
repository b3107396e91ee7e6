"""One scoring run that is killed and restarted until it is done, and the effect of each kill."""

import random
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from chaos.processes import Process, below, wait_for_end
from chaos.slow_scorer import LIFE, SECONDS, attempts, marks_of
from support.paths import python_environment

WORKERS = 2

#: Deaths of workers after which the pool may give up: `PoolOptions.max_attempts`,
#: `workers.MAX_FAILED_STARTS`.
PATIENCE = 3

#: The most seconds between the start of a victim, or the first receipt, and the kill.
SPREAD_S = 2.0

#: Seconds per shard; one of them for each run.
SHARD_S = (0.4, 1.2)

#: Seconds that one start of a run may take before it counts as hung.
DEADLINE_S = 300.0

#: Exit codes: PartialFailure; and Ray's C++, if it finds its head gone before the pool does.
PARTIAL, BY_RAY = 75, 1


@dataclass
class Kill:
    """One kill.

    Attributes:
        victim: driver, worker, raylet or gcs.
        run: number of the run.
        life: number of the start of the run that it hit.
        pid: of the victim.
        early: whether it could come before the first receipt of that life, or since the last kill.
        code: exit code of the command if the kill ended it, after so many `seconds`.
        redone: shards that were started again because of it.
    """

    victim: str
    run: int
    life: int
    pid: int
    early: bool
    code: int | None = None
    seconds: float = 0.0
    redone: int = 0

    @property
    def bound(self) -> int:
        """The most shards that may be started again because of it: one per worker that died.

        All workers die with any other victim.
        """
        return 1 if self.victim == "worker" else WORKERS


class KilledRun:
    """A run of `inputs` into `out`, through the kills of `victims`.

    Args:
        number: of the run.
        inputs: arguments of `score`.
        out: folder of the run.
        victims: whom to kill, in this order.
        chance: draws the times.
        calm_s: seconds of a run without delays and kills.
        early: share of the kills, except those of the driver, that may come before the first
            receipt of this life and since the previous kill. If a raylet or a GCS is lost so
            early, Ray itself waits for half a minute.

    Attributes:
        kills: those that were done.
        left: the victims that were not killed because the run was done before.
        wrong: the problems found.
        seconds: duration of the run.
    """

    def __init__(
        self,
        number: int,
        inputs: Sequence[str],
        out: Path,
        victims: Sequence[str],
        *,
        chance: random.Random,
        calm_s: float,
        early: float,
    ) -> None:
        self.out = out
        self.kills: list[Kill] = []
        self.left = list(victims)
        self.wrong: list[str] = []
        self.seconds = 0.0
        self._number = number
        self._command = command(inputs, out)
        self._chance = chance
        self._shard_s = chance.choice(SHARD_S)
        self._calm_s = calm_s
        self._early = early
        self._family: set[Process] = set()

    def through(self) -> "KilledRun":
        """Start it, and start it again after each kill that ended it, until it is done."""
        began = time.monotonic()
        try:
            for life in range(len(self.left) + 1):
                if self._live(life) == 0:
                    break
            else:
                self.wrong.append("it is not done, although nobody is left to kill")
        finally:
            for orphan in self._family:  # they end by themselves, in a minute at most
                orphan.kill()
            wait_for_end(self._family, 10)
        self._count_redone()
        self.seconds = time.monotonic() - began
        return self

    def _live(self, life: int) -> int:
        """Start the command, kill while victims are left, and return its exit code."""
        process = subprocess.Popen(
            self._command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**python_environment(), LIFE: str(life), SECONDS: str(self._shard_s)},
        )
        mine: list[Kill] = []
        struck_at = time.monotonic()
        while self.left and (not mine or mine[-1].victim == "worker"):
            early = self.left[0] == "driver" or self._chance.random() < self._early
            target = self._target(process, early=early)
            if target is None:
                break
            target.kill()
            struck_at = time.monotonic()
            mine.append(Kill(self.left.pop(0), self._number, life, target.pid, early))
        self.kills += mine
        if not self.left and mine and mine[-1].victim == "worker":
            self._hurry()
        try:
            _, errors = process.communicate(timeout=DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.wrong.append(f"life {life} hung after {mine}")
            process.kill()
            _, errors = process.communicate()
        if not self.left:  # not before: a run that has lost its Ray could finish without it
            self._hurry()
        if mine:
            mine[-1].code, mine[-1].seconds = process.returncode, time.monotonic() - struck_at
        self._judge(life, process.returncode, errors, mine)
        return process.returncode

    def _hurry(self) -> None:
        """Let the rest run at full speed, since no kills are left."""
        (marks_of(self.out) / "fast").touch()

    def _target(self, process: "subprocess.Popen[str]", *, early: bool) -> Process | None:
        """Return the next victim, a random time after its start; None if the run ends before.

        Unless it may be `early`, the first receipt must have come.
        """
        role, before = self.left[0], self._receipts()
        most_s = SPREAD_S + (self._calm_s if role == "driver" else 0.0)
        wait_s, seen_at = self._chance.uniform(0, most_s), None
        while process.poll() is None:
            family = below(process.pid)
            self._family.update(family)
            driver = Process.of(process.pid)
            found = [driver] if role == "driver" else [each for each in family if each.role == role]
            targets = [each for each in found if each is not None]
            now = time.monotonic()
            if seen_at is None and targets and (early or self._receipts() > before):
                seen_at = now
            if targets and seen_at is not None and now - seen_at >= wait_s:
                return self._chance.choice(targets)
            time.sleep(0.03)
        return None

    def _receipts(self) -> int:
        folder = self.out / ".work" / "receipts"
        return sum(1 for _ in folder.rglob("*.json")) if folder.exists() else 0

    def _judge(self, life: int, code: int, errors: str, kills: list[Kill]) -> None:
        """Record a problem if this start of the run did not end as it may after these kills."""
        victim = kills[-1].victim if kills else ""
        may = {"": {0}, "worker": {0}, "driver": {0, -9}}.get(victim, {0, PARTIAL, BY_RAY})
        if sum(kill.victim == "worker" for kill in kills) >= PATIENCE:
            may = may | {PARTIAL}
        if code not in may or "Traceback (most recent call last)" in errors:
            found = f"life {life} ended with {code} after {[kill.victim for kill in kills]}"
            self.wrong.append(f"{found}: {errors[-3000:]}")

    def _count_redone(self) -> None:
        """Find the kill that was the reason for each shard that was started again."""
        for shard, tries in attempts(self.out).items():
            for attempt in tries[:-1]:
                kills = [kill for kill in self.kills if kill.life == attempt.life]
                blamed = [kill for kill in kills if kill.pid == attempt.pid]
                blamed = blamed or [kill for kill in kills if kill.victim != "worker"]
                if blamed:
                    blamed[-1].redone += 1
                else:
                    self.wrong.append(f"shard {shard} started {len(tries)} times without a kill")
        for kill in self.kills:
            if kill.redone > kill.bound:
                self.wrong.append(f"more than {kill.bound} shards were started again after {kill}")


def command(inputs: Sequence[str], out: Path, workers: int = WORKERS) -> list[str]:
    """Return the command line of a slow run that resumes."""
    given = [*inputs, "--out", str(out), "--workers", str(workers), "--resume"]
    return [sys.executable, "-m", "chaos.slow_scorer", "score", *given]
