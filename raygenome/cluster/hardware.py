"""The hardware of a machine, and the processor of a worker."""

import os
from typing import NamedTuple

import raygenome


class WorkerFacts(NamedTuple):
    """What a worker runs on; the processor and the version of torch decide how results round.

    Attributes:
        processor: "cpu", or the name of the GPU.
        torch: version of torch.
        raygenome: version of raygenome.
    """

    processor: str
    torch: str
    raygenome: str


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor(device: str) -> str:
    """Return the processor of a device: "cpu", or the name of the GPU."""
    if device != "cuda":
        return "cpu"
    import torch

    return torch.cuda.get_device_name()


def worker_facts(device: str) -> WorkerFacts:
    """Return the facts of a worker in this process; `device` is "cpu" or "cuda"."""
    import torch

    return WorkerFacts(processor(device), torch.__version__, raygenome.__version__)
