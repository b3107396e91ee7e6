"""Writing a model directory, whole or not at all; what is in one is in `modeldir`."""

import dataclasses
import json
import shutil
import typing
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raygenome.errors import DataError, OutputError, StorageError, UsageError
from raygenome.genome.targets import Target, check_names, write_targets
from raygenome.models import ARCHITECTURES, net_class
from raygenome.registry.modeldir import (
    SPEC_FILE,
    TARGETS_FILE,
    WEIGHTS_FILE,
    ModelSpec,
    weights_digest,
)
from raygenome.storage.files import publish_folder, restore_folder

if typing.TYPE_CHECKING:
    from raygenome.models.net import Net


def save_model(
    directory: Path,
    net: "Net",
    *,
    name: str,
    targets: Sequence[Target],
    source: str,
    licence: str = "unknown",
    channels: str | None = None,
    n_value: float | None = None,
    training: dict[str, Any] | None = None,
    overwrite: bool = False,
) -> ModelSpec:
    """Write a model directory, whole or not at all, and return its spec.

    Everything is written under a temporary name beside `directory`, then renamed.

    Args:
        directory: the model directory to make.
        net: an instance of one of `ARCHITECTURES`; its config is stored with it.
        name: the name in model.json.
        targets: one per output.
        source: where the weights come from, in words.
        licence: of the weights.
        channels: order of the input channels; None takes the architecture's own.
        n_value: the value of all channels for N; None takes the architecture's own.
        training: how it was trained, plain values.
        overwrite: replace a model directory that is there.

    Raises:
        OutputError: `directory` exists and `overwrite` is false, or cannot be made.
        DataError: names of `targets` that cannot be columns, or not one target per output.
        StorageError: writing failed.
    """
    from raygenome.registry import weights

    refuse_existing(directory, overwrite=overwrite)
    spec = _spec_of(
        net,
        name=name,
        source=source,
        licence=licence,
        channels=channels,
        n_value=n_value,
        training=training,
    )
    check_names([target.name for target in targets], source=f"model {name!r}")
    if len(targets) != spec.targets:
        raise DataError(f"{len(targets)} targets given for a net of {spec.targets} outputs")
    temporary = directory.with_name(f".{directory.name}.{uuid.uuid4().hex}.tmp")
    try:
        temporary.mkdir(parents=True)
    except OSError as error:
        raise OutputError(f"cannot make a directory beside {directory}: {error.strerror}") from None
    try:
        weights.write_weights(temporary / WEIGHTS_FILE, net)
        spec = dataclasses.replace(spec, weights_sha256=weights_digest(temporary / WEIGHTS_FILE))
        write_targets(temporary / TARGETS_FILE, targets)
        text = json.dumps(dataclasses.asdict(spec), indent=2) + "\n"
        (temporary / SPEC_FILE).write_text(text, encoding="utf-8")
        publish_folder(temporary, directory)
    except OSError as error:
        raise StorageError(f"writing model directory {directory} failed: {error}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return spec


def refuse_existing(directory: Path, *, overwrite: bool) -> None:
    """Raise OutputError unless a model directory may be written at `directory`.

    Only a model directory (or an empty one) is ever replaced, and only with `overwrite`.
    """
    if not directory.exists():
        return
    if directory.is_dir() and not any(directory.iterdir()):
        return
    if not (directory / SPEC_FILE).is_file():
        raise OutputError(
            f"{directory} exists and is not a model directory", "choose another place"
        )
    if not overwrite:
        raise OutputError(
            f"model directory {directory} exists", "choose another name, or add --overwrite"
        )


def clean_up(directory: Path) -> None:
    """Remove the files that a process left beside `directory` when it died while saving a model.

    A model that it had moved aside is moved back unless another one took its place. No process may
    be saving there now.
    """
    restore_folder(directory)
    for temporary in directory.parent.glob(f".{directory.name}.*.tmp"):
        shutil.rmtree(temporary)


def _spec_of(net: "Net", **given: Any) -> ModelSpec:
    """Return the spec of `net` without the digest of its weights; `given` are other fields."""
    names = [name for name in ARCHITECTURES if type(net) is net_class(name)]
    if not names:
        raise UsageError(f"{type(net).__name__} is none of the nets in raygenome.models")
    window = net.config["window"]
    if given["channels"] is None:
        given["channels"] = net.ENCODING.channels
    if given["n_value"] is None:
        given["n_value"] = net.ENCODING.n_value
    return ModelSpec(
        architecture=names[0],
        config=net.config,
        window=window,
        centre=window // 2 - 1,
        targets=net.config["targets"],
        weights_sha256="",
        **given,
    )
