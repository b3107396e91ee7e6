"""Training on an existing Ray cluster: a real one of two nodes."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from support.small_cluster import LEAKS, SmallCluster, small_cluster
from support.small_training import recipe, write_dataset

import raygenome
from raygenome.cluster import connect as pool_cluster
from raygenome.errors import UsageError
from raygenome.training.run import TrainingRun

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(240),
    LEAKS,
    # Ray warns of its own deprecated settings.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[SmallCluster]:
    with small_cluster() as cluster:
        cluster.add(gpus=0, cpus=1)
        cluster.add(gpus=0, cpus=1)
        yield cluster


def test_training_joins_a_cluster_once_and_insecure_is_passed_on(
    cluster: SmallCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A test double reports an open cluster; training then finds it joined."""

    def refuse(_: object) -> None:
        raise UsageError("open to anybody")

    def train(**options: bool) -> TrainingRun:
        values = recipe(epochs=1)
        return raygenome.train(
            values,
            data=data,
            out=tmp_path / "run",
            workers=2,
            device="cpu",
            address=cluster.address,
            **options,
        )

    monkeypatch.setattr(pool_cluster, "_require_protected_nodes", refuse)
    data = write_dataset(tmp_path / "data", train=40, valid=40)
    with pytest.raises(UsageError, match="open to anybody"):
        train()
    assert not ray.is_initialized()
    run = train(insecure=True)
    assert run.document["steps"] == 2
    assert (run.model / "weights.safetensors").exists()
    assert not ray.is_initialized(), "the connection ends with the run"
    progress = json.loads((run.path / "progress.json").read_text())
    assert (progress["state"], progress["done"]) == ("done", progress["total"])
