"""Connecting to Ray: a private Ray that is started on this machine, or an existing cluster.

An existing cluster is left as it was; only the connection ends with the block that made it. Anyone
who can reach a cluster without a token can run any program on it, and read and change what a run
reads and writes. So a cluster without a token is joined only if it is limited to this machine.
"""

import logging
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
        dashboard: HOST:PORT of its dashboard, if it has one.
    """

    nodes: int
    cpus: int
    gpus: int
    dashboard: str | None


@contextmanager
def connected(*, workers: int, device: str) -> Iterator[bool]:
    """Use the Ray that this process is connected to, or start a private one within the block.

    Which cluster a command uses is decided once, by `resources.joined_machines`, which joins it.
    So RAY_ADDRESS has no effect here. Yields whether Ray is private.

    Args:
        workers: CPU slots of a private Ray.
        device: "cuda" lets a private Ray find the GPUs of this machine; "cpu" hides them.

    Raises:
        UsageError: a private Ray finds no GPU.
    """
    if ray.is_initialized():
        yield False
    else:
        with _quiet(), private_ray(workers, device):
            yield True


@contextmanager
def joined(address: str, *, insecure: bool = False) -> Iterator[Cluster]:
    """Make this process a driver of the cluster at `address` within the block.

    Args:
        address: HOST:PORT of a cluster's head, or "auto" for one on this machine.
        insecure: join even if no token protects it.

    Raises:
        UsageError: nothing answers at the address, the cluster requires another token, or anyone
            may use it.
    """
    if address != "auto":
        require_head(address)
        auth.require_protected(_host(address), insecure=insecure)
        require_entry(address)
    with _quiet():
        dashboard = _connect(address)
        try:
            if not insecure:
                _require_protected_dashboard(dashboard)
                _require_protected_nodes(_hosts())
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
    """Connect to the cluster at `address`, and return the address of its dashboard.

    Raises:
        UsageError: it cannot be joined; each of Ray's many errors becomes one line.
    """
    try:
        with kept_handler(), kept_environment():
            context = ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except ConnectionError:
        raise UsageError(
            f"no Ray cluster answers at address {address}",
            "start one with `ray start --head`, give the HOST:PORT of its head, or leave --address "
            "out to use only this machine",
        ) from None
    except (ray.exceptions.RayError, RuntimeError, ValueError) as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), repr(error))
        raise UsageError(f"cannot join the Ray cluster at address {address}: {reason}") from error
    return context.dashboard_url or None


def _require_protected_dashboard(dashboard: str | None) -> None:
    """Refuse a cluster that other machines may use without a token.

    A token in this environment says nothing about the head: a head that was started without token
    authentication requires it from nobody. The dashboard, which is part of the head and protected
    in the same way, is asked.

    Raises:
        UsageError: the dashboard listens for other machines and answers without a token.
    """
    if not dashboard:
        return
    url = dashboard if "://" in dashboard else f"http://{dashboard}"
    host = urllib.parse.urlsplit(url).hostname or ""
    if not auth.is_loopback(host) and auth.requires_token(url) is False:
        raise UsageError(
            f"the Ray cluster with the dashboard {dashboard} accepts jobs from anyone who can "
            "reach it",
            "start it with RAY_AUTH_MODE=token, or accept this with --insecure",
        )


def _require_protected_nodes(hosts: Iterable[str]) -> None:
    """Refuse a cluster that is open to the network at other ports than its dashboard's.

    Even if the dashboard is on the loopback interface, or there is none, anyone who can reach the
    head's port can run any program. A head that answers on the loopback interface, or is found by
    "auto", usually listens on all interfaces; its nodes report their addresses.

    Args:
        hosts: the addresses that the cluster's head and nodes report.

    Raises:
        UsageError: one is not on the loopback interface, and no token is used.
    """
    beyond = next((host for host in hosts if not auth.is_loopback(host)), None)
    if beyond is not None and not auth.has_token():
        raise UsageError(
            f"the Ray cluster listens on the network, at {beyond}, and no token protects it: "
            "anyone who can reach it can run programs on it",
            "start it with `RAY_AUTH_MODE=token ray start --head` and set RAY_AUTH_MODE=token here "
            "too, or type --insecure",
        )


def _hosts() -> list[str]:
    """Return the addresses that the head and the nodes of the joined cluster report."""
    nodes = [node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]]
    return [_host(ray.get_runtime_context().gcs_address), *nodes]


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide Ray's notices of dead workers, which log_to_driver=False does not hide.

    The pool logs each death itself. Ray has no public setting for this; in a version of Ray
    without this variable the notices are shown again and nothing else changes.
    """
    from ray._private import worker

    before = getattr(worker, "_worker_logs_enabled", True)
    worker._worker_logs_enabled = False
    try:
        yield
    finally:
        worker._worker_logs_enabled = before
