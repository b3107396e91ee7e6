"""The options of `Compute`: workers, device, address and threads."""

from typing import Any

import pytest

from raygenome.cluster.compute import Compute
from raygenome.errors import UsageError


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"device": "tpu"}, "--device is 'tpu'; it must be one of auto, cpu, cuda"),
        ({"worker_gpus": 0}, "--worker-gpus is 0; give more than 0"),
        ({"workers": "0", "worker_gpus": 0.5}, "no worker that could use --worker-gpus"),
        ({"threads": 0}, "--threads is 0"),
        ({"threads": True}, "--threads is True"),
    ],
)
def test_values_that_cannot_be_used_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Compute(**given)


@pytest.mark.parametrize(
    ("workers", "number"), [(None, None), ("auto", None), (0, 0), ("0", 0), ("3", 3), (2, 2)]
)
def test_the_number_of_workers(workers: int | str | None, number: int | None) -> None:
    compute = Compute(workers=workers)
    assert compute.n_workers() == number
    assert compute.in_process == (number == 0)


@pytest.mark.parametrize("workers", [-1, "two", "1-3", True, 1.0])
def test_what_is_no_number_of_workers_is_refused(workers: Any) -> None:
    with pytest.raises(UsageError, match=f"--workers is {workers}; it must be auto, 0"):
        Compute(workers=workers).n_workers()


def test_auto_becomes_the_device_that_is_there() -> None:
    assert Compute().resolved("fp32", gpus=0).device == "cpu"
    assert Compute().resolved("tf32", gpus=1).device == "cuda"
    assert Compute().resolved("fp32", gpus=0, cluster=True).device == "cpu"
    assert Compute(device="cpu").resolved("bf16", gpus=1).device == "cpu"
    assert Compute(device="cuda").resolved("tf32", gpus=0, cluster=True).device == "cuda"
    with pytest.raises(UsageError, match="no usable GPU"):
        Compute(device="cuda").resolved("fp32", gpus=0)
    with pytest.raises(UsageError, match="tf32 exists only on CUDA"):
        Compute().resolved("tf32", gpus=0)
