"""A private Ray: started on this machine for one run, and ended with it.

A random token keeps others out of it, it writes nothing under HOME, and it prints nothing.
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

#: Scores never enter Ray's object store, so that it can be about as small as Ray allows.
OBJECT_STORE_BYTES = 80 * 2**20


@contextmanager
def private_ray(workers: int, device: str) -> Iterator[None]:
    """Run a private Ray with `workers` CPU slots; for device cuda also with this machine's GPUs.

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
    except Exception as error:  # Ray raises Exception itself if one of its processes does not start
        ray.shutdown()
        reason = " ".join(str(error).split()) or repr(error)
        raise PartialFailure(
            f"Ray could not be started on this machine: {reason}",
            "run again (with --resume if the run was started), or without Ray by --workers 0",
        ) from error
    if device == "cuda" and not ray.cluster_resources().get("GPU"):
        ray.shutdown()
        raise UsageError("the workers need a GPU and Ray finds none here", "use --device cpu")


def _require_gpu() -> None:
    """Refuse a machine without a GPU before Ray takes seconds to start.

    Raises:
        UsageError: it has none.
    """
    import torch

    if not torch.cuda.device_count():
        raise UsageError(
            "each worker needs a GPU, or a share of one (because of --device cuda or "
            "--worker-gpus), and this machine has none",
            "use --device cpu, and leave --worker-gpus out",
        )


@contextmanager
def kept_environment(*names: str) -> Iterator[None]:
    """Restore the variables `names`, and those that Ray itself sets, at the end of the block."""
    kept = (*names, "RAY_USAGE_STATS_ENABLED", "PYTHONBREAKPOINT")  # Ray sets these two
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
    """Set the variables of a private Ray within the block, and restore them at its end.

    With the token, Ray (2.59 and later) protects the cluster without writing ~/.ray/auth_token.
    PYTHONPATH lets workers import what this process can, also from a checkout that is not
    installed; a runtime environment would do this too, but adds half a second per actor.
    """
    try:
        with kept_environment("PYTHONPATH", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
            os.environ["PYTHONPATH"] = os.pathsep.join(import_paths())
            if os.environ.get("RAY_AUTH_MODE") in (None, "token"):
                os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
            forget_auth()
            yield
    finally:
        forget_auth()


def import_paths() -> list[str]:
    """Return the entries of this process's import path that other interpreters do not have."""
    usual = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    paths = [Path(entry).absolute() for entry in sys.path]
    return [str(path) for path in paths if not any(path.is_relative_to(known) for known in usual)]


def forget_auth() -> None:
    """Make Ray read the authentication mode and the token again; it reads both only once."""
    raylet: Any = ray._raylet
    with suppress(AttributeError):
        raylet.Config.initialize("")
        raylet.AuthenticationTokenLoader.instance().reset_cache()
