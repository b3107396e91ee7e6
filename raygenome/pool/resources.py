"""Where Ray may put a worker: what each takes of a node, and what is said while none is free."""

import logging
import time
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayError

import raygenome
from raygenome.cluster.health import Pulse
from raygenome.cluster.signals import HeldSigterm
from raygenome.errors import UsageError
from raygenome.pool.actor import one_line

#: After how long without a place the log says what is waited for, and how often it repeats it.
WAITING_S = 30.0

#: How often a wait is broken off to look for a signal.
_LOOK_S = 0.5

_log = logging.getLogger(__name__)


class Place(NamedTuple):
    """What a worker takes of a node, in Ray's words; a share of a GPU lets several have it."""

    num_gpus: float
    num_cpus: float


def place_of(device: str, worker_gpus: float | None = None) -> Place:
    """Return what a worker takes: a GPU or a share of one, or else a core.

    Args:
        device: "cpu" or "cuda".
        worker_gpus: GPUs that a worker takes; None is 1 for cuda and 0 for cpu.

    Raises:
        UsageError: Ray cannot give such a share, or cuda is to do without a GPU.
    """
    gpus = float(device == "cuda") if worker_gpus is None else float(worker_gpus)
    if gpus < 0 or (gpus > 1 and gpus % 1) or (device == "cuda" and not gpus):
        least = "more than 0" if device == "cuda" else "0 or more"
        raise UsageError(
            f"--worker-gpus is {worker_gpus}; with device {device} it must be {least}, and whole "
            "beyond 1 (0.5 puts two workers on a GPU)"
        )
    return Place(gpus, 0.0 if gpus else 1.0)


class Waiting:
    """Says in the log, now and then, that there is no place yet.

    Args:
        place: what is waited for.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self.over()

    def over(self) -> None:
        """Begin to count anew."""
        self._complain_at = time.monotonic() + WAITING_S

    def complain(self) -> None:
        """Say what is waited for, if that has gone on for WAITING_S since the last time.

        That asks the cluster's head, and waits for it.
        """
        if time.monotonic() < self._complain_at:
            return
        self.over()
        unit, share = ("GPU", self._place.num_gpus) if self._place.num_gpus else ("CPU", 1.0)
        free = ray.available_resources().get(unit, 0)
        each = f"a {unit}" if share == 1 else f"{share:g} {unit}"
        _log.warning("no worker yet: each waits for %s, and Ray has %g free", each, free)


class WorkerFacts(NamedTuple):
    """What is where a worker would run: "cpu" or the GPU's name, and versions."""

    processor: str
    raygenome: str
    torch: str


def look_at_worker(device: str, worker_gpus: float | None = None) -> WorkerFacts:
    """Return what is found where a worker would run; waits for a place as workers do.

    Args:
        device: "cpu" or "cuda".
        worker_gpus: as `place_of` takes it.

    Raises:
        UsageError: raygenome cannot be run there.
        PartialFailure: the cluster was lost meanwhile.
    """
    place = place_of(device, worker_gpus)
    remote: Any = ray.remote
    answer = remote(**place._asdict(), max_retries=-1)(_facts).remote(device)
    waiting = Waiting(place)
    with HeldSigterm() as sigterm, Pulse(private=False) as pulse:
        while not ray.wait([answer], timeout=_LOOK_S)[0]:
            sigterm.check()
            pulse.check()
            if pulse.well:
                waiting.complain()
    try:
        return WorkerFacts(*ray.get(answer))
    except RayError as error:
        cause = str(error).strip().splitlines()[-1]
        raise UsageError(
            f"a worker of the Ray cluster cannot run raygenome {raygenome.__version__}: "
            f"{one_line(cause)}; install the same version on every node"
        ) from error


def _facts(device: str) -> tuple[str, str, str]:
    """Say what is here; runs in a Ray worker."""
    import torch

    processor = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    return processor, raygenome.__version__, torch.__version__
