"""What a worker takes of a node, and which shares Ray cannot give."""

import pytest

from raygenome.errors import UsageError
from raygenome.pool.resources import Place, place_of


@pytest.mark.parametrize(
    ("device", "gpus", "place"),
    [
        ("cpu", None, Place(0, 1)),
        ("cuda", None, Place(1, 0)),
        ("cuda", 0.5, Place(0.5, 0)),
        ("cuda", 2, Place(2, 0)),
        ("cpu", 0, Place(0, 1)),
        ("cpu", 1, Place(1, 0)),
    ],
)
def test_a_worker_takes_gpus_or_a_core(device: str, gpus: float | None, place: Place) -> None:
    assert place_of(device, gpus) == place


@pytest.mark.parametrize(
    ("device", "gpus"), [("cuda", 0), ("cuda", -1), ("cpu", -0.5), ("cuda", 1.5)]
)
def test_a_share_that_cannot_be_is_refused(device: str, gpus: float) -> None:
    with pytest.raises(UsageError, match=f"--worker-gpus is {gpus}; with device {device} it must"):
        place_of(device, gpus)
