"""The Jobs API of a Ray cluster; each of its errors becomes one line for the user."""

import logging
import os
import re
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobSubmissionClient, JobType

import raygenome
from raygenome.cluster.address import DASHBOARD_VARIABLES
from raygenome.cluster.auth import SET_TOKEN
from raygenome.errors import NoInput, StorageError, UsageError
from raygenome.submission.command import Command, entrypoint, pack
from raygenome.submission.protection import check_dashboard, on_this_machine

_log = logging.getLogger(__name__)

#: The environment variable that tells a run the id of its job.
JOB_VARIABLE = "RAYGENOME_JOB"
#: Seconds from SIGTERM to SIGKILL when a job is stopped; Ray's own 3 are too few to end a shard.
_STOP_S = 60
#: Seconds between two looks at a job.
_POLL_S = 0.5
#: `follow` reads the whole log each time; it reads no more bytes per second than this.
_LOG_BYTES_PER_S = 2e6
#: `follow` gives up after so many failures in a row, with so many seconds between them.
_ATTEMPTS, _PAUSE_S = 5, 2.0

#: The text of the client's error for an answer other than 200.
_REFUSAL = re.compile(r"Request failed with status code (\d+): (.*)\.", re.DOTALL)


class RayJobsClient:
    """Ray's client of one cluster, which has been checked first.

    Args:
        url: of the cluster's dashboard.
        insecure: accept a cluster that requires no token.

    Raises:
        UsageError: as `check_dashboard`; or the token is refused.
    """

    def __init__(self, url: str, *, insecure: bool = False) -> None:
        check_dashboard(url, insecure=insecure)
        self.url = url
        _silence_ray()
        with self._translated_errors(), _without_variables(DASHBOARD_VARIABLES):
            self._client = JobSubmissionClient(
                url, verify=os.environ.get("REQUESTS_CA_BUNDLE") or True
            )
        there = getattr(self._client, "_server_ray_version", None)  # there is no public way to ask
        if there and there != ray.__version__:
            _log.warning(
                "the cluster at %s runs Ray %s and this machine has %s; a job uses the cluster's",
                *(url, there, ray.__version__),
            )

    def submit(
        self, entrypoint: str, job: str, runtime_env: dict[str, Any], metadata: dict[str, str]
    ) -> None:
        """Submit a job.

        Raises:
            UsageError: a job with this id exists.
        """
        if self._exists(job):
            raise _taken(job, self.url)
        with self._translated_errors(job):
            self._client.submit_job(
                entrypoint=entrypoint,
                submission_id=job,
                runtime_env=runtime_env,
                metadata=metadata,
            )

    def submit_command(self, command: Command, job: str) -> None:
        """Submit a command that `command.prepare` returned, as the job `job`.

        Raises:
            RaygenomeError: a file cannot be uploaded, the id is taken, or the cluster refuses.
        """
        metadata = {"raygenome": raygenome.__version__, "command": command.line()}
        if command.out is not None:
            metadata["out"] = command.out
        bin_folder = str(Path(sys.executable).parent) if on_this_machine(self.url) else None
        variables = {JOB_VARIABLE: job, "RAY_JOB_STOP_WAIT_TIME_S": str(_STOP_S)}
        with tempfile.TemporaryDirectory(prefix="raygenome-") as folder:
            line = entrypoint(pack(command, Path(folder)), bin_folder=bin_folder)
            self.submit(line, job, {"working_dir": folder, "env_vars": variables}, metadata)

    def job(self, job: str) -> JobDetails:
        """Return Ray's details of a job.

        Raises:
            NoInput: there is no such job.
        """
        with self._translated_errors(job):
            found = self._client.get_job_info(job)
        if found.type is not JobType.SUBMISSION:
            raise _unknown(job, self.url)
        return found

    def jobs(self) -> list[JobDetails]:
        """Return the jobs that raygenome has submitted, the newest first."""
        with self._translated_errors():
            found = self._client.list_jobs()
        ours = [job for job in found if "raygenome" in (job.metadata or {})]
        return sorted(ours, key=lambda job: job.start_time or 0, reverse=True)

    def logs(self, job: str) -> str:
        """Return the log of a job so far."""
        with self._translated_errors(job):
            return self._client.get_job_logs(job)

    def stop(self, job: str) -> bool:
        """Ask Ray to send SIGTERM to a job; return whether the job was still running."""
        with self._translated_errors(job):
            return self._client.stop_job(job)

    def wait(self, job: str) -> JobDetails:
        """Return a job when it has ended."""
        while not (found := self.job(job)).status.is_terminal():
            time.sleep(_POLL_S)
        return found

    def follow(self, job: str, write: Callable[[str], object]) -> JobDetails:
        """Write the log of a job as it grows; return the job when it has ended.

        Raises:
            StorageError: the cluster does not answer several times in a row.
        """
        found = self.job(job)
        shown = failures = 0
        while True:
            try:
                found = self.job(job)  # before its log, so that the log of an ended job is complete
                text = self.logs(job)
            except StorageError as error:
                _log.debug("following %s: %s", job, error)
                failures += 1
                if failures < _ATTEMPTS:
                    time.sleep(_PAUSE_S)
                    continue
                if found.status.is_terminal():  # the node with its log is lost
                    return found
                raise StorageError(
                    f"the log of {job} cannot be read from {self.url}; the job goes on",
                    f"look again with `raygenome jobs logs {job} --follow`",
                ) from error
            failures = 0
            write(text[shown:])
            shown = len(text)
            if found.status.is_terminal():
                return found
            time.sleep(_POLL_S + len(text) / _LOG_BYTES_PER_S)

    def _exists(self, job: str) -> bool:
        try:
            self.job(job)
        except NoInput:
            return False
        return True

    @contextmanager
    def _translated_errors(self, job: str = "") -> Iterator[None]:
        """Turn Ray's errors into one line each, if the user can fix the problem."""
        try:
            yield
        except AuthenticationError:
            raise UsageError(
                f"the Ray cluster at {self.url} refuses the token that is set here (403)",
                SET_TOKEN,
            ) from None
        except RuntimeError as error:
            refusal = _REFUSAL.fullmatch(str(error).strip())
            if refusal is None:
                raise
            status, message = int(refusal[1]), refusal[2].strip().splitlines() or [""]
            if status == 404 and job:
                raise _unknown(job, self.url) from None
            if "already exists" in message[-1]:
                raise _taken(job, self.url) from None
            raise StorageError(
                f"the Ray cluster at {self.url} answers with status {status}: {message[-1]}",
                "see the log of its dashboard, or try again",
            ) from error
        except OSError as error:  # ConnectionError, and all errors of requests
            raise StorageError(
                f"the Ray cluster at {self.url} does not answer any more "
                f"({' '.join(str(error).split())[:200]})",
                "try again",
            ) from error


def new_id(command: Command) -> str:
    """Return an id that no other job has."""
    return f"raygenome-{command.name}-{secrets.token_hex(4)}"


def check_id(job: str) -> str:
    """Return an id that can be part of a URL and of a file's name; raise UsageError if not."""
    if not job.isascii() or not job.replace("-", "").replace("_", "").replace(".", "").isalnum():
        raise UsageError(
            f"--id is {job!r}",
            "use letters, digits, '.', '_' and '-', with at least one letter or digit",
        )
    return job


def _unknown(job: str, url: str) -> NoInput:
    return NoInput(f"there is no job {job!r} at {url}", "`raygenome jobs list` lists the jobs")


def _taken(job: str, url: str) -> UsageError:
    return UsageError(
        f"there is already a job {job!r} at {url}", "give another --id, or leave it out"
    )


def _silence_ray() -> None:
    """Hide Ray's log messages about each upload and connection."""
    loggers = ("dashboard.modules.dashboard_sdk", "dashboard.modules.job.sdk")
    for name in (*loggers, "_private.runtime_env.packaging"):
        logging.getLogger(f"ray.{name}").setLevel(logging.WARNING)


@contextmanager
def _without_variables(names: tuple[str, ...]) -> Iterator[None]:
    """Remove variables from the environment within the block; Ray prefers them to its argument."""
    before = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(before)
