"""The state of a run after some steps: enough that the next step is the one it would have been.

The order of samples and what is drawn at random are functions of seed, epoch and step (see
`order`), so that these three numbers are all of their state.
"""

import contextlib
import dataclasses
import hashlib
import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from raygenome.errors import DataError
from raygenome.storage.files import file_sha256, publish
from raygenome.training.run_dir import TrainDir

log = logging.getLogger(__name__)

#: Checkpoints that are kept: the newest, and the one before should it be damaged.
KEPT = 2


@dataclass
class State:
    """Where a run stands.

    Attributes:
        step: steps done in all.
        epoch: the epoch under way, from 0, or the number of epochs where all are done.
        step_in_epoch: steps of it that are done.
        entropy: cross entropy summed over those steps' samples and the targets.
        log: what was reported, a dict an epoch.
        best: the best value of what the recipe selects by; None before the first.
        stale: epochs since then.
        seconds: of training, over all tries.
        identity: of the run (`identity_of`): a worker of a killed driver may live a little longer,
            and what it saves is no part of a run that was begun since.
    """

    step: int = 0
    epoch: int = 0
    step_in_epoch: int = 0
    entropy: float = 0.0
    log: list[dict[str, Any]] = field(default_factory=list)
    best: float | None = None
    stale: int = 0
    seconds: float = 0.0
    identity: str = ""


def identity_of(config: dict[str, Any], data_digest: str) -> str:
    """Return what runs share that are the same: a digest of recipe and data, in hex."""
    content = json.dumps([config, data_digest], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def save_checkpoint(
    run: TrainDir,
    state: State,
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: dict[str, Any] | None = None,
) -> None:
    """Write a checkpoint aside, rename it, then its digest, and remove all but the newest few."""
    final = _file(run, state.step)
    temporary = run.temporary_file(final)
    content = {
        "state": dataclasses.asdict(state),
        "net": net.state_dict(),
        "optimizer": optimizer.state_dict(),
        "average": average,
    }
    torch.save(content, temporary)
    said = {**publish(temporary, final), "identity": state.identity}
    run.publish_json(said, final.with_suffix(".json"))
    kept = {_file(run, step).stem for step in _steps(run)[:KEPT]}
    for suffix in (".json", ".pt"):  # the digest first: without it the other does not count
        for path in run.checkpoints.glob(f"checkpoint-*{suffix}"):
            if path.stem not in kept:
                path.unlink(missing_ok=True)


def newest_checkpoint(run: TrainDir, identity: str = "") -> int | None:
    """Return the step of the newest whole checkpoint of this identity; None where there is none."""
    for step in _steps(run):
        path = _file(run, step)
        with contextlib.suppress(OSError, DataError, KeyError, TypeError):
            said = run.read(path.with_suffix(".json"))
            if said["identity"] != identity:
                continue
            if file_sha256(path) == said["sha256"]:
                return step
        log.warning("%s is damaged; going back to the one before", path)
    return None


def load_checkpoint(run: TrainDir, identity: str = "") -> dict[str, Any] | None:
    """Return the newest whole checkpoint of this identity, on the CPU; None if there is none."""
    step = newest_checkpoint(run, identity)
    return None if step is None else read_checkpoint(run, step)


def read_checkpoint(run: TrainDir, step: int) -> dict[str, Any]:
    """Return the checkpoint of a step, on the CPU."""
    return torch.load(_file(run, step), map_location="cpu", weights_only=True)


def _file(run: TrainDir, step: int) -> Path:
    return run.checkpoints / f"checkpoint-{step:09d}.pt"


def _steps(run: TrainDir) -> list[int]:
    """Return the steps that have a checkpoint, the last first."""
    names = [path.stem for path in run.checkpoints.glob("checkpoint-*.json")]
    return sorted((int(name.removeprefix("checkpoint-")) for name in names), reverse=True)
