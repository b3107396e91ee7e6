"""The Jobs API of a Ray cluster's head; what may go wrong with it is told in one line."""

import asyncio
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp
import ray
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobSubmissionClient, JobType

from raygenome.cluster.auth import SET_TOKEN
from raygenome.errors import NoInput, StorageError, UsageError
from raygenome.submission.address import VARIABLES, check

_log = logging.getLogger(__name__)

#: Attempts at following a log whose connection breaks before anything new has come, and the
#: seconds between them.
_ATTEMPTS, _PAUSE_S = 5, 2.0
#: Seconds between looks at a job that is to end.
_LOOK_S = 0.5

#: How Ray's client words an answer other than 200.
_REFUSAL = re.compile(r"Request failed with status code (\d+): (.*)\.", re.DOTALL)


class Head:
    """The head of a cluster, as one that has been checked.

    Args:
        url: of its dashboard.
        insecure: accept one that asks for no token.

    Raises:
        UsageError: see `address.check`; or the token is refused.
    """

    def __init__(self, url: str, *, insecure: bool = False) -> None:
        check(url, insecure=insecure)
        self.url = url
        _hush()
        with self._told(), _without(VARIABLES):  # Ray would let them override what it is given
            self._client = JobSubmissionClient(
                url, verify=os.environ.get("REQUESTS_CA_BUNDLE") or True
            )
        there = getattr(self._client, "_server_ray_version", None)  # there is no public way to ask
        if there and there != ray.__version__:
            _log.warning(
                "the cluster at %s runs Ray %s and here is %s; a job runs with the cluster's",
                *(url, there, ray.__version__),
            )

    def submit(
        self, entrypoint: str, job: str, runtime_env: dict[str, Any], metadata: dict[str, str]
    ) -> None:
        """Send a job.

        Raises:
            UsageError: a job of that id exists.
        """
        if self._known(job):
            raise _exists(job, self.url)
        with self._told(job):
            self._client.submit_job(
                entrypoint=entrypoint,
                submission_id=job,
                runtime_env=runtime_env,
                metadata=metadata,
            )

    def job(self, job: str) -> JobDetails:
        """Return what Ray knows of a job.

        Raises:
            NoInput: there is no such job.
        """
        with self._told(job):
            found = self._client.get_job_info(job)
        if found.type is not JobType.SUBMISSION:
            raise _unknown(job, self.url)
        return found

    def jobs(self) -> list[JobDetails]:
        """Return the jobs that raygenome has sent, the newest first."""
        with self._told():
            found = self._client.list_jobs()
        ours = [job for job in found if "raygenome" in (job.metadata or {})]
        return sorted(ours, key=lambda job: job.start_time or 0, reverse=True)

    def logs(self, job: str) -> str:
        """Return the log of a job so far."""
        with self._told(job):
            return self._client.get_job_logs(job)

    def stop(self, job: str) -> bool:
        """Have SIGTERM sent to a job; return whether it was still to end."""
        with self._told(job):
            return self._client.stop_job(job)

    def wait(self, job: str) -> JobDetails:
        """Return a job when it has ended."""
        while not (found := self.job(job)).status.is_terminal():
            time.sleep(_LOOK_S)
        return found

    def follow(self, job: str, write: Callable[[str], object]) -> JobDetails:
        """Write the log of a job as it comes; return the job when it has ended.

        A connection that breaks, as through a proxy that has had enough, is made again.

        Raises:
            StorageError: it breaks again and again.
        """
        self.job(job)
        shown = failed = 0
        while True:
            before = shown
            try:
                for text in self._tail(job, shown):
                    write(text)
                    shown += len(text)
            except (OSError, RuntimeError, aiohttp.ClientError) as error:
                _log.debug("following %s: %s", job, error)
            found = self.job(job)
            if found.status.is_terminal():
                return found
            failed = 0 if shown > before else failed + 1
            if failed == _ATTEMPTS:
                raise StorageError(
                    f"the log of {job} cannot be followed from {self.url}; the job goes on: "
                    f"look again with `raygenome jobs logs {job} --follow`"
                )
            time.sleep(_PAUSE_S)

    def _tail(self, job: str, skip: int) -> Iterator[str]:
        """Yield the log of a job beyond its first `skip` characters, until the other end closes."""
        with asyncio.Runner() as runner:
            pieces = self._client.tail_job_logs(job)
            while True:
                text = runner.run(_next(pieces))
                if text is None:
                    return
                if skip < len(text):
                    yield text[skip:]
                skip = max(skip - len(text), 0)

    def _known(self, job: str) -> bool:
        try:
            self.job(job)
        except NoInput:
            return False
        return True

    @contextmanager
    def _told(self, job: str = "") -> Iterator[None]:
        """Turn Ray's ways of failing into lines, where the user can mend the cause."""
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
            status, said = int(refusal[1]), refusal[2].strip().splitlines() or [""]
            if status == 404 and job:
                raise _unknown(job, self.url) from None
            if "already exists" in said[-1]:
                raise _exists(job, self.url) from None
            raise StorageError(
                f"the Ray cluster at {self.url} answers with status {status}: {said[-1]}; "
                "see the dashboard's log there, or try again"
            ) from error
        except OSError as error:  # ConnectionError, and all of requests' own
            raise StorageError(
                f"the Ray cluster at {self.url} does not answer any more "
                f"({' '.join(str(error).split())[:200]}); try again"
            ) from error


def _unknown(job: str, url: str) -> NoInput:
    return NoInput(f"there is no job {job!r} at {url}; `raygenome jobs list` says which there are")


def _exists(job: str, url: str) -> UsageError:
    return UsageError(
        f"there is a job {job!r} at {url} already; give another --id, or leave it out"
    )


async def _next(pieces: Any) -> str | None:
    return await anext(pieces, None)


def _hush() -> None:
    """Keep what Ray says of each upload and connection off the terminal."""
    talkers = ("dashboard.modules.dashboard_sdk", "dashboard.modules.job.sdk")
    for name in (*talkers, "_private.runtime_env.packaging"):
        logging.getLogger(f"ray.{name}").setLevel(logging.WARNING)


@contextmanager
def _without(names: tuple[str, ...]) -> Iterator[None]:
    """Take variables out of the environment within the block."""
    before = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(before)
