"""Checkpoints: a crash leaves either the new state or the one before it."""

import dataclasses
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from support.small_training import recipe

from raygenome.errors import OutputError
from raygenome.models import build
from raygenome.storage import store
from raygenome.storage.store import LocalStore
from raygenome.training.checkpoint import (
    KEPT,
    State,
    load_checkpoint,
    newest_checkpoint,
    save_checkpoint,
)
from raygenome.training.config import make_config
from raygenome.training.objective import make_optimizer
from raygenome.training.run_dir import TRAINING_RUN

pytestmark = pytest.mark.usefixtures("one_thread")

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "dampening": 0.9},
    "rmsprop": {"name": "rmsprop", "lr": 0.01},
    "adamw": {"name": "adamw", "lr": 0.01, "weight_decay": 0.1},
}


class Crash(Exception):  # noqa: N818
    """Raised by tests to simulate a power cut."""


class Pair:
    """A net with its optimizer, as a worker has them."""

    def __init__(self, optimizer: str = "sgd", seed: int = 0) -> None:
        torch.manual_seed(seed)
        config = make_config(recipe(optimizer=OPTIMIZERS[optimizer]))
        self.net = build("basset", {**config.net, "window": 60, "targets": 2, "dropout": 0.0})
        self.optimizer = make_optimizer(self.net, config)

    def step(self, number: int) -> None:
        x = torch.rand(6, 4, 60, generator=torch.Generator().manual_seed(number))
        self.optimizer.zero_grad()
        self.net(x).square().mean().backward()
        self.optimizer.step()

    def weights(self) -> list[torch.Tensor]:
        return [value.clone() for value in self.net.state_dict().values()]


@pytest.fixture
def run(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "run")


def folder(run: LocalStore) -> Path:
    return run.path / ".work" / "checkpoints"


def state(step: int) -> State:
    line = {"epoch": 1, "train_loss": 0.1, "valid_auroc": None, "best": True}
    return State(step, 2, 7, 1.25, [line], -0.5, 3, 1.75)


def saved(run: LocalStore, pair: Pair, *steps: int) -> None:
    for step in steps:
        save_checkpoint(run, state(step), pair.net, pair.optimizer)


def names(run: LocalStore) -> list[str]:
    """Return the checkpoints; each has its digest next to it."""
    found = sorted(path.stem for path in folder(run).glob("*.pt"))
    assert found == sorted(path.stem for path in folder(run).glob("*.json"))
    return found


@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
def test_what_is_loaded_goes_on_bit_for_bit(run: LocalStore, optimizer: str) -> None:
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


def test_no_checkpoint_is_none(run: LocalStore) -> None:
    assert load_checkpoint(run) is None
    folder(run).mkdir(parents=True)
    assert load_checkpoint(run) is None


def test_the_newest_few_are_kept_by_step_and_not_by_name(run: LocalStore) -> None:
    pair = Pair()
    saved(run, pair, 5, 90, 1_000, 123_456_789)
    assert KEPT == 2
    assert names(run) == ["checkpoint-000001000", "checkpoint-123456789"]
    found = load_checkpoint(run)
    assert found is not None
    assert found["state"]["step"] == 123_456_789


@pytest.mark.parametrize("left", [0, 1, 100, 0.5, 0.99])
def test_a_damaged_newest_falls_back_to_the_one_before(
    run: LocalStore, left: float, caplog: pytest.LogCaptureFixture
) -> None:
    saved(run, Pair(), 10, 20)
    newest = folder(run) / "checkpoint-000000020.pt"
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
    run: LocalStore, caplog: pytest.LogCaptureFixture
) -> None:
    saved(run, Pair(), 10, 20)
    for path in folder(run).iterdir():
        path.write_bytes(b"PK no more")
    assert load_checkpoint(run) is None
    assert len(caplog.records) == 2


def test_a_flipped_bit_is_seen(run: LocalStore) -> None:
    saved(run, Pair(), 10, 20)
    newest = folder(run) / "checkpoint-000000020.pt"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(bytes(content))
    assert newest_checkpoint(run) == 10


def test_one_without_its_digest_does_not_count(run: LocalStore) -> None:
    saved(run, Pair(), 10, 20)
    (folder(run) / "checkpoint-000000020.json").unlink()
    assert newest_checkpoint(run) == 10


@pytest.mark.parametrize("where", ["writing", "before the rename", "after the rename"])
def test_a_crash_while_saving_leaves_the_old_one(
    run: LocalStore, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = Pair()
    saved(run, pair, 10, 20)
    save, publish = torch.save, store.publish

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
        monkeypatch.setattr(store, "publish", crash)
    with pytest.raises(Crash):
        saved(run, pair, 30)
    found = load_checkpoint(run)
    assert found is not None
    assert found["state"]["step"] == 20
    monkeypatch.undo()
    with run.lock(TRAINING_RUN):
        saved(run, pair, 40)
        left = [path.name for path in (run.path / ".work").rglob("*.tmp")]
        assert left == [], "what was half written is swept"
    assert len(names(run)) == KEPT


def test_a_state_is_plain_values() -> None:
    assert State() == State(**dataclasses.asdict(State()))


def test_a_run_is_locked_against_others_and_not_by_the_dead(run: LocalStore) -> None:
    with (
        run.lock(TRAINING_RUN),
        pytest.raises(OutputError, match="is being written by another raygenome"),
    ):
        LocalStore(run.path).lock(TRAINING_RUN).__enter__()
    with run.lock(TRAINING_RUN):
        pass
