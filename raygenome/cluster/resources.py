"""The machines that work for a run: this one, or the nodes of a Ray cluster.

What `auto` means, for the device and for the number of workers, is asked of the machines that do
the work, which on a cluster are not the driver's.
"""

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import NamedTuple

from raygenome.cluster.hardware import cores
from raygenome.errors import UsageError

_log = logging.getLogger(__name__)


class Machines(NamedTuple):
    """What they have.

    Attributes:
        cores: all of them together.
        gpus: how many there are now; nodes of a cluster may come and go.
        cluster: whether they are a cluster that was there before.
    """

    cores: int
    gpus: int
    cluster: bool = False


@contextlib.contextmanager
def joined_machines(
    address: str | None, *, insecure: bool = False, in_process: bool = False
) -> Iterator[Machines]:
    """Give the machines of a run, connected to for its whole length where they are a cluster's.

    Args:
        address: of a Ray cluster; None takes the one of RAY_ADDRESS, as within a Ray job.
        insecure: join a cluster also where no token guards it.
        in_process: no worker is wanted, so that Ray is not asked for anything.

    Raises:
        UsageError: no cluster answers, it is open to anybody, or none is wanted and one is named.
    """
    if in_process and address:
        raise UsageError("--workers 0 uses no Ray, and --address names a cluster; give one of them")
    if in_process or not (address or os.environ.get("RAY_ADDRESS")):
        yield _this_one()
        return
    from raygenome.cluster import connect  # Ray is loaded only where a cluster is used

    found = connect.find_address(address)
    if found is None:
        yield _this_one()
        return
    with connect.joined(found, insecure=insecure) as cluster:
        _log.info(
            "joined a Ray cluster: %d nodes, %d cores, %d GPUs",
            cluster.nodes,
            cluster.cpus,
            cluster.gpus,
        )
        yield Machines(cluster.cpus, cluster.gpus, cluster=True)


def _this_one() -> Machines:
    import torch

    return Machines(cores(), torch.cuda.device_count() if torch.cuda.is_available() else 0)
