"""Where Ray comes from: a private one started on this machine, or a cluster that is already there.

Of a cluster that was there before, only the connection ends with the block that made it. Whoever
can reach a cluster without a token can run any program on it, and read and change what a run
reads and writes: such a one is joined only where it is this machine's own.
"""

import logging
import os
import urllib.parse
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import ray

from raygenome.cluster import auth
from raygenome.cluster.local_ray import kept_environment, private_ray
from raygenome.cluster.probe import require_entry, require_head
from raygenome.cluster.signals import kept_handler
from raygenome.errors import UsageError


@dataclass(frozen=True)
class Cluster:
    """What a cluster had when it was joined; an autoscaler may add to it.

    Args:
        nodes: how many are alive.
        cpus: of all nodes.
        gpus: of all nodes.
        dashboard: where its dashboard is, HOST:PORT, if it has one.
    """

    nodes: int
    cpus: int
    gpus: int
    dashboard: str | None


def find_address(address: str | None) -> str | None:
    """Return the cluster that a run would join: `address`, or else what RAY_ADDRESS says.

    None means a private Ray, which is also what "local" asks for.
    """
    found = address or os.environ.get("RAY_ADDRESS") or "local"
    return None if found == "local" else found


@contextmanager
def connected(
    *, workers: int, device: str, address: str | None = None, insecure: bool = False
) -> Iterator[bool]:
    """Have Ray ready within the block: as it is where it is running, else joined or started.

    Yields whether it is a private Ray that this block started and ends.

    Args:
        workers: CPU slots of a private Ray.
        device: "cuda" lets a private Ray find the GPUs of this machine; "cpu" hides them.
        address: HOST:PORT of a cluster's head, "auto" for one on this machine, "local" for a
            private Ray; None means RAY_ADDRESS where that is set, and otherwise "local".
        insecure: join even where no token keeps others from the cluster.

    Raises:
        UsageError: nothing that answers is at the address, anyone may use what is there, or a
            private Ray finds no GPU.
    """
    if ray.is_initialized():
        yield False
    elif there := find_address(address):
        with joined(there, insecure=insecure):
            yield False
    else:
        with _quiet(), private_ray(workers, device):
            yield True


@contextmanager
def joined(address: str, *, insecure: bool = False) -> Iterator[Cluster]:
    """Have this process be a driver of the cluster at `address` within the block.

    Args:
        address: HOST:PORT of a cluster's head, or "auto" for one on this machine.
        insecure: join even where no token keeps others from the cluster.

    Raises:
        UsageError: nothing that answers is at the address, it asks for another token, or anyone
            may use what is there.
    """
    if address != "auto":
        require_head(address)
        auth.require_guarded(_host(address), insecure=insecure)
        require_entry(address)
    with _quiet():
        dashboard = _connect(address)
        try:
            if not insecure:
                _require_guarded_head(dashboard)
                _require_guarded_nodes(_hosts())
            resources = ray.cluster_resources()
            yield Cluster(
                nodes=sum(node["Alive"] for node in ray.nodes()),
                cpus=int(resources.get("CPU", 0)),
                gpus=int(resources.get("GPU", 0)),
                dashboard=dashboard,
            )
        finally:
            ray.shutdown()


def _host(address: str) -> str:
    """Return the host of HOST:PORT, an IPv6 address without its brackets."""
    return address.rpartition(":")[0].strip("[]")


def _connect(address: str) -> str | None:
    """Connect to the cluster at `address`, and return where its dashboard is.

    Raises:
        UsageError: it cannot be joined; Ray's many ways of failing become one line.
    """
    try:
        with kept_handler(), kept_environment():
            context = ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except ConnectionError:
        raise UsageError(
            f"no Ray cluster answers at address {address}; start one with `ray start --head`, give "
            "the HOST:PORT of its head, or leave --address out to use this machine alone"
        ) from None
    except (ray.exceptions.RayError, RuntimeError, ValueError) as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), repr(error))
        raise UsageError(f"cannot join the Ray cluster at address {address}: {reason}") from error
    return context.dashboard_url or None


def _require_guarded_head(dashboard: str | None) -> None:
    """Refuse a cluster that others than its own machine may use without a token.

    Having a token here says nothing of the head: one that was started without asks nobody for it.
    The head is asked through its dashboard, which is part of it and guarded as it is.

    Raises:
        UsageError: the dashboard listens for other machines and answers without a token.
    """
    if not dashboard:
        return
    url = dashboard if "://" in dashboard else f"http://{dashboard}"
    host = urllib.parse.urlsplit(url).hostname or ""
    if not auth.is_loopback(host) and auth.asks_for_token(url) is False:
        raise UsageError(
            f"the Ray cluster whose dashboard is at {dashboard} takes jobs from anybody who can "
            "reach it; start it with RAY_AUTH_MODE=token, or join it as it is with --insecure"
        )


def _require_guarded_nodes(hosts: Iterable[str]) -> None:
    """Refuse a cluster that is open to the network by other ports than its dashboard's.

    The dashboard may be on the loopback interface, or there may be none, and whoever reaches the
    head's port can run any program all the same. A head that answers on the loopback interface, or
    is found by "auto", mostly listens on all interfaces; its nodes say where they are.

    Args:
        hosts: where the cluster's head and nodes say they are.

    Raises:
        UsageError: one is not on the loopback interface, and no token is in use.
    """
    beyond = next((host for host in hosts if not auth.is_loopback(host)), None)
    if beyond is not None and not auth.has_token():
        raise UsageError(
            f"the Ray cluster listens on the network, at {beyond}, and no token guards it: whoever "
            "reaches it can run programs on it; start it by `RAY_AUTH_MODE=token ray start --head` "
            "and set RAY_AUTH_MODE=token here too, or type --insecure"
        )


def _hosts() -> list[str]:
    """Return where the head and the nodes of the joined cluster say they are."""
    nodes = [node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]]
    return [_host(ray.get_runtime_context().gcs_address), *nodes]


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
