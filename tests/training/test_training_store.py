"""Training onto an object store, against a real S3 server: the same weights as in a folder."""

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support.object_store import make_bucket, s3_server, use
from support.small_training import log_of, recipe, weights_of, write_dataset

from raygenome.errors import OutputError
from raygenome.registry.model import Model
from raygenome.storage import lease
from raygenome.storage.object_store import ObjectStore
from raygenome.training import run as training

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

CHANGES: dict[str, Any] = {"average": 0.9, "optimizer": {"name": "adamw", "lr": 0.01}}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with s3_server() as url:
        yield url


@pytest.fixture
def bucket(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the URL of a new bucket."""
    use(monkeypatch, server)
    monkeypatch.setenv("RAYGENOME_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(lease, "_HEARTBEAT_S", 0.5)
    monkeypatch.setattr(lease, "_EXPIRES_S", 3.0)
    name = f"test-{uuid.uuid4().hex[:12]}"
    make_bucket(name)
    return f"s3://{name}"


def put_dataset(folder: Path, url: str) -> None:
    """Copy a dataset to the store."""
    store = ObjectStore(url)
    for file in folder.iterdir():
        copy = store.temporary_file(file.name)
        copy.write_bytes(file.read_bytes())
        store.publish(copy, file.name)
    store.close()


def log_in(url: str) -> list[dict[str, Any]]:
    """Return the lines of a run's log without the times; see `log_of`."""
    lines = [json.loads(line) for line in ObjectStore(url).read("log.jsonl").splitlines()]
    return [
        {k: v for k, v in line.items() if k not in ("seconds", "samples_per_s")} for line in lines
    ]


def assert_same(url: str, whole: Path) -> None:
    store = ObjectStore(url)
    assert store.read("model/weights.safetensors") == weights_of(whole)
    assert log_in(url) == log_of(whole)
    assert store.listdir() - {".work"} == {path.name for path in whole.iterdir()} - {".work"}
    assert not store.sizes(".work/checkpoints")
    assert Model.open(f"{url}/model").net()


_KILLED_RUN = """
import json, os, signal, sys, torch
from raygenome.training import loop, run
torch.set_num_threads(1)
step = loop.Worker._step
def dying(worker, batch):
    if worker.state.step == 14:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(worker, batch)
loop.Worker._step = dying
loop.LOOK_EVERY = 3
loop.Task.__init__.__defaults__ = (*loop.Task.__init__.__defaults__[:-1], 0.0)
run.train(**json.loads(sys.argv[1]), workers=0)
"""


@pytest.mark.usefixtures("one_thread")
def test_a_run_is_killed_and_resumed_to_the_same_weights(bucket: str, tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data")
    put_dataset(data, f"{bucket}/data")
    whole = training.train(recipe(**CHANGES), data=data, out=tmp_path / "run", workers=0)
    url = f"{bucket}/runs/one"
    options = {"config": recipe(**CHANGES), "data": f"{bucket}/data", "out": url}
    done = subprocess.run(
        [sys.executable, "-c", _KILLED_RUN, json.dumps(options)], env=dict(os.environ)
    )
    assert done.returncode == -signal.SIGKILL
    assert len(log_in(url)) == 1, "the log and the model of the first epoch are there"
    assert Model.open(f"{url}/model").net()
    with pytest.raises(OutputError, match="holds an unfinished training run"):
        training.train(**options, workers=0)
    found = training.train(**options, workers=0, resume=True)
    assert (found.path, found.model) == (url, f"{url}/model")
    assert_same(url, tmp_path / "run")
    assert found.document["data_digest"] == whole.document["data_digest"]
    assert training.train(**options, workers=0, resume=True) == found
    with pytest.raises(OutputError, match="holds a finished training run"):
        training.train(**options, workers=0)
    training.train(**{**options, "config": recipe(**CHANGES, seed=9)}, workers=0, fresh=True)
    assert ObjectStore(url).read("model/weights.safetensors") != weights_of(tmp_path / "run")


@pytest.mark.campaign
@pytest.mark.ray
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_workers_on_ray_write_to_the_store(bucket: str, tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data")
    put_dataset(data, f"{bucket}/data")
    values = recipe(optimizer={"name": "sgd", "lr": 0.01}, epochs=2)
    training.train(values, data=data, out=tmp_path / "run", workers=2, threads=1)
    url = f"{bucket}/run"
    training.train(values, data=f"{bucket}/data", out=url, workers=2, threads=1)
    assert_same(url, tmp_path / "run")
    assert torch.isfinite(next(Model.open(f"{url}/model").net().parameters())).all()
