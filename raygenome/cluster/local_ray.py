"""A private Ray: started on this machine for one run, and ended with it.

It is closed to others (a random token guards it, nothing is written under HOME) and shows nothing
on the terminal.
"""

import logging
import os
import secrets
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ray

from raygenome.cluster.signals import kept_handler
from raygenome.errors import PartialFailure, UsageError

#: Scores never enter Ray's object store, so that it can be near the least that Ray accepts.
OBJECT_STORE_BYTES = 80 * 2**20


@contextmanager
def private_ray(workers: int, device: str) -> Iterator[None]:
    """Have a private Ray of `workers` CPU slots, and of this machine's GPUs for device cuda.

    Raises:
        UsageError: it finds no GPU.
        PartialFailure: it does not start.
    """
    if device == "cuda":
        _require_gpu()
    with _private_environment():
        _start(workers, device)
        try:
            yield
        finally:
            ray.shutdown()


def _start(workers: int, device: str) -> None:
    try:
        with kept_handler():
            ray.init(
                address="local",
                num_cpus=max(workers, 1),
                num_gpus=None if device == "cuda" else 0,
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except Exception as error:  # Ray raises bare ones where one of its processes does not come up
        ray.shutdown()
        reason = " ".join(str(error).split()) or repr(error)
        raise PartialFailure(
            f"Ray could not be started on this machine: {reason}; run again (with --resume if "
            "there is something to go on from), or without Ray by --workers 0"
        ) from error
    if device == "cuda" and not ray.cluster_resources().get("GPU"):
        ray.shutdown()
        raise UsageError("workers need a GPU and Ray finds none here; use --device cpu")


def _require_gpu() -> None:
    """Say that this machine has no GPU in less time than Ray takes to start.

    Raises:
        UsageError: it has none.
    """
    import torch

    if not torch.cuda.device_count():
        raise UsageError(
            "each worker is to have a GPU, or a share of one (--device cuda or --worker-gpus says "
            "so), and this machine has none; use --device cpu, and leave --worker-gpus out"
        )


@contextmanager
def kept_environment(*names: str) -> Iterator[None]:
    """Put back, at the block's end, what Ray sets in the environment, and the variables named."""
    kept = (*names, "RAY_USAGE_STATS_ENABLED", "PYTHONBREAKPOINT")  # Ray itself sets these two
    before = {name: os.environ.get(name) for name in kept}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _private_environment() -> Iterator[None]:
    """Set the variables of a private Ray within the block, and put back what was there.

    The token makes Ray (2.59 and later) guard the cluster without writing ~/.ray/auth_token.
    PYTHONPATH lets workers import what this process can, also from a checkout that is not
    installed; a runtime environment would do it too, but adds half a second to each actor.
    """
    try:
        with kept_environment("PYTHONPATH", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
            os.environ["PYTHONPATH"] = os.pathsep.join(import_paths())
            if os.environ.get("RAY_AUTH_MODE") in (None, "token"):
                os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
            forget_token()
            yield
    finally:
        forget_token()


def import_paths() -> list[str]:
    """Return what is on this process's import path beyond what every interpreter has there."""
    usual = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    paths = [Path(entry).absolute() for entry in sys.path]
    return [str(path) for path in paths if not any(path.is_relative_to(known) for known in usual)]


def forget_token() -> None:
    """Make Ray read its token anew, which it otherwise does once in the life of a process."""
    with suppress(AttributeError):
        raylet: Any = ray._raylet
        raylet.AuthenticationTokenLoader.instance().reset_cache()
