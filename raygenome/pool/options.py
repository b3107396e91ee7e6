"""What may be chosen of a pool."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from raygenome.pool.resources import Place, place_of


@dataclass(frozen=True)
class PoolOptions:
    """How the pool is run.

    Args:
        workers: the most actors at a time, at least 1.
        device: "cpu" or "cuda"; an actor takes one core, or one GPU.
        worker_gpus: GPUs that an actor takes, if not that; 0.5 puts two of them on one.
        address: of a cluster, as `cluster.connected` takes it.
        depth: the most shards an actor has at a time, so that it need not wait for the driver.
        stall_s: seconds without progress after which an actor is killed.
        birth_s: seconds that an actor may take to make its scorer.
        max_attempts: failures after which a shard is quarantined.
        poll_s: seconds between heartbeats.
        tags: of the metrics, such as the model.
    """

    workers: int
    device: str = "cpu"
    worker_gpus: float | None = None
    address: str | None = None
    depth: int = 2
    stall_s: float = 600.0
    birth_s: float = 600.0
    max_attempts: int = 3
    poll_s: float = 0.5
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def place(self) -> Place:
        """What an actor takes of a node.

        Raises:
            UsageError: there is no such share of a GPU.
        """
        return place_of(self.device, self.worker_gpus)
