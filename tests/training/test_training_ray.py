"""Training on Ray Train: deaths of workers and of the driver, with a real Ray."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.builders import load_model
from support.paths import python_environment
from support.small_training import log_of, recipe, weights_of, write_dataset, write_recipe
from support.training_launcher import SAVING, on_ray

from raygenome.cluster.connect import connected
from raygenome.errors import DataError
from raygenome.training import loop, workers
from raygenome.training import run as training

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(240),
    # Ray warns of its own deprecated settings, and of sockets that it leaves open.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

STEPS = 30  # of the small recipe
SGD = {"name": "sgd", "lr": 0.01, "momentum": 0.9}


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    """Start one Ray for the tests of this file."""
    with connected(workers=2, device="cpu"):
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("ray") / "data")


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let workers save after every second step, and die where a file in the test's folder says."""
    monkeypatch.setattr(loop.Task.__init__, "__defaults__", SAVING)
    monkeypatch.setattr(workers, "_work", on_ray)


def train(data: Path, folder: Path, *, count: int | str = 2, **options: Any):
    (folder / "look-every").write_text("2")
    values = recipe(optimizer=SGD, **options.pop("changes", {}))
    return training.train(values, data=data, out=folder / "run", workers=count, **options)


@pytest.fixture(scope="module")
def whole(ray_here: None, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run of two workers that nobody killed."""
    return train(data, tmp_path_factory.mktemp("whole")).path


def steps(folder: Path, rank: int = 0) -> list[int]:
    """Return the steps that a rank has started, over all attempts."""
    file = folder / f"steps-{rank}"
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def assert_same(run: Path, whole: Path) -> None:
    assert weights_of(run) == weights_of(whole)
    assert log_of(run) == log_of(whole)
    left = sorted(path.name for path in run.iterdir())
    assert left == ["curves.png", "log.jsonl", "model", "run.json"] or left[0] == ".work"


def test_two_workers_have_the_loss_curve_of_one(whole: Path, data: Path, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    one = train(data, tmp_path, count=0).path
    torch.set_num_threads(threads)
    assert weights_of(one) != weights_of(whole), "sums in another order, so that it was two"
    for mine, wanted in zip(log_of(whole), log_of(one), strict=True):
        for key in ("train_loss", "valid_loss"):
            assert mine[key] == pytest.approx(wanted[key], rel=1e-4)
        for key in ("valid_auroc", "valid_auprc"):  # two scores that change places are a step
            assert mine[key] == pytest.approx(wanted[key], abs=0.01)
    nets = [load_model(run / "model")[0].state_dict() for run in (whole, one)]
    for mine, wanted in zip(*(net.values() for net in nets), strict=True):
        np.testing.assert_allclose(mine.numpy(), wanted.numpy(), rtol=1e-2, atol=1e-4)


def test_killed_workers_change_nothing(
    whole: Path, data: Path, tmp_path: Path, often: None
) -> None:
    """Rank 1 dies at a random step, and rank 0 at a later one."""
    rng = np.random.default_rng(3)
    first, second = rng.integers(1, STEPS // 2), rng.integers(STEPS // 2, STEPS)
    (tmp_path / f"kill-1-{first}").touch()
    (tmp_path / f"kill-0-{second}").touch()
    run = train(data, tmp_path)
    assert not list(tmp_path.glob("kill-*")), "both died"
    assert_same(run.path, whole)
    taken = steps(tmp_path)
    assert sorted(set(taken)) == list(range(STEPS))
    assert STEPS < len(taken) <= STEPS + 2 * 3, "few steps are taken twice"


def start(folder: Path, data: Path) -> subprocess.Popen[str]:
    """Start a driver with two workers in a new process."""
    config = write_recipe(folder / "r.yaml", optimizer=SGD)
    (folder / "look-every").write_text("2")
    words = ["train", config, "--data", data, "--out", folder / "run", "--workers", 2]
    return subprocess.Popen(
        [sys.executable, "-m", "support.training_launcher", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=python_environment(),
        start_new_session=True,
    )


def wait_for_step(folder: Path, step: int, process: subprocess.Popen[str]) -> list[int]:
    """Return the processes of both workers after rank 0 has started a step."""
    deadline = time.monotonic() + 120
    while step not in steps(folder):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    return [int((folder / f"pid-{rank}").read_text()) for rank in range(2)]


def wait_for_ends(processes: list[int]) -> None:
    deadline = time.monotonic() + 60
    while any(map(is_alive, processes)):
        assert time.monotonic() < deadline, "workers live on"
        time.sleep(0.1)


def is_alive(process: int) -> bool:
    """Return whether a process runs; a zombie does not."""
    with contextlib.suppress(OSError):
        status = Path(f"/proc/{process}/stat").read_text()
        return status.rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.mark.campaign
def test_a_killed_driver_takes_its_workers_along_and_the_run_goes_on(
    whole: Path, data: Path, tmp_path: Path, often: None
) -> None:
    step = int(np.random.default_rng(4).integers(3, STEPS - 1))
    hold = tmp_path / f"hold-0-{step}"
    hold.touch()
    with start(tmp_path, data) as process:
        pids = wait_for_step(tmp_path, step - 1, process)
        process.kill()
        process.communicate(timeout=60)
    hold.unlink()
    assert not (tmp_path / "run" / "run.json").exists()
    run = train(data, tmp_path, resume=True)  # at once: the orphans may still be there
    assert_same(run.path, whole)
    wait_for_ends(pids)


@pytest.mark.campaign
def test_sigterm_ends_driver_and_workers_and_the_run_goes_on(
    whole: Path, data: Path, tmp_path: Path, often: None
) -> None:
    hold = tmp_path / "hold-0-13"
    hold.touch()
    with start(tmp_path, data) as process:
        pids = wait_for_step(tmp_path, 12, process)
        began = time.monotonic()
        process.terminate()
        out, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert out == ""
    assert err == (
        "raygenome: terminated; repeat the command with --resume to continue an unfinished run\n"
    )
    assert time.monotonic() - began < 30
    wait_for_ends(pids)
    hold.unlink()
    assert_same(train(data, tmp_path, resume=True).path, whole)


def test_what_is_wrong_comes_out_as_one_line(ray_here: None, data: Path, tmp_path: Path) -> None:
    """Both workers find the error, and Ray Train does not try again."""
    net = {"channels": [8], "dropouts": [0.2], "hidden": 6}
    changes = {"architecture": "deepsea", "net": net, "loss": "sum"}
    began = time.monotonic()
    values = recipe(**changes, optimizer={"name": "sgd", "lr": 1e39})
    with pytest.raises(DataError, match=r"^(the loss|a weight) is .*lower optimizer\.lr") as caught:
        training.train(values, data=data, out=tmp_path / "run", workers=2)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - began < 60
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.campaign
def test_elastic_workers_are_as_many_as_there_is_room_for(
    whole: Path, data: Path, tmp_path: Path, often: None
) -> None:
    """After one of two workers dies, one or two continue; the learning curve is the same."""
    (tmp_path / "kill-1-11").touch()
    run = train(data, tmp_path, count="1-2")
    assert not list(tmp_path.glob("kill-*"))
    assert run.document["steps"] == STEPS
    for mine, wanted in zip(log_of(run.path), log_of(whole), strict=True):
        assert mine["train_loss"] == pytest.approx(wanted["train_loss"], rel=1e-4)
        assert mine["valid_loss"] == pytest.approx(wanted["valid_loss"], rel=1e-4)
