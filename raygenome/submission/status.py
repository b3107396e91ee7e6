"""What is told of a job: how it stands, how far its run is, how it ended, how it goes on."""

import contextlib
import json
import re
import shlex
from dataclasses import dataclass, replace
from typing import Any

from ray.job_submission import JobDetails, JobStatus

from raygenome.errors import RaygenomeError
from raygenome.progress.bars import duration
from raygenome.storage import bucket
from raygenome.submission.client import Head
from raygenome.submission.command import ANEW

#: What a job that was stopped exits with: as a command that SIGTERM has ended.
STOPPED = 143
#: What the shell exits with where it finds no such program.
_NOT_FOUND = 127

#: What a log says while workers wait for a place, and a line of `progress.LineProgress`.
_WAITING = "no worker yet: "
_PROGRESS_LINE = re.compile(
    rf"^(?:{_WAITING}.+|.+: [\d,]+ of [\d,]+ \S+ \(.+ left.*)$", re.MULTILINE
)
_LEFT = re.compile(r", [^,]+ left(?=,|$)")
#: How every line begins that says why a command ended.
_CAUSE = "raygenome: "

#: What progress.json says of a run that is over.
_OVER = ("done", "failed", "stopped")


class JobDied(RaygenomeError):  # noqa: N818 - named as what has happened
    """A job ended and left no exit code, as where its node was lost; the line says why."""


@dataclass(frozen=True)
class JobState:
    """A job as it stands.

    Attributes:
        id: of the submission.
        state: pending, running, stopped, succeeded or failed.
        command: as it would be typed, less what the words of submit itself were.
        out: where its run goes, None where that is not known.
        started, ended: unix seconds, None where that is still to come.
        exit_code: of a job that has ended with one.
        progress: what OUT/progress.json says, where it is this job's and can be read from here.
        log_line: where it says nothing, the last line of the log that says how far the run is;
            where it says that nothing has moved, that it waits for workers.
        why: a job failed, where `progress` does not say it.
    """

    id: str
    state: str
    command: str
    out: str | None
    started: float | None
    ended: float | None
    exit_code: int | None
    progress: dict[str, Any] | None = None
    log_line: str | None = None
    why: str | None = None

    @property
    def over(self) -> bool:
        """Whether the job has ended."""
        return self.state in ("stopped", "succeeded", "failed")


def state_of(job: JobDetails) -> JobState:
    """Return a job as it stands, without a look at its run."""
    metadata = job.metadata or {}
    return JobState(
        id=job.submission_id or "",
        state=job.status.value.lower(),
        command=metadata.get("command") or job.entrypoint,
        out=metadata.get("out"),
        started=_seconds(job.start_time),
        ended=_seconds(job.end_time),
        exit_code=_code(job),
    )


def look(head: Head, job: str) -> JobState:
    """Return a job as it stands, and how far its run is."""
    found = head.job(job)
    state = state_of(found)
    progress = read_progress(state.out, job)
    untold = state.state == "failed" and not (progress and progress.get("error"))
    log = ""
    moves = _moves(progress)
    if untold or not moves:
        with contextlib.suppress(RaygenomeError):  # the node that has it may be gone
            log = head.logs(job)
    line = last_progress_line(log)
    waits = line is not None and line.startswith(_WAITING) and not (moves or state.over)
    if progress and not waits:
        line = None
    why = (last_cause(log) or death(found)) if untold else None
    return replace(state, progress=progress, log_line=line, why=why)


def _moves(progress: dict[str, Any] | None) -> bool:
    """Return whether a run is over, or has come further since its phase began."""
    return progress is not None and (progress["state"] in _OVER or progress["per_second"] > 0)


def read_progress(out: str | None, job: str) -> dict[str, Any] | None:
    """Return what OUT/progress.json says; None where it is not to be read, or of another job."""
    if out is None:
        return None
    try:
        found = json.loads(bucket.read_bytes(f"{out.rstrip('/')}/progress.json"))
    except (OSError, ValueError, RaygenomeError):
        return None
    return found if isinstance(found, dict) and found.get("job") == job else None


def last_progress_line(log: str) -> str | None:
    """Return the last line of a log that says how far a run is, or that it waits for workers."""
    lines = _PROGRESS_LINE.findall(log)
    return lines[-1].strip() if lines else None


def last_cause(log: str) -> str | None:
    """Return why a command says that it ended, by the last line of its log that does."""
    said = [line for line in log.splitlines() if line.startswith(_CAUSE)]
    return said[-1].removeprefix(_CAUSE).strip() if said else None


def exit_code(job: JobDetails) -> int:
    """Return the exit code of a job that has ended: its command's own, where it had one.

    Raises:
        JobDied: it has none.
    """
    code = _code(job)
    how = death(job)
    if code is None or how:
        raise JobDied(f"job {job.submission_id} {how}")
    return code


def death(job: JobDetails) -> str | None:
    """Return how a job ended before its command could say anything; None of any other."""
    code = _code(job)
    if code is None:
        said = (job.message or "Ray does not say why").strip().splitlines()
        return f"died without an exit code: {' '.join(said[-1].split())[:300]}"
    if code == _NOT_FOUND:
        return (
            f"exited with {code}: the cluster's head finds no raygenome; install it there, or "
            "start Ray with it on the PATH"
        )
    return None


def resume_line(state: JobState, address: str | None, *, insecure: bool = False) -> str | None:
    """Return what to type so that the run of a job goes on; None where raygenome did not send it.

    Args:
        state: of the job.
        address: of the cluster as it was typed; None where it was not.
        insecure: --insecure was typed.
    """
    program, *words = shlex.split(state.command)
    if program != "raygenome":
        return None
    words = [word for word in words if word not in _BEGINNINGS]
    where = ["--address", address] if address else []
    where += ["--insecure"] if insecure else []
    return shlex.join(["raygenome", "submit", "--resume", *where, "--", *words])


#: Words that a resumed command is without, or that submit adds by itself.
_BEGINNINGS = {*(f"--{name}" for name in ANEW.values()), "--resume", "--insecure"}


def describe(state: JobState) -> list[str]:
    """Return lines that say how far a job's run is, or how far it was when the job ended."""
    told = [describe_progress(state.progress, over=state.over)] if state.progress else []
    line = state.log_line
    if line and state.over and not line.startswith(_WAITING):
        line = f"was {_LEFT.sub('', line)}"
    return [*told, line] if line else told


def describe_progress(progress: dict[str, Any], *, over: bool = False) -> str:
    """Return progress.json as a line.

    Args:
        progress: what the file holds.
        over: the job has ended, whatever the file says: a run that was killed could not write it.

    >>> describe_progress({"state": "scoring", "unit": "variants", "done": 5, "total": 20,
    ...     "shards_done": 1, "shards": 4, "per_second": 2.5, "seconds_left": 6.0, "error": None})
    'scoring: 5 of 20 variants (25.0 %), 1 of 4 shards, 2.5 variants/s, 6.0 s left'
    """
    done, total, unit = progress["done"], progress["total"], progress["unit"]
    ended = progress["state"] in _OVER
    state = f"was {progress['state']}" if over and not ended else progress["state"]
    said = [f"{state}: {done:,} of {total:,} {unit} ({100 * done / max(total, 1):.1f} %)"]
    if progress.get("shards") is not None:
        said.append(f"{progress['shards_done']:,} of {progress['shards']:,} shards")
    said.append(f"{progress['per_second']:,.1f} {unit}/s")
    if progress.get("seconds_left") and not (over or ended):
        said.append(f"{duration(progress['seconds_left'])} left")
    if progress.get("error"):
        said.append(progress["error"])
    return ", ".join(said)


def _code(job: JobDetails) -> int | None:
    if job.status == JobStatus.SUCCEEDED:
        return 0
    if job.status == JobStatus.STOPPED:
        return STOPPED
    code = job.driver_exit_code
    return code if code is None or code >= 0 else 128 - code  # a signal's, as a shell has it


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000
