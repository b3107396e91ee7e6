"""Where the model of a scoring run works, with how many workers, on what processor."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import raygenome
from raygenome.cluster.hardware import WorkerFacts, worker_facts
from raygenome.cluster.resources import Machines, joined_machines
from raygenome.errors import UsageError
from raygenome.results.run_dir import Shard

#: Alleles below which a CPU run without a cluster starts no actors unless told to.
_FEWEST_FOR_ACTORS = 10_000


class Request(NamedTuple):
    """What the caller asked of the machines.

    Attributes:
        workers: actors; None leaves it to `Host.actors`, 0 means none.
        address: of a Ray cluster.
        worker_gpus: share of a GPU that an actor takes; None for a whole one, where it needs one.
        insecure: whether a cluster that anybody can use will do.
    """

    workers: int | None = None
    address: str | None = None
    worker_gpus: float | None = None
    insecure: bool = False


@dataclass(frozen=True)
class Host:
    """The machines that work for a run.

    Attributes:
        request: what was asked of them.
        machines: what they have.
    """

    request: Request
    machines: Machines

    def look(self, device: str) -> WorkerFacts:
        """Return the facts of a worker for `device`, after seeing that one can be had.

        Raises:
            UsageError: there is no GPU, or the workers have another version of raygenome.
        """
        if not self.machines.cluster:
            return _facts_here(device)
        from raygenome import pool

        if device == "cuda" and self.machines.gpus == 0 and self.request.workers is None:
            raise UsageError(
                "the cluster has no GPU at the moment; say how many to wait for with --workers N"
            )
        found = pool.probe_worker(device, self.request.worker_gpus)
        if found.raygenome != raygenome.__version__:
            raise UsageError(
                f"the cluster's nodes have raygenome {found.raygenome}, this is "
                f"{raygenome.__version__}; install one version on all of them"
            )
        return found

    def actors(self, device: str, shards: Sequence[Shard]) -> int:
        """Return how many Ray actors to start; 0 means none: score in this process.

        On a CPU this process keeps every core busy by itself, as fast as actors do, and Ray takes
        seconds to start: so actors are started only where there is some work, or on a cluster.
        """
        if self.request.workers is not None:
            return self.request.workers
        if not self.machines.cluster and len(shards) <= 1:
            return 0
        if device == "cuda":
            room = int(self.machines.gpus / (self.request.worker_gpus or 1))
            return max(min(room, len(shards)), 1)
        small = sum(shard.rows for shard in shards) < _FEWEST_FOR_ACTORS
        if not self.machines.cluster and (small or self.machines.cores == 1):
            return 0
        return max(min(self.machines.cores, len(shards)), 1)


@contextlib.contextmanager
def join_host(request: Request) -> Iterator[Host]:
    """Give the machines of a run, connected to for its whole length where they are a cluster's.

    Raises:
        UsageError: no cluster answers, it is open to anybody, or `request` contradicts itself.
    """
    if request.worker_gpus is not None and request.worker_gpus <= 0:
        raise UsageError(f"--worker-gpus is {request.worker_gpus}; it must be more than 0")
    if request.worker_gpus is not None and request.workers == 0:
        raise UsageError("--workers 0 starts no worker that --worker-gpus could be for; give one")
    with joined_machines(
        request.address, insecure=request.insecure, in_process=request.workers == 0
    ) as machines:
        yield Host(request, machines)


def wanted_actors(workers: int | str | None) -> int | None:
    """Return the number of workers that was asked for; None leaves it to `Host.actors`.

    Raises:
        UsageError: it is neither "auto" nor a number of at least 0.
    """
    if workers is None or workers == "auto":
        return None
    try:
        number = int(workers)
    except (TypeError, ValueError):
        number = -1
    if number < 0 or isinstance(workers, bool | float):
        raise UsageError(f"--workers is {workers}; it must be auto, 0 (no Ray) or more")
    return number


def _facts_here(device: str) -> WorkerFacts:
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device is cuda and torch finds no usable GPU here; use --device cpu")
    return worker_facts(device)
