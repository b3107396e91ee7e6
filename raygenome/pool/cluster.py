"""Where Ray comes from: a private one started on this machine, or a cluster that is already there.

A private Ray is closed to others (a random token guards it, nothing is written under HOME), shows
nothing on the terminal and ends with the block that started it. Of a cluster that was there
before, only the connection ends.
"""

import logging
import os
import secrets
import socket
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ray

from raygenome.errors import UsageError
from raygenome.pool.sigterm import kept_handler

#: Scores never enter Ray's object store, so that it can be near the least that Ray accepts.
OBJECT_STORE_BYTES = 80 * 2**20

#: How long the head of a cluster may take to answer a connection. Ray itself would try for many
#: minutes, and fill the terminal meanwhile.
CONNECT_S = 10.0


@contextmanager
def connected(*, workers: int, device: str, address: str | None = None) -> Iterator[None]:
    """Have Ray ready within the block: as it is where it is running, else connected or started.

    Args:
        workers: CPU slots of a private Ray.
        device: "cuda" lets a private Ray find the GPUs of this machine; "cpu" hides them.
        address: HOST:PORT of a cluster's head, "auto" for one on this machine, "local" for a
            private Ray; None means RAY_ADDRESS where that is set, and otherwise "local".

    Raises:
        UsageError: nothing that answers is at the address, or a private Ray finds no GPU.
    """
    if ray.is_initialized():
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    with _quiet():
        if address == "local":
            with _private_environment():
                _start(workers, device)
                try:
                    yield
                finally:
                    ray.shutdown()
        else:
            _connect(address)
            try:
                yield
            finally:
                ray.shutdown()


def _start(workers: int, device: str) -> None:
    """Start a private Ray."""
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
    if device == "cuda" and not ray.cluster_resources().get("GPU"):
        ray.shutdown()
        raise UsageError("device cuda needs a GPU and Ray finds none here; use --device cpu")


def _connect(address: str) -> None:
    """Connect to the cluster at `address`, and turn Ray's ways of failing into one line."""
    if address != "auto":
        _require_head(address)
    try:
        with kept_handler():
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except ConnectionError:
        raise UsageError(
            f"no Ray cluster answers at address {address}; start one with `ray start --head`, give "
            "the HOST:PORT of its head, or leave --address out to use this machine alone"
        ) from None
    except (ray.exceptions.RayError, RuntimeError, ValueError) as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), repr(error))
        raise UsageError(f"cannot join the Ray cluster at address {address}: {reason}") from error


def _require_head(address: str) -> None:
    """Raise a UsageError unless a gRPC server, as a head is, answers at `address` (HOST:PORT)."""
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not (port.isascii() and port.isdigit()):
        raise UsageError(
            f"address {address!r} is not one of a Ray head; give HOST:PORT (port 6379 unless "
            "changed), auto, or leave --address out to use this machine alone"
        )
    try:
        with socket.create_connection((host.strip("[]"), int(port)), CONNECT_S) as channel:
            if os.environ.get("RAY_USE_TLS", "0") in ("", "0"):
                answer = _http2_greeting(channel)
            else:
                answer = True
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"no Ray cluster answers at address {address} ({error}); check that it is running and "
            "reachable from here, or leave --address out to use this machine alone"
        ) from None
    if not answer:
        raise UsageError(
            f"what answers at address {address} is not a Ray head; give the head's own port (6379 "
            "unless it was changed), not the one of its dashboard"
        )


def _http2_greeting(channel: socket.socket) -> bool:
    """Return whether the other end greets with an HTTP/2 SETTINGS frame (RFC 9113, section 3.4)."""
    settings = 4
    channel.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, settings, 0, 0, 0, 0, 0]))
    head = channel.recv(9, socket.MSG_WAITALL)
    return len(head) == 9 and head[3] == settings


@contextmanager
def _private_environment() -> Iterator[None]:
    """Set the variables of a private Ray within the block, and put back what was there.

    The token makes Ray (2.59 and later) guard the cluster without writing ~/.ray/auth_token.
    PYTHONPATH lets workers import what this process can, also from a checkout that is not
    installed; a runtime environment would do it too, but adds half a second to each actor.
    """
    names = ("PYTHONPATH", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_USAGE_STATS_ENABLED")
    before = {name: os.environ.get(name) for name in names}
    os.environ["PYTHONPATH"] = os.pathsep.join(_import_paths())
    if before["RAY_AUTH_MODE"] in (None, "token"):
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    _forget_token()
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        _forget_token()


def _import_paths() -> list[str]:
    """Return what is on this process's import path beyond what every interpreter has there."""
    usual = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    paths = [Path(entry).absolute() for entry in sys.path]
    return [str(path) for path in paths if not any(path.is_relative_to(known) for known in usual)]


def _forget_token() -> None:
    """Make Ray read its token anew, which it otherwise does once in the life of a process."""
    with suppress(AttributeError):
        raylet: Any = ray._raylet
        raylet.AuthenticationTokenLoader.instance().reset_cache()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Ray's notices of dead workers off stdout; log_to_driver=False does not.

    The pool tells of each death itself. There is no public switch; where a version of Ray has no
    such variable, the notices are seen again and nothing else changes.
    """
    from ray._private import worker

    before = getattr(worker, "_worker_logs_enabled", True)
    worker._worker_logs_enabled = False
    try:
        yield
    finally:
        worker._worker_logs_enabled = before
