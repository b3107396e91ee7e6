"""The workers of a scoring run: their number and their processor."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

import raygenome
from raygenome.cluster.compute import Compute
from raygenome.cluster.hardware import processor
from raygenome.cluster.resources import Machines
from raygenome.errors import UsageError
from raygenome.genome.alleles import Shard

#: With fewer alleles, a CPU run without a cluster starts actors only if the caller asks for them.
_FEWEST_FOR_ACTORS = 10_000


@dataclass(frozen=True)
class Workers:
    """The machines of a run, and what of them decides the rounding of results.

    Attributes:
        compute: what the caller asked for; its device is "cpu" or "cuda".
        machines: what there is.
        processor: "cpu", or the name of the GPU.
        torch: the version of torch.
    """

    compute: Compute
    machines: Machines
    processor: str
    torch: str

    def count(self, shards: Sequence[Shard]) -> int:
        """Return how many Ray actors score `shards`; 0 means this process does, without Ray.

        On a CPU this process uses every core, as fast as actors would, and Ray takes seconds to
        start. So actors are started only for larger inputs, or on a cluster.
        """
        asked = self.compute.n_workers()
        if asked is not None:
            return asked
        if not self.machines.cluster and len(shards) <= 1:
            return 0
        if self.compute.device == "cuda":
            room = int(self.machines.gpus / (self.compute.worker_gpus or 1))
            return max(min(room, len(shards)), 1)
        small = sum(shard.rows for shard in shards) < _FEWEST_FOR_ACTORS
        if not self.machines.cluster and (small or self.machines.cores == 1):
            return 0
        return max(min(self.machines.cores, len(shards)), 1)


def find_workers(compute: Compute, machines: Machines, *, precision: str) -> Workers:
    """Return the workers that `compute` asks for, after checking that one can be had.

    Raises:
        UsageError: there is no such device, or the workers have another version of raygenome.
    """
    compute = compute.resolved(precision, gpus=machines.gpus, cluster=machines.cluster)
    if not machines.cluster:
        return Workers(compute, machines, processor(compute.device), torch.__version__)
    from raygenome import pool  # Ray is loaded only where a cluster is used

    if compute.device == "cuda" and machines.gpus == 0 and compute.n_workers() is None:
        raise UsageError(
            "the cluster has no GPU at the moment",
            "give the number of workers to wait for with --workers N",
        )
    found = pool.probe_worker(compute.device, compute.worker_gpus)
    if found.raygenome != raygenome.__version__:
        raise UsageError(
            f"the cluster's nodes have raygenome {found.raygenome}, this is "
            f"{raygenome.__version__}",
            "install one version on all of them",
        )
    return Workers(compute, machines, found.processor, found.torch)
