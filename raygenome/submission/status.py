"""How far a job is, how it ended, and how to continue its run.

All of it comes from Ray and from the run's progress.json; the job's log is shown, not interpreted.
"""

import contextlib
import json
import shlex
from dataclasses import dataclass, replace
from typing import Any

from ray.job_submission import JobDetails, JobStatus

from raygenome.errors import RaygenomeError
from raygenome.progress.bars import duration
from raygenome.storage import bucket
from raygenome.submission.client import RayJobsClient
from raygenome.submission.command import RESTART_FLAG

#: The exit code of a job that was stopped, as of a command that SIGTERM has ended.
STOPPED = 143
#: The shell's exit code if it finds no such program.
_NOT_FOUND = 127

#: The states in progress.json of a run that has ended.
_ENDED = ("done", "failed", "stopped")


class JobDied(RaygenomeError):  # noqa: N818 - named as what has happened
    """A job ended without an exit code, for example because its node was lost."""


@dataclass(frozen=True)
class JobState:
    """The state of a job.

    Attributes:
        id: of the submission.
        state: pending, running, stopped, succeeded or failed.
        command: as one would type it, without the options of submit itself.
        out: folder of its run, None if that is not known.
        started, ended: Unix seconds, None before that.
        exit_code: None until the job has ended, and if it ended without one.
        progress: content of OUT/progress.json, if the file is this job's and can be read from here.
        log_line: the last line of the log, if `progress` is None or the run has not moved yet.
        why: why the job failed, if `progress` does not say it.
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
    """Return the state of a job, without looking at its run."""
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


def look(client: RayJobsClient, job: str) -> JobState:
    """Return the state of a job, and the progress of its run."""
    found = client.job(job)
    state = state_of(found)
    progress = read_progress(state.out, job)
    explained = progress is not None and progress.get("error")
    why = failure_cause(found) if state.state == "failed" and not explained else None
    log_line = None
    if progress is None or not (state.over or progress["per_second"] > 0):
        with contextlib.suppress(RaygenomeError):  # the node with the log may be gone
            log_line = _last_line(client.logs(job))
    return replace(state, progress=progress, log_line=log_line, why=why)


def read_progress(out: str | None, job: str) -> dict[str, Any] | None:
    """Return OUT/progress.json; None if it cannot be read or belongs to another job."""
    if out is None:
        return None
    try:
        found = json.loads(bucket.read_bytes(f"{out.rstrip('/')}/progress.json"))
    except (OSError, ValueError, RaygenomeError):
        return None
    return found if isinstance(found, dict) and found.get("job") == job else None


def exit_code(job: JobDetails) -> int:
    """Return the exit code of a job that has ended: that of its command, if it had one.

    Raises:
        JobDied: it has none.
    """
    code = _code(job)
    if code is None or code == _NOT_FOUND:
        raise JobDied(f"job {job.submission_id} {failure_cause(job)}")
    return code


def failure_cause(job: JobDetails) -> str:
    """Return why a job failed, in one line.

    Ray keeps the end of a failed job's log in its message, even if the node with the log is lost.
    """
    code = _code(job)
    if code == _NOT_FOUND:
        return (
            f"exited with {code}: the cluster's head finds no raygenome; install it there, or "
            "start Ray with raygenome on the PATH"
        )
    line = _last_line(job.message or "") or "Ray gives no reason"
    return f"died without an exit code: {line}" if code is None else line


def _last_line(text: str) -> str | None:
    lines = [line for line in text.splitlines() if line.strip()]
    return " ".join(lines[-1].split())[:300] if lines else None


def resume_line(state: JobState, address: str | None, *, insecure: bool = False) -> str | None:
    """Return the command that continues the run of a job; None if raygenome did not submit it.

    Args:
        state: of the job.
        address: of the cluster as it was typed; None if it was not.
        insecure: --insecure was typed.
    """
    program, *words = shlex.split(state.command)
    if program != "raygenome":
        return None
    words = [word for word in words if word not in _DROPPED]
    where = ["--address", address] if address else []
    where += ["--insecure"] if insecure else []
    return shlex.join(["raygenome", "submit", "--resume", *where, "--", *words])


#: Options that contradict --resume, or that submit adds by itself.
_DROPPED = {*(f"--{name}" for name in RESTART_FLAG.values()), "--resume", "--insecure"}


def describe_progress(progress: dict[str, Any], *, over: bool = False) -> str:
    """Return progress.json as one line.

    Args:
        progress: what the file holds.
        over: the job has ended, whatever the file says: a run that was killed could not write it.

    >>> describe_progress({"state": "scoring", "unit": "variants", "done": 5, "total": 20,
    ...     "shards_done": 1, "shards": 4, "per_second": 2.5, "seconds_left": 6.0, "error": None})
    'scoring: 5 of 20 variants (25.0 %), 1 of 4 shards, 2.5 variants/s, 6.0 s left'
    """
    done, total, unit = progress["done"], progress["total"], progress["unit"]
    ended = progress["state"] in _ENDED
    state = f"was {progress['state']}" if over and not ended else progress["state"]
    parts = [f"{state}: {done:,} of {total:,} {unit} ({100 * done / max(total, 1):.1f} %)"]
    if progress.get("shards") is not None:
        parts.append(f"{progress['shards_done']:,} of {progress['shards']:,} shards")
    parts.append(f"{progress['per_second']:,.1f} {unit}/s")
    if progress.get("seconds_left") and not (over or ended):
        parts.append(f"{duration(progress['seconds_left'])} left")
    if progress.get("error"):
        parts.append(progress["error"])
    return ", ".join(parts)


def _code(job: JobDetails) -> int | None:
    if job.status == JobStatus.SUCCEEDED:
        return 0
    if job.status == JobStatus.STOPPED:
        return STOPPED
    code = job.driver_exit_code
    return code if code is None or code >= 0 else 128 - code  # of a signal, as a shell reports it


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000
