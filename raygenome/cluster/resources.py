"""The machines that work for a run: this one, or the nodes of a Ray cluster.

"auto" for the device and for the number of workers depends on the machines that do the work; on a
cluster, these are not the driver's machine.
"""

import contextlib
import logging
from collections.abc import Iterator
from typing import NamedTuple

from raygenome.cluster.address import find_address
from raygenome.cluster.hardware import cores
from raygenome.errors import UsageError

_log = logging.getLogger(__name__)


class Machines(NamedTuple):
    """What the machines have.

    Attributes:
        cores: of all machines together.
        gpus: how many there are now; nodes of a cluster may come and go.
        cluster: whether they are an existing Ray cluster.
    """

    cores: int
    gpus: int
    cluster: bool = False


@contextlib.contextmanager
def joined_machines(
    address: str | None, *, insecure: bool = False, in_process: bool = False
) -> Iterator[Machines]:
    """Yield the machines of a run; if they are a cluster, stay connected to it within the block.

    Args:
        address: of a Ray cluster; None takes RAY_ADDRESS, as within a Ray job.
        insecure: join a cluster even if no token protects it.
        in_process: no workers are wanted, so that Ray is not used at all.

    Raises:
        UsageError: no cluster answers, anyone may use it, or one is named although none is wanted.
    """
    if in_process and address:
        raise UsageError("--workers 0 uses no Ray, but --address names a cluster", "remove one")
    found = None if in_process else find_address(address)
    if found is None:
        yield _this_machine()
        return
    from raygenome.cluster import connect  # imports Ray, which takes time

    with connect.joined(found, insecure=insecure) as cluster:
        _log.info(
            "joined a Ray cluster: %d nodes, %d cores, %d GPUs",
            cluster.nodes,
            cluster.cpus,
            cluster.gpus,
        )
        yield Machines(cluster.cpus, cluster.gpus, cluster=True)


def _this_machine() -> Machines:
    import torch

    return Machines(cores(), torch.cuda.device_count() if torch.cuda.is_available() else 0)
