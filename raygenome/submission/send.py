"""Sending a command as a job: what travels, what it is told, what is kept of it."""

import secrets
import sys
import tempfile
from pathlib import Path

import raygenome
from raygenome.errors import UsageError
from raygenome.submission import command as commands
from raygenome.submission.address import on_this_machine
from raygenome.submission.client import Head
from raygenome.submission.command import Command

#: The variable by which a run knows the job that it is.
JOB_VARIABLE = "RAYGENOME_JOB"
#: Seconds from SIGTERM to SIGKILL when a job is stopped; Ray's own 3 are few for a shard's end.
_STOP_S = 60


def new_id(command: Command) -> str:
    """Return an id that no other job has."""
    return f"raygenome-{command.name}-{secrets.token_hex(4)}"


def check_id(job: str) -> str:
    """Return an id that can be part of a URL and of a file's name; raise UsageError if not."""
    if not job.isascii() or not job.replace("-", "").replace("_", "").replace(".", "").isalnum():
        raise UsageError(
            f"--id is {job!r}; use letters, digits, '.', '_' and '-', at least one of the first two"
        )
    return job


def send(head: Head, command: Command, job: str) -> None:
    """Submit a command that `command.settle` returned, under the id `job`.

    Raises:
        RaygenomeError: a file that travels cannot; the id is taken; the cluster refuses.
    """
    metadata = {"raygenome": raygenome.__version__, "command": command.line()}
    if command.out is not None:
        metadata["out"] = command.out
    bin_folder = str(Path(sys.executable).parent) if on_this_machine(head.url) else None
    with tempfile.TemporaryDirectory(prefix="raygenome-") as folder:
        sent = commands.pack(command, Path(folder))
        head.submit(
            commands.entrypoint(sent, bin_folder=bin_folder),
            job,
            {
                "working_dir": folder,
                "env_vars": {JOB_VARIABLE: job, "RAY_JOB_STOP_WAIT_TIME_S": str(_STOP_S)},
            },
            metadata,
        )
