"""The resources that each worker takes of a Ray node, and the processor that it would run on."""

import logging
import time
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayError

import raygenome
from raygenome.cluster.hardware import WorkerFacts, worker_facts
from raygenome.cluster.health import ClusterHealth
from raygenome.cluster.signals import HeldSigterm
from raygenome.errors import UsageError
from raygenome.pool.actor import one_line

#: Seconds without a free place after which the log says what workers wait for, and repeats it.
NOTICE_S = 30.0

#: How often a wait is interrupted to look for a signal.
_POLL_S = 0.5

_log = logging.getLogger(__name__)


class ActorResources(NamedTuple):
    """The resources that a worker takes of a node, in Ray's terms; workers can share a GPU."""

    num_gpus: float
    num_cpus: float


def resources_for(device: str, worker_gpus: float | None = None) -> ActorResources:
    """Return the resources of a worker: a GPU or a share of one, or else a core.

    Args:
        device: "cpu" or "cuda".
        worker_gpus: GPUs per worker; None is 1 for cuda and 0 for cpu.

    Raises:
        UsageError: Ray cannot give such a share, or the device is cuda and the share is 0.
    """
    gpus = float(device == "cuda") if worker_gpus is None else float(worker_gpus)
    if gpus < 0 or (gpus > 1 and gpus % 1) or (device == "cuda" and not gpus):
        least = "more than 0" if device == "cuda" else "0 or more"
        raise UsageError(
            f"--worker-gpus is {worker_gpus}; with device {device} it must be {least}, and a whole "
            "number above 1",
            "0.5 puts two workers on a GPU",
        )
    return ActorResources(gpus, 0.0 if gpus else 1.0)


class WaitingNotice:
    """Logs from time to time that no worker has a place yet.

    Args:
        resources: the resources that each worker waits for.
        every_s: seconds between two notices.
    """

    def __init__(self, resources: ActorResources, every_s: float = NOTICE_S) -> None:
        self._resources = resources
        self._every_s = every_s
        self.reset()

    def reset(self) -> None:
        """Start to count the seconds again."""
        self._next_at = time.monotonic() + self._every_s

    def log_waiting(self) -> None:
        """Log the resources that the workers wait for, unless it is too early.

        This asks the cluster's head and waits for its answer.
        """
        if time.monotonic() < self._next_at:
            return
        self.reset()
        gpus = self._resources.num_gpus
        unit, share = ("GPU", gpus) if gpus else ("CPU", 1.0)
        free = ray.available_resources().get(unit, 0)
        each = f"a {unit}" if share == 1 else f"{share:g} {unit}"
        _log.warning("no worker yet: each waits for %s, and Ray has %g free", each, free)


def probe_worker(
    device: str, worker_gpus: float | None = None, *, notice_s: float = NOTICE_S
) -> WorkerFacts:
    """Return the facts of a place where a worker would run; wait for a place as workers do.

    Args:
        device: "cpu" or "cuda".
        worker_gpus: GPUs per worker, as for `resources_for`.
        notice_s: seconds between two notices in the log that there is no place yet.

    Raises:
        UsageError: raygenome cannot run there.
        PartialFailure: the cluster was lost meanwhile.
    """
    resources = resources_for(device, worker_gpus)
    remote: Any = ray.remote
    answer = remote(**resources._asdict(), max_retries=-1)(worker_facts).remote(device)
    notice = WaitingNotice(resources, notice_s)
    with HeldSigterm() as sigterm, ClusterHealth(private=False) as health:
        while not ray.wait([answer], timeout=_POLL_S)[0]:
            sigterm.check()
            health.check()
            if health.is_healthy:
                notice.log_waiting()
    try:
        return WorkerFacts(*ray.get(answer))
    except RayError as error:
        cause = str(error).strip().splitlines()[-1]
        raise UsageError(
            f"a worker of the Ray cluster cannot run raygenome {raygenome.__version__}: "
            f"{one_line(cause)}",
            "install the same version on every node",
        ) from error
