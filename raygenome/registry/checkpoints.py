"""Published checkpoints, as Kipoi stores them, into model directories.

A checkpoint is a pickled state dict. Its keys number the layers of the published net, after a
prefix; each net's `published.py` maps them to our layers. Its convolutions are 2-D with the
sequence along either axis, or 1-D.
"""

import hashlib
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from raygenome.errors import DataError, NoInput, UsageError
from raygenome.models import CHECKPOINT_LAYERS, PUBLISHED, build, published_targets
from raygenome.models.net import Net
from raygenome.registry import registry, weights

#: What may stand before a key, depending on how the net was wrapped when it was saved.
PREFIXES = ("", "1.", "2.", "module.", "model.")


def import_checkpoint(
    name: str,
    file: Path,
    architecture: str | None = None,
    *,
    overwrite: bool = False,
) -> registry.ModelSpec:
    """Make the model `name` of the registry from a checkpoint file, and return its spec.

    Args:
        name: what the registry will call it.
        file: a published checkpoint of one of the nets.
        architecture: which net it is; None finds out from its keys.
        overwrite: replace a model of that name.

    Raises:
        UsageError: the name is not allowed, or the architecture is not known.
        NoInput: the file is missing.
        DataError: it is not a checkpoint, asks to run code, or does not fit the net; the message
            names the first key that is wrong, with the shape found and the shape needed.
        OutputError: the model exists, or cannot be made.
    """
    directory = registry.free_directory(name, overwrite=overwrite)
    if architecture is not None and architecture not in CHECKPOINT_LAYERS:
        raise UsageError(
            f"checkpoints of {architecture!r} are not known; only of: "
            f"{', '.join(CHECKPOINT_LAYERS)}"
        )
    state = read_state(file)
    if architecture is None:
        architecture = architecture_of(state)
    net = net_of(state, architecture, source=str(file))
    md5 = _md5(file)
    known = next((entry for entry in PUBLISHED.values() if entry.md5 == md5), None)
    return registry.save_model(
        directory,
        net,
        name=name,
        targets=published_targets(architecture),
        source=f"{known.url if known else file.name} (md5 {md5})",
        licence=known.licence if known else "unknown",
        overwrite=overwrite,
    )


def read_state(file: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a pickled state dict by key; no code in it is ever run.

    Raises:
        NoInput: the file is missing.
        DataError: it is not a state dict; the message says what it is, where that is known.
    """
    try:
        with file.open("rb") as opened:
            head = opened.read(512)
    except OSError as error:
        raise NoInput(f"cannot read the checkpoint {file}: {error.strerror}") from None
    if head.startswith(b"version https://git-lfs"):
        raise DataError(
            f"{file} is a Git LFS pointer, not the weights", "fetch them with `git lfs pull`"
        )
    if head.lstrip().startswith(b"<"):
        raise DataError(f"{file} is a web page, not a checkpoint", "download the file itself again")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's doubts about pickle protocols
            loaded = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged pickles raise errors of any class
        raise _unreadable(file, error) from error
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict) or not loaded:
        raise DataError(f"{file} holds a {type(loaded).__name__}; it needs a state dict")
    for key, value in loaded.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            raise DataError(
                f"{file}: {key!r} is a {type(value).__name__}; a state dict holds tensors by name"
            )
    return dict(loaded)


def architecture_of(state: Mapping[str, torch.Tensor]) -> str:
    """Return the net of which most layers are among the keys of a checkpoint."""

    def known_layers(architecture: str) -> int:
        numbers = CHECKPOINT_LAYERS[architecture].values()
        return max(sum(f"{p}{number}.weight" in state for number in numbers) for p in PREFIXES)

    return max(CHECKPOINT_LAYERS, key=known_layers)


def net_of(state: Mapping[str, torch.Tensor], architecture: str, *, source: str) -> Net:
    """Return the published net with the weights of a checkpoint, float32, for evaluation.

    Raises:
        DataError: with `source`, where the keys are not those of the net, or a tensor does not
            fit: the first that is missing, or too many, or has another shape, dtype or values.
    """
    first = f"{next(iter(CHECKPOINT_LAYERS[architecture].values()))}.weight"
    prefix = next((p for p in PREFIXES if f"{p}{first}" in state), None)
    if prefix is None:
        raise DataError(
            f"{source}: no key is called {first}, alone or after one of "
            f"{', '.join(PREFIXES[1:])}; the first is {next(iter(state))!r}",
            f"this is not a checkpoint of {architecture}",
        )
    with torch.device("meta"):
        net = build(architecture)
    wanted = net.state_dict()
    keys = _checkpoint_keys(wanted, architecture, prefix)
    # Only a running mean without momentum needs this count, and old versions did not store it.
    counts = {key: torch.zeros((), dtype=torch.int64) for key in keys if key.endswith("_tracked")}
    state = {**state, **counts}
    weights.check_names(keys, state, source=f"{source} as {architecture}")
    fitted = {
        name: state[key] if key in counts else _fit(key, state[key], wanted[name].shape, source)
        for key, name in keys.items()
    }
    weights.fill(net, fitted, source=source)
    return net.eval()


def _fit(key: str, found: torch.Tensor, shape: torch.Size, source: str) -> torch.Tensor:
    """Return one tensor of a checkpoint, checked, as float32 in our shape."""
    if not found.is_floating_point():
        raise DataError(f"{source}: {key} is {found.dtype}; it needs floating-point numbers")
    converted = found.to(torch.float32)
    weights.check_tensor(key, converted, *_shapes(shape), source=source)
    return converted.reshape(shape)


def _shapes(shape: torch.Size) -> list[tuple[int, ...]]:
    """Return the shapes in which a checkpoint may hold what is of `shape` here.

    A weight (outputs, inputs, 1, width) comes with its width along either axis, with no other
    axis, or as the matrix of a fully connected layer. All lie in memory in the same order.
    """
    if len(shape) != 4:
        return [tuple(shape)]
    outputs, inputs, _, width = shape
    return [
        (outputs, inputs, 1, width),
        (outputs, inputs, width, 1),
        (outputs, inputs, width),
        (outputs, inputs * width),
    ]


def _checkpoint_keys(names: Iterable[str], architecture: str, prefix: str) -> dict[str, str]:
    """Return our names of tensors by the keys that a checkpoint has them under."""
    keys = {}
    for name in names:
        layer, _, field = name.removeprefix("layers.").rpartition(".")
        keys[f"{prefix}{CHECKPOINT_LAYERS[architecture][layer]}.{field}"] = name
    return keys


def _unreadable(file: Path, error: Exception) -> DataError:
    """Return our words for an error of torch.load, whose own text advises to run untrusted code."""
    if wanted := re.search(r"GLOBAL ([\w.]+)", str(error)):
        return DataError(
            f"{file} would have to run code to load ({wanted[1]}), which is refused",
            "save the net's state_dict() alone and import that",
        )
    return DataError(f"{file} is not a whole PyTorch checkpoint", "download it again")


def _md5(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "md5").hexdigest()
