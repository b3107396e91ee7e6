"""The saved state of a run: checkpoints, from which training continues exactly, and the best model.

The order of samples and the dropout masks depend only on seed, epoch and step (see `order`), so a
checkpoint needs only these three numbers to restore them.
"""

import contextlib
import dataclasses
import hashlib
import json
import logging
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

import raygenome
from raygenome.datasets.packed import Dataset
from raygenome.errors import DataError
from raygenome.models import build
from raygenome.models.net import Net
from raygenome.registry.modeldir import SPEC_FILE
from raygenome.registry.saving import save_model
from raygenome.storage.store import Store
from raygenome.training.config import TrainConfig
from raygenome.training.run_dir import CHECKPOINTS, MODEL, read_json

log = logging.getLogger(__name__)

#: Number of checkpoints to keep: the newest, and the one before it in case the newest is damaged.
KEPT = 2


@dataclass
class State:
    """The state of a run besides net and optimizer.

    Attributes:
        step: total number of steps done.
        epoch: number of the current epoch, from 0; the number of epochs once all are done.
        step_in_epoch: steps done in this epoch.
        entropy: cross entropy summed over these steps' samples and over the targets.
        log: the lines of log.jsonl, one dict per epoch.
        best: the best value so far of the score that selects the model; None before the first.
        stale: number of epochs since then.
        seconds: training time, including earlier processes of the same run.
        identity: see `identity_of`. A worker of a killed driver may live a little longer and save
            a checkpoint that does not belong to a run started since.
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
    """Return a digest of config and data, in hex; equal runs have equal ones."""
    content = json.dumps([config, data_digest], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def save_checkpoint(
    store: Store,
    state: State,
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: dict[str, Any] | None = None,
) -> None:
    """Publish a checkpoint and then its digest, and remove all but the newest few."""
    name = _name(state.step)
    temporary = store.temporary_file(name)
    content = {
        "state": dataclasses.asdict(state),
        "net": net.state_dict(),
        "optimizer": optimizer.state_dict(),
        "average": average,
    }
    torch.save(content, temporary)
    entry = {**store.publish(temporary, name), "identity": state.identity}
    store.publish_json(entry, _receipt(state.step))
    kept = {name for step in _steps(store)[:KEPT] for name in (_name(step), _receipt(step))}
    old = [name for name in store.sizes(CHECKPOINTS) if name not in kept]
    # Receipts first: a checkpoint without a receipt does not count.
    store.remove(*sorted(old, key=lambda name: name.endswith(".pt")))


def newest_checkpoint(store: Store, identity: str = "") -> int | None:
    """Return the step of the newest undamaged checkpoint of this identity; None if none."""
    for step in _steps(store):
        with contextlib.suppress(OSError, DataError, KeyError, TypeError):
            receipt = read_json(store, _receipt(step))
            if receipt["identity"] != identity:
                continue
            if store.is_whole({"path": _name(step), **receipt}):
                return step
        log.warning("%s is damaged; going back to the one before", store.shown(_name(step)))
    return None


def load_checkpoint(store: Store, identity: str = "") -> dict[str, Any] | None:
    """Return the newest undamaged checkpoint of this identity, on the CPU; None if none."""
    step = newest_checkpoint(store, identity)
    return None if step is None else read_checkpoint(store, step)


def read_checkpoint(store: Store, step: int) -> dict[str, Any]:
    """Return the checkpoint of a step, on the CPU."""
    return torch.load(store.fetch(_name(step)), map_location="cpu", weights_only=True)


def _name(step: int) -> str:
    return f"{CHECKPOINTS}/checkpoint-{step:09d}.pt"


def _receipt(step: int) -> str:
    return f"{CHECKPOINTS}/checkpoint-{step:09d}.json"


def _steps(store: Store) -> list[int]:
    """Return the steps that have a checkpoint with a receipt, the last first."""
    names = [Path(name) for name in store.sizes(CHECKPOINTS)]
    steps = [int(name.stem.removeprefix("checkpoint-")) for name in names if name.suffix == ".json"]
    return sorted(steps, reverse=True)


class BestModel:
    """The best model so far: kept in memory after its epoch, written before the next checkpoint.

    Args:
        config, dataset: the configuration and the data that it is trained with.
    """

    def __init__(self, config: TrainConfig, dataset: Dataset) -> None:
        self._config, self._dataset = config, dataset
        self._line: dict[str, Any] | None = None
        self._net_config: dict[str, Any] = {}
        self._weights: dict[str, torch.Tensor] = {}

    def keep(self, line: dict[str, Any], net: Net) -> None:
        """Copy the weights of `net` after the epoch of this line of the log."""
        self._line, self._net_config = line, net.config
        self._weights = {
            name: value.detach().to("cpu", copy=True) for name, value in net.state_dict().items()
        }

    def export(self, store: Store) -> None:
        """Publish the copy as a model directory that records its origin, unless it is there."""
        if self._line is None:
            return
        with torch.device("meta"):
            net = build(self._config.architecture, self._net_config)
        net.load_state_dict(self._weights, assign=True)
        line = self._line
        folder = store.temp_dir / f"{MODEL}-{uuid.uuid4().hex}"
        save_model(
            folder,
            net,
            name=Path(store.absolute).name,
            targets=self._dataset.targets,
            source=f"trained by raygenome {raygenome.__version__}",
            training={
                "recipe": self._config.plain(),
                "data_digest": self._dataset.digest,
                "epoch": line["epoch"],
                "step": line["step"],
                "scores": {key: value for key, value in line.items() if key.startswith("valid_")},
            },
        )
        store.publish_folder(folder, MODEL, last=SPEC_FILE)
        self._line, self._weights = None, {}
