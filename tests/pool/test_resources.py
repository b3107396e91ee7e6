"""The resources that a worker requests of a node, and shares that Ray cannot provide."""

import pytest

from raygenome.errors import UsageError
from raygenome.pool.resources import ActorResources, resources_for


@pytest.mark.parametrize(
    ("device", "gpus", "resources"),
    [
        ("cpu", None, ActorResources(0, 1)),
        ("cuda", None, ActorResources(1, 0)),
        ("cuda", 0.5, ActorResources(0.5, 0)),
        ("cuda", 2, ActorResources(2, 0)),
        ("cpu", 0, ActorResources(0, 1)),
        ("cpu", 1, ActorResources(1, 0)),
    ],
)
def test_a_worker_takes_gpus_or_a_core(
    device: str, gpus: float | None, resources: ActorResources
) -> None:
    assert resources_for(device, gpus) == resources


@pytest.mark.parametrize(
    ("device", "gpus"), [("cuda", 0), ("cuda", -1), ("cpu", -0.5), ("cuda", 1.5)]
)
def test_an_impossible_share_is_refused(device: str, gpus: float) -> None:
    with pytest.raises(UsageError, match=f"--worker-gpus is {gpus}; with device {device} it must"):
        resources_for(device, gpus)
