"""The best model so far: kept in memory at the epoch, written when a checkpoint is."""

from pathlib import Path
from typing import Any

import torch

import raygenome
from raygenome.datasets.packed import Dataset
from raygenome.models import build
from raygenome.models.net import Net
from raygenome.registry.saving import save_model
from raygenome.training.config import Recipe


class Best:
    """Weights that are to become a model directory.

    Args:
        recipe, dataset: what trained them.
    """

    def __init__(self, recipe: Recipe, dataset: Dataset) -> None:
        self._recipe, self._dataset = recipe, dataset
        self._line: dict[str, Any] | None = None
        self._config: dict[str, Any] = {}
        self._weights: dict[str, torch.Tensor] = {}

    def take(self, line: dict[str, Any], net: Net) -> None:
        """Remember the weights that `net` has after the epoch of this line of the log."""
        self._line, self._config = line, net.config
        self._weights = {
            name: value.detach().to("cpu", copy=True) for name, value in net.state_dict().items()
        }

    def export(self, directory: Path) -> None:
        """Write what is remembered as a model directory, with where it came from inside."""
        if self._line is None:
            return
        with torch.device("meta"):
            net = build(self._recipe.architecture, self._config)
        net.load_state_dict(self._weights, assign=True)
        line = self._line
        save_model(
            directory,
            net,
            name=directory.parent.name,
            targets=self._dataset.targets,
            source=f"trained by raygenome {raygenome.__version__}",
            training={
                "recipe": self._recipe.plain(),
                "data_digest": self._dataset.digest,
                "epoch": line["epoch"],
                "step": line["step"],
                "scores": {key: value for key, value in line.items() if key.startswith("valid_")},
            },
            overwrite=True,
        )
        self._line, self._weights = None, {}
