"""Kills and signals without Ray: the result equals that of an undisturbed run, bit for bit."""

import contextlib
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.builders import load_model
from support.paths import python_environment
from support.small_training import log_of, recipe, weights_of, write_dataset, write_recipe
from support.training_launcher import SAVING

from raygenome.errors import DataError
from raygenome.storage import store
from raygenome.training import loop
from raygenome.training import run as training

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

STEPS = 30  # of the small recipe
ADAMW = {"name": "adamw", "lr": 0.01, "weight_decay": 0.01}


class Crash(Exception):  # noqa: N818
    """Raised by tests to simulate a power cut."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("kill") / "data")


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run that nobody killed."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("whole") / "run"
    return training.train(changed(), data=data, out=out, workers=0).path


def changed() -> dict[str, Any]:
    return recipe(optimizer=ADAMW, shift=2, max_norm=2.0, average=0.9, prior=True)


def assert_same(run: Path, whole: Path) -> None:
    assert weights_of(run) == weights_of(whole)
    assert log_of(run) == log_of(whole)
    left = sorted(path.name for path in run.iterdir())
    assert left == sorted(path.name for path in whole.iterdir())


@pytest.mark.parametrize("look_every", [1, 3, 7])
def test_crashes_at_random_steps_change_nothing(
    data: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, look_every: int
) -> None:
    """Each attempt dies some steps later; it may lose the steps since the last check."""
    rng = np.random.default_rng(look_every)
    step = loop.Worker._step
    left = [0]

    def crashing(worker: loop.Worker, batch: Any) -> torch.Tensor:
        if left[0] == 0:
            raise Crash
        left[0] -= 1
        return step(worker, batch)

    monkeypatch.setattr(loop.Worker, "_step", crashing)
    monkeypatch.setattr(loop, "LOOK_EVERY", look_every)
    monkeypatch.setattr(loop.Task.__init__, "__defaults__", SAVING)
    out = tmp_path / "run"
    tries = 0
    while not (out / "run.json").exists():
        tries += 1
        left[0] = int(rng.integers(look_every, 2 * look_every + 3))
        with contextlib.suppress(Crash):
            training.train(changed(), data=data, out=out, workers=0, resume=True)
    assert tries > 2
    assert_same(out, whole)


def test_a_crash_at_any_rename_changes_nothing(
    data: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file of a run is renamed into place; a third of these renames end in a crash."""
    out = tmp_path / "run"
    rng = np.random.default_rng(6)
    fates: set[str] = set()

    def crashing(real: Any) -> Any:
        def publish(*arguments: Any) -> Any:
            fate = rng.choice(["before", "after", "", "", "", ""])
            found = None if fate == "before" else real(*arguments)
            if fate:
                fates.add(f"{fate} {arguments[-1].suffix}")
                raise Crash
            return found

        return publish

    monkeypatch.setattr(loop, "LOOK_EVERY", 4)
    monkeypatch.setattr(loop.Task.__init__, "__defaults__", SAVING)
    monkeypatch.setattr(store, "publish", crashing(store.publish))
    tries = 0
    while not (out / "run.json").exists():
        tries += 1
        assert tries < 90
        with contextlib.suppress(Crash):
            training.train(changed(), data=data, out=out, workers=0, resume=True)
    monkeypatch.undo()
    training.train(changed(), data=data, out=out, workers=0, resume=True)
    assert tries > 5
    assert {"before .pt", "after .pt", "after .json"} <= fates
    assert_same(out, whole)


def test_a_crash_while_the_model_is_replaced_costs_no_model(
    data: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    put, calls = store.publish_folder, 0

    def crashing(temporary: Path, final: Path) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            final.rename(final.with_name(f".{final.name}.{'ab' * 16}.old"))
            raise Crash
        put(temporary, final)

    monkeypatch.setattr(store, "publish_folder", crashing)
    with pytest.raises(Crash):
        training.train(changed(), data=data, out=out, workers=0)
    assert not (out / "model").exists()
    monkeypatch.undo()
    monkeypatch.setattr(loop.Worker, "run", lambda _worker: None)
    (out / ".work" / "checkpoints").rename(tmp_path / "aside")
    with pytest.raises(DataError, match="holds no checkpoint"):
        training.train(changed(), data=data, out=out, workers=0, resume=True)
    load_model(out / "model")
    monkeypatch.undo()
    (tmp_path / "aside").rename(out / ".work" / "checkpoints")
    training.train(changed(), data=data, out=out, workers=0, resume=True)
    assert_same(out, whole)


# Real processes


def command(folder: Path, data: Path, *more: str) -> list[str]:
    """Return a command line that trains here, with a check at every second step."""
    config = write_recipe(folder / "r.yaml", **changed())
    (folder / "look-every").write_text("2")
    words = ["train", config, "--data", data, "--out", folder / "run", "--workers", 0, *more]
    return [str(word) for word in [sys.executable, "-m", "support.training_launcher", *words]]


def start(words: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=python_environment(),
    )


def steps(folder: Path) -> list[int]:
    """Return the steps that were started, in order, over all attempts."""
    return [int(line) for line in (folder / "steps-0").read_text().split()]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_sigkill_at_random_steps_changes_nothing(data: Path, whole: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    kills = sorted(rng.choice(np.arange(1, STEPS), 3, replace=False).tolist())
    for step in kills:
        (tmp_path / f"kill-0-{step}").touch()
    for _ in kills:
        with start(command(tmp_path, data, "--resume")) as process:
            _, err = process.communicate(timeout=120)
        assert process.returncode == -signal.SIGKILL, err
        assert not (tmp_path / "run" / "run.json").exists()
    with start(command(tmp_path, data, "--resume")) as process:
        _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert_same(tmp_path / "run", whole)
    taken = steps(tmp_path)
    assert sorted(set(taken)) == list(range(STEPS))
    assert len(taken) <= STEPS + 2 * len(kills), "few steps are taken twice"


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("number", "code", "message"),
    [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")],
)
def test_a_signal_ends_the_run_in_one_line_and_it_goes_on(
    data: Path, whole: Path, tmp_path: Path, number: int, code: int, message: str
) -> None:
    with start(command(tmp_path, data)) as process:
        deadline = time.monotonic() + 120
        while not (tmp_path / "steps-0").exists() or len(steps(tmp_path)) < 5:
            assert time.monotonic() < deadline
            assert process.poll() is None, process.communicate()
            time.sleep(0.005)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert out == ""
    assert (
        err
        == f"raygenome: {message}; repeat the command with --resume to continue an unfinished run\n"
    )
    training.train(changed(), data=data, out=tmp_path / "run", workers=0, resume=True)
    assert_same(tmp_path / "run", whole)
