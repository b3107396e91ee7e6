"""Several workers that share each batch, joined by gloo without Ray, against one worker."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from support.builders import load_model
from support.small_training import log_of, recipe, weights_of, write_dataset
from support.two_processes import run_together

from raygenome.errors import DataError
from raygenome.training import loop
from raygenome.training.config import make_config
from raygenome.training.run_dir import publish_log

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.usefixtures("one_thread"),
]

#: AdamW is left out. If a gradient is nearly 0, as of a bias before a batch norm, AdamW turns its
#: rounding error into a step of full size.
SMALL_STEPS: dict[str, Any] = {
    "epochs": 10,
    "epoch_samples": 20,  # one step per epoch, so that the log has the loss of each step
    "optimizer": {"name": "sgd", "lr": 0.01, "momentum": 0.9, "weight_decay": 1e-3},
    "shift": 2,
}
DEEPSEA = {"channels": [8, 6], "dropouts": [0.2, 0.5], "hidden": 6, "pool_width": 2}
RECIPES: list[dict[str, Any]] = [
    recipe(**SMALL_STEPS),
    recipe(**SMALL_STEPS, max_norm=0.9, loss="sum", average=0.9, prior=True),
    recipe(**{**SMALL_STEPS, "batch_size": 5, "epoch_samples": 5}),
    recipe(
        **SMALL_STEPS,
        architecture="deepsea",
        net=DEEPSEA,
        l1={"weight": 0.01, "on": "logits"},
    ),
    recipe(**SMALL_STEPS, architecture="deepsea", net=DEEPSEA, l1={"weight": 0.01, "on": "hidden"}),
]


def train_part(rank: int, world: int, data: Path, out: Path, values: dict[str, Any]) -> list:
    """Run one of the workers of a run; return its weights as bytes."""
    task = loop.Task(make_config(values), str(data), str(out), "cpu", checkpoint_s=0.0)
    worker = loop.Worker(task, rank=rank, world=world)
    worker.run()
    if rank == 0:
        publish_log(worker.store, worker.state.log)
    return list(worker.net.state_dict().values())


def train_parts(rank: int, world: int, data: Path, out: Path) -> list[list[torch.Tensor]]:
    return [
        train_part(rank, world, data, out / f"{number}", values)
        for number, values in enumerate(RECIPES)
    ]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("together") / "data", train=100, valid=31)


def test_two_workers_take_the_steps_of_one(data: Path, tmp_path: Path) -> None:
    together = run_together(train_parts, tmp_path, data, tmp_path / "two")
    alone = train_parts(0, 1, data, tmp_path / "one")
    for number in range(len(RECIPES)):
        one, two = tmp_path / "one" / f"{number}", tmp_path / "two" / f"{number}"
        assert all(map(torch.equal, together[0][number], together[1][number]))
        for mine, wanted in zip(together[0][number], alone[number], strict=True):
            np.testing.assert_allclose(mine.numpy(), wanted.numpy(), rtol=2e-3, atol=1e-5)
        for mine, wanted in zip(log_of(two), log_of(one), strict=True):
            for key in ("train_loss", "valid_loss"):
                assert mine[key] == pytest.approx(wanted[key], rel=2e-5), (number, key)
            for key in ("valid_auprc", "valid_auroc"):  # two scores that change places are a step
                assert mine[key] == pytest.approx(wanted[key], abs=0.01), (number, key)
        layers = [load_model(run / "model")[0].layers for run in (one, two)]
        assert [type(layer) for layer in layers[1]] == [type(layer) for layer in layers[0]]


class Crash(Exception):  # noqa: N818
    """Raised by all workers to simulate a death."""


def stopped_and_resumed(rank: int, world: int, data: Path, out: Path) -> None:
    """Train without a stop, and with some: each resume is a new DDP, as after a death."""
    values = recipe(optimizer={"name": "adamw", "lr": 0.01}, batch_size=21, max_norm=2.0)
    train_part(rank, world, data, out / "whole", values)
    step, stops = loop.Worker._step, {3, 8}
    loop.LOOK_EVERY = 2

    def stopping(worker: loop.Worker, batch: Any) -> torch.Tensor:
        if worker.state.step in stops:
            stops.remove(worker.state.step)
            raise Crash
        return step(worker, batch)

    loop.Worker._step = stopping  # type: ignore[method-assign]
    for _ in range(2):
        with pytest.raises(Crash):
            train_part(rank, world, data, out / "stopped", values)
        dist.barrier()  # as a new group begins when all of the old one are dead
    train_part(rank, world, data, out / "stopped", values)


def test_three_workers_resume_bit_for_bit(data: Path, tmp_path: Path) -> None:
    """DDP rearranges its buckets after its first step; sums of three depend on their order."""
    run_together(stopped_and_resumed, tmp_path, data, tmp_path, world=3)
    assert log_of(tmp_path / "stopped") == log_of(tmp_path / "whole")
    assert weights_of(tmp_path / "stopped") == weights_of(tmp_path / "whole")


def diverged(rank: int, world: int, data: Path, out: Path) -> str:
    """Train at a learning rate that is far too high; return this worker's error message."""
    values = recipe(
        architecture="deepsea",
        net=DEEPSEA,
        loss="sum",
        optimizer={"name": "sgd", "lr": 1e39},
        epoch_samples=20,
        epochs=1,
    )
    try:
        train_part(rank, world, data, out, values)
    except DataError as error:
        return str(error)
    return "trained"


def test_all_workers_see_a_loss_that_is_not_finite(data: Path, tmp_path: Path) -> None:
    """If one did not, it would wait for the others for ever."""
    messages = run_together(diverged, tmp_path, data, tmp_path / "run")
    assert messages[0] == messages[1]
    assert "lower optimizer.lr" in messages[0]
