"""The state of a run after some steps: enough that the next step is the one it would have been.

The order of samples and what is drawn at random are functions of seed, epoch and step (see
`order`), so that these three numbers are all of their state.
"""

import dataclasses
import logging
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from raygenome.disk import publish
from raygenome.training.rundir import TrainDir

log = logging.getLogger(__name__)

#: Older checkpoints that are kept, should the newest be damaged.
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
    """

    step: int = 0
    epoch: int = 0
    step_in_epoch: int = 0
    entropy: float = 0.0
    log: list[dict[str, Any]] = field(default_factory=list)
    best: float | None = None
    stale: int = 0
    seconds: float = 0.0


def save_checkpoint(
    run: TrainDir, state: State, net: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Write a checkpoint aside, rename it, and remove all but the newest few."""
    final = run.checkpoints / f"checkpoint-{state.step:09d}.pt"
    temporary = run.temporary_file(final)
    content = {
        "state": dataclasses.asdict(state),
        "net": net.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    torch.save(content, temporary)
    publish(temporary, final)
    for old in _newest_first(run)[KEPT:]:
        old.unlink(missing_ok=True)


def load_checkpoint(run: TrainDir) -> dict[str, Any] | None:
    """Return the newest checkpoint that can be read, on the CPU; None where there is none."""
    for path in _newest_first(run):
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            continue  # another process has removed it, and so has written a newer one
        except (RuntimeError, EOFError, pickle.UnpicklingError, OSError) as error:
            log.warning("%s cannot be read (%s); going back to the one before", path, error)
    return None


def _newest_first(run: TrainDir) -> list[Path]:
    return sorted(run.checkpoints.glob("checkpoint-*.pt"), reverse=True)
