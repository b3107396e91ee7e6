"""Published checkpoints of the two nets, as Kipoi stores them, into model directories.

A checkpoint is a pickled state dict. Its keys number the layers of Kipoi's own net, behind a
prefix that depends on how it was wrapped; its convolutions are 2-D with the sequence along either
axis, or 1-D. Sources: github.com/kipoi/models, DeepSEA/model_architecture.py and
Basset/pretrained_model_reloaded_th.py.
"""

import hashlib
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch

from raygenome.errors import DataError, NoInput, UsageError
from raygenome.genome.targets import published_targets
from raygenome.models import LayeredNet, build
from raygenome.registry import registry, weights


class PublishedCheckpoint(NamedTuple):
    """One file of published weights; `size` is approximate, in bytes."""

    architecture: str
    url: str
    md5: str
    size: int
    licence: str


#: The files that are known, the one that `models pull` takes under its architecture's name.
#: Both DeepSEA files hold the same weights.
PUBLISHED = {
    "deepsea": PublishedCheckpoint(
        architecture="deepsea",
        url="https://zenodo.org/record/1466993/files/deepsea_variant_effects.pth?download=1",
        md5="35956ab9c28960b5a3693f470fe980c1",
        size=211_000_000,
        licence="CC-BY 3.0",
    ),
    "deepsea-predict": PublishedCheckpoint(
        architecture="deepsea",
        url="https://zenodo.org/record/1466993/files/deepsea_predict.pth?download=1",
        md5="89e640bf6bdbe1ff165f484d9796efc7",
        size=211_000_000,
        licence="CC-BY 3.0",
    ),
    "basset": PublishedCheckpoint(
        architecture="basset",
        url="https://zenodo.org/record/1466068/files/pretrained_model_reloaded_th.pth?download=1",
        md5="4878981d84499eb575abd0f3b45570d3",
        size=17_000_000,
        licence="MIT",
    ),
}

PREFIXES = ("", "1.", "2.", "module.", "model.")

#: Our layer by the number that Kipoi's net gives it. Its fully connected layers are `N.1`: the
#: second half of a pair whose first half flattens.
KIPOI_LAYERS = {
    "deepsea": {
        "conv1": "0",
        "conv2": "4",
        "conv3": "8",
        "full1": "12.1",
        "output": "14.1",
    },
    "basset": {
        "conv1": "0",
        "conv1_norm": "1",
        "conv2": "4",
        "conv2_norm": "5",
        "conv3": "8",
        "conv3_norm": "9",
        "full1": "13.1",
        "full1_norm": "14",
        "full2": "17.1",
        "full2_norm": "18",
        "output": "21.1",
    },
}


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
        file: a Kipoi checkpoint of DeepSEA or Basset.
        architecture: which net it is; found out from its keys where None.
        overwrite: replace a model of that name.

    Raises:
        UsageError: a name that cannot be, or an architecture that is not known.
        NoInput: the file is not there.
        DataError: it is no checkpoint, asks to run code, or does not fit the net; the message
            names the first key that is wrong, with the shape found and the shape needed.
        OutputError: the model exists, or cannot be made.
    """
    directory = registry.free_directory(name, overwrite=overwrite)
    if architecture is not None and architecture not in KIPOI_LAYERS:
        raise UsageError(
            f"checkpoints of {architecture!r} are not known; only of: {', '.join(KIPOI_LAYERS)}"
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
        NoInput: the file is not there.
        DataError: it is something else; the message says what, if that can be told.
    """
    try:
        with file.open("rb") as opened:
            head = opened.read(512)
    except OSError as error:
        raise NoInput(f"cannot read the checkpoint {file}: {error.strerror}") from None
    if head.startswith(b"version https://git-lfs"):
        raise DataError(
            f"{file} is a Git LFS pointer, not the weights; fetch them with `git lfs pull`"
        )
    if head.lstrip().startswith(b"<"):
        raise DataError(f"{file} is a web page, not a checkpoint; download the file itself again")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's doubts about pickle protocols
            loaded = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged pickles raise anything at all
        raise DataError(f"{file} {_fault(error)}") from error
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
    """Return the net of which most layers are among the keys of a Kipoi state dict."""

    def known_layers(architecture: str) -> int:
        numbers = KIPOI_LAYERS[architecture].values()
        return max(sum(f"{p}{number}.weight" in state for number in numbers) for p in PREFIXES)

    return max(KIPOI_LAYERS, key=known_layers)


def net_of(state: Mapping[str, torch.Tensor], architecture: str, *, source: str) -> LayeredNet:
    """Return the published net with the weights of a Kipoi state dict, float32, for evaluation.

    Raises:
        DataError: with `source`, where the keys are not those of the net, or a tensor does not
            fit: the first that is missing, or too many, or has another shape, dtype or values.
    """
    prefix = next((p for p in PREFIXES if f"{p}0.weight" in state), None)
    if prefix is None:
        raise DataError(
            f"{source}: no key is called 0.weight, alone or behind one of "
            f"{', '.join(PREFIXES[1:])}; the first is {next(iter(state))!r}: not a Kipoi checkpoint"
        )
    with torch.device("meta"):
        net = build(architecture)
    wanted = net.state_dict()
    keys = _kipoi_keys(wanted, architecture, prefix)
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


def _kipoi_keys(names: Iterable[str], architecture: str, prefix: str) -> dict[str, str]:
    """Return our names of tensors by the keys that a checkpoint has them under."""
    keys = {}
    for name in names:
        _, layer, field = name.split(".")
        keys[f"{prefix}{KIPOI_LAYERS[architecture][layer]}.{field}"] = name
    return keys


def _fault(error: Exception) -> str:
    """Return what torch.load has against a file; its own text advises to run untrusted code."""
    if wanted := re.search(r"GLOBAL ([\w.]+)", str(error)):
        return (
            f"would have to run code to load ({wanted[1]}), which is refused; "
            "save the net's state_dict() alone and import that"
        )
    return "is not a whole PyTorch checkpoint; download it again"


def _md5(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "md5").hexdigest()
