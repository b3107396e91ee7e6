"""The registry: models by name, each a directory under $RAYGENOME_HOME/models or in the package.

Reading a model is `model.Model.open`. Listing models does not import torch.
"""

import dataclasses
import logging
import os
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from raygenome.errors import NoInput, OutputError, RaygenomeError, UsageError
from raygenome.genome.targets import Target
from raygenome.models import build, default_targets
from raygenome.registry.modeldir import (
    SPEC_FILE,
    TARGETS_FILE,
    WEIGHTS_FILE,
    ModelSpec,
    load_spec,
)
from raygenome.registry.saving import refuse_existing, save_model
from raygenome.storage.bucket import is_remote
from raygenome.storage.cache import local_folder
from raygenome.storage.home import home

__all__ = [
    "ModelSpec",
    "check_name",
    "free_directory",
    "home",
    "init_model",
    "list_models",
    "models_dir",
    "resolve",
    "save_model",
]

logger = logging.getLogger(__name__)

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def models_dir() -> Path:
    """Return the directory that holds the user's model directories; it need not exist."""
    return home() / "models"


def bundled_dir() -> Path:
    """Return the directory of the models that are part of the package."""
    return Path(str(resources.files("raygenome.registry") / "bundled"))


def check_name(name: str) -> str:
    """Return `name` if it is a valid name of a model; raise UsageError if not."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be a model's name",
            "use up to 64 of a-z, 0-9, '.', '_', '-', the first a letter or digit",
        )
    return name


def free_directory(name: str, *, overwrite: bool) -> Path:
    """Return where a new model of this name goes.

    Raises:
        UsageError: the name is not valid.
        OutputError: there is one already and `overwrite` is false, or it comes with the program.
    """
    if (bundled_dir() / check_name(name) / SPEC_FILE).is_file():
        raise OutputError(f"model {name!r} comes with raygenome; choose another name")
    directory = models_dir() / name
    refuse_existing(directory, overwrite=overwrite)
    return directory


def resolve(name_or_dir: str | Path) -> Path:
    """Return the model directory that a name in the registry, or a path, stands for.

    A name with a slash is a path, and so is a model directory in the current folder. A model in an
    object store is fetched once for all processes of this machine.

    Raises:
        NoInput: there is no such model; the message says which there are.
    """
    text = str(name_or_dir)
    if is_remote(text):
        return local_folder(text, (SPEC_FILE, WEIGHTS_FILE, TARGETS_FILE))
    path = Path(text)
    is_path = isinstance(name_or_dir, Path) or "/" in text or os.sep in text
    if is_path or (path / SPEC_FILE).is_file():
        if not (path / SPEC_FILE).is_file():
            raise NoInput(
                f"{text} is not a model directory: it has no {SPEC_FILE}{_model_below(path)}"
            )
        return path
    if _NAME.fullmatch(text):
        for parent in (models_dir(), bundled_dir()):
            if (parent / text / SPEC_FILE).is_file():
                return parent / text
    there = ", ".join(directory.name for directory in _directories()) or "none"
    raise NoInput(
        f"no model is called {text!r}; there are: {there}",
        "get one with `raygenome models pull`, `models import` or `models init`, or give a model "
        "directory" + _model_below(path),
    )


def _model_below(path: Path) -> str:
    """Return an addition to the message where `path` is a training run and not its model."""
    model = path / "model"
    return f"; the model of that training run is {model}" if (model / SPEC_FILE).is_file() else ""


def list_models() -> list[ModelSpec]:
    """Return the models of the registry by name, each under the name that finds it.

    A directory whose model.json cannot be read is left out, with a warning.
    """
    specs = []
    for directory in _directories():
        try:
            specs.append(dataclasses.replace(load_spec(directory), name=directory.name))
        except RaygenomeError as error:
            logger.warning("left out: %s", error)
    return specs


def init_model(
    name: str,
    architecture: str,
    seed: int,
    *,
    config: Mapping[str, Any] | None = None,
    targets: Sequence[Target] | None = None,
    directory: Path | None = None,
    overwrite: bool = False,
) -> ModelSpec:
    """Write a model of random weights, the same for the same seed, for tests and benchmarks.

    Args:
        name: what the registry calls it.
        architecture: key of `ARCHITECTURES`.
        seed: of the random weights.
        config: arguments of the net; as published where None.
        targets: its outputs; None takes the published ones if there are as many, else numbers.
        directory: where to write it; in the registry where None.
        overwrite: replace a model that is there.

    Raises:
        UsageError: no such architecture or config, or the name is not valid.
        OutputError: the model exists, or cannot be made.
    """
    import torch

    from raygenome.registry import weights

    if directory is None:
        directory = free_directory(name, overwrite=overwrite)
    if targets is not None:
        config = {"targets": len(targets), **(config or {})}
    with torch.random.fork_rng(devices=[]):  # building draws weights, which are replaced
        net = build(architecture, config)
    weights.randomise(net, seed)
    if targets is None:
        targets = default_targets(architecture, net.config["targets"])
    return save_model(
        directory,
        net,
        name=name,
        targets=targets,
        source=f"random weights of seed {seed}",
        licence="none needed",
        overwrite=overwrite,
    )


def _directories() -> list[Path]:
    """Return every model directory that has a name, the user's and the bundled, by name."""
    found: dict[str, Path] = {}
    for parent in (models_dir(), bundled_dir()):
        for spec in parent.glob(f"*/{SPEC_FILE}"):
            if _NAME.fullmatch(spec.parent.name):
                found.setdefault(spec.parent.name, spec.parent)
    return [found[name] for name in sorted(found)]
