"""Checkpoints: all of a state or the one before it."""

import dataclasses
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from support.small_training import recipe

from raygenome.errors import OutputError
from raygenome.models import build
from raygenome.training import checkpoint
from raygenome.training.checkpoint import (
    KEPT,
    State,
    load_checkpoint,
    newest_checkpoint,
    save_checkpoint,
)
from raygenome.training.config import make_recipe
from raygenome.training.objective import make_optimizer
from raygenome.training.run_dir import TrainDir

pytestmark = pytest.mark.usefixtures("one_thread")

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "dampening": 0.9},
    "rmsprop": {"name": "rmsprop", "lr": 0.01},
    "adamw": {"name": "adamw", "lr": 0.01, "weight_decay": 0.1},
}


class Crash(Exception):  # noqa: N818
    """What the tests raise in place of a power cut."""


class Pair:
    """A net with its optimizer, as a worker has them."""

    def __init__(self, optimizer: str = "sgd", seed: int = 0) -> None:
        torch.manual_seed(seed)
        said = make_recipe(recipe(optimizer=OPTIMIZERS[optimizer]))
        self.net = build("basset", {**said.net, "window": 60, "targets": 2, "dropout": 0.0})
        self.optimizer = make_optimizer(self.net, said)

    def step(self, number: int) -> None:
        x = torch.rand(6, 4, 60, generator=torch.Generator().manual_seed(number))
        self.optimizer.zero_grad()
        self.net(x).square().mean().backward()
        self.optimizer.step()

    def weights(self) -> list[torch.Tensor]:
        return [value.clone() for value in self.net.state_dict().values()]


@pytest.fixture
def run(tmp_path: Path) -> TrainDir:
    return TrainDir(tmp_path / "run")


def state(step: int) -> State:
    line = {"epoch": 1, "train_loss": 0.1, "valid_auroc": None, "best": True}
    return State(step, 2, 7, 1.25, [line], -0.5, 3, 1.75)


def saved(run: TrainDir, pair: Pair, *steps: int) -> None:
    for step in steps:
        save_checkpoint(run, state(step), pair.net, pair.optimizer)


def names(run: TrainDir) -> list[str]:
    """Return the checkpoints; each has its digest beside it."""
    found = sorted(path.stem for path in run.checkpoints.glob("*.pt"))
    assert found == sorted(path.stem for path in run.checkpoints.glob("*.json"))
    return found


@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
def test_what_is_loaded_goes_on_bit_for_bit(run: TrainDir, optimizer: str) -> None:
    first = Pair(optimizer)
    for number in range(4):
        first.step(number)
    saved(run, first, 4)
    found = load_checkpoint(run)
    assert found is not None
    other = Pair(optimizer, seed=1)
    other.net.load_state_dict(found["net"])
    other.optimizer.load_state_dict(found["optimizer"])
    assert State(**found["state"]) == state(4)
    for number in range(4, 8):
        first.step(number)
        other.step(number)
    assert all(map(torch.equal, first.weights(), other.weights()))


def test_no_checkpoint_is_none(run: TrainDir) -> None:
    assert load_checkpoint(run) is None
    run.checkpoints.mkdir(parents=True)
    assert load_checkpoint(run) is None


def test_the_newest_few_are_kept_by_step_and_not_by_name(run: TrainDir) -> None:
    pair = Pair()
    saved(run, pair, 5, 90, 1_000, 123_456_789)
    assert KEPT == 2
    assert names(run) == ["checkpoint-000001000", "checkpoint-123456789"]
    found = load_checkpoint(run)
    assert found is not None
    assert found["state"]["step"] == 123_456_789


@pytest.mark.parametrize("left", [0, 1, 100, 0.5, 0.99])
def test_a_damaged_newest_falls_back_to_the_one_before(
    run: TrainDir, left: float, caplog: pytest.LogCaptureFixture
) -> None:
    saved(run, Pair(), 10, 20)
    newest = run.checkpoints / "checkpoint-000000020.pt"
    whole = newest.read_bytes()
    newest.write_bytes(whole[: int(left if left in (0, 1, 100) else left * len(whole))])
    with caplog.at_level(logging.WARNING):
        found = load_checkpoint(run)
    assert found is not None
    assert found["state"]["step"] == 10
    (message,) = [record.getMessage() for record in caplog.records]
    assert str(newest) in message
    assert "going back to the one before" in message


def test_where_all_are_damaged_there_is_none(
    run: TrainDir, caplog: pytest.LogCaptureFixture
) -> None:
    saved(run, Pair(), 10, 20)
    for path in run.checkpoints.iterdir():
        path.write_bytes(b"PK no more")
    assert load_checkpoint(run) is None
    assert len(caplog.records) == 2


def test_a_flipped_bit_is_seen(run: TrainDir) -> None:
    saved(run, Pair(), 10, 20)
    newest = run.checkpoints / "checkpoint-000000020.pt"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(bytes(content))
    assert newest_checkpoint(run) == 10


def test_one_without_its_digest_does_not_count(run: TrainDir) -> None:
    saved(run, Pair(), 10, 20)
    (run.checkpoints / "checkpoint-000000020.json").unlink()
    assert newest_checkpoint(run) == 10


@pytest.mark.parametrize("where", ["writing", "before the rename", "after the rename"])
def test_a_crash_while_saving_leaves_the_old_one(
    run: TrainDir, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = Pair()
    saved(run, pair, 10, 20)
    save, publish = torch.save, checkpoint.publish

    def half(content: Any, path: Path) -> None:
        save(content, path)
        path.write_bytes(path.read_bytes()[:1000])
        raise Crash

    def crash(temporary: Path, final: Path) -> None:
        if where == "after the rename":
            publish(temporary, final)
        raise Crash

    if where == "writing":
        monkeypatch.setattr(torch, "save", half)
    else:
        monkeypatch.setattr(checkpoint, "publish", crash)
    with pytest.raises(Crash):
        saved(run, pair, 30)
    found = load_checkpoint(run)
    assert found is not None
    assert found["state"]["step"] == 20
    monkeypatch.undo()
    with run.lock():
        saved(run, pair, 40)
        left = [path.name for path in run.work.rglob("*.tmp")]
        assert left == [], "what was half written is swept"
    assert len(names(run)) == KEPT


def test_a_state_is_plain_values() -> None:
    assert State() == State(**dataclasses.asdict(State()))


def test_a_run_is_locked_against_others_and_not_by_the_dead(run: TrainDir) -> None:
    with run.lock(), pytest.raises(OutputError, match="is being written by another raygenome"):
        TrainDir(run.path).lock().__enter__()
    with run.lock():
        pass
