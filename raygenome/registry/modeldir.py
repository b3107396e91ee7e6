"""The files of a model directory, and reading the two small ones; `saving` writes all three.

    model.json            a ModelSpec
    weights.safetensors   the weights, by the names of the net's own state dict
    targets.tsv           the outputs

Callers open a model with `registry.model.Model`.
"""

import dataclasses
import json
import typing
from pathlib import Path
from typing import Any

from raygenome.errors import DataError, NoInput
from raygenome.genome.targets import Target, read_targets
from raygenome.storage.files import file_sha256

#: Version of the model directory; a reader of one refuses another.
FORMAT = 1
SPEC_FILE = "model.json"
WEIGHTS_FILE = "weights.safetensors"
TARGETS_FILE = "targets.tsv"


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """The content of model.json.

    Attributes:
        name: what the registry calls it.
        architecture: key of `raygenome.models.ARCHITECTURES`; `config` are its arguments.
        channels: order of the input channels, such as "AGCT".
        window: input length in bases; `centre` is the 0-based index in it of a SNV.
        n_value: what all four channels hold for an N.
        targets: number of outputs.
        weights_sha256: hex digest of weights.safetensors.
        source: where the weights came from, in words.
        licence: of the weights, or "unknown".
        training: of a model that was trained here: recipe, digest of the data, epoch, scores.
        format: version of the directory's format.
    """

    name: str
    architecture: str
    config: dict[str, Any]
    channels: str
    window: int
    centre: int
    n_value: float
    targets: int
    weights_sha256: str
    source: str
    licence: str
    training: dict[str, Any] | None = None
    format: int = FORMAT


def load_spec(directory: Path) -> ModelSpec:
    """Return a model directory's model.json, checked; the weights are not opened.

    Raises:
        NoInput: there is no model.json.
        DataError: it has another format version, lacks a field or contradicts itself.
    """
    path = directory / SPEC_FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise NoInput(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error})") from None
    if not isinstance(found, dict) or "format" not in found:
        raise DataError(f"{path} does not describe a model: it has no format number")
    if found["format"] != FORMAT:
        raise DataError(
            f"{path} has model format {found['format']}; this raygenome reads format {FORMAT}",
            "import the model again, or use the raygenome that wrote it",
        )
    return _checked_spec(found, path)


def load_targets(directory: Path, spec: ModelSpec) -> list[Target]:
    """Return the targets of a model directory, one for each output of `spec`, in order.

    Raises:
        NoInput: the table is missing.
        DataError: the table is damaged (see `targets.read_targets`), or it has another number of
            rows than the model has outputs.
    """
    targets = read_targets(directory / TARGETS_FILE)
    if len(targets) != spec.targets:
        raise DataError(
            f"{directory / TARGETS_FILE} has {len(targets)} targets; "
            f"the model has {spec.targets} outputs"
        )
    return targets


def _checked_spec(found: dict[str, Any], path: Path) -> ModelSpec:
    """Return the spec in a parsed model.json; raise DataError if it is not a valid one."""
    fields = typing.get_type_hints(ModelSpec)
    for name, hint in fields.items():
        if name == "training" and found.get(name) is None:
            continue
        if name not in found:
            raise DataError(f"{path} has no {name!r}, which a model needs")
        kind = (int, float) if hint is float else typing.get_origin(hint) or hint
        kind = dict if name == "training" else kind
        if not isinstance(found[name], kind) or isinstance(found[name], bool):
            raise DataError(f"{path}: {name} is {found[name]!r}, of the wrong type")
    if unknown := sorted(found.keys() - fields.keys()):
        raise DataError(f"{path} has {unknown[0]!r}, which is not known in format {FORMAT}")
    spec = ModelSpec(**found)
    if sorted(spec.channels) != sorted("ACGT"):
        raise DataError(f"{path}: channels is {spec.channels!r}; it must be a permutation of ACGT")
    if not 0 <= spec.centre < spec.window or spec.targets < 1:
        raise DataError(
            f"{path}: window {spec.window}, centre {spec.centre} and targets {spec.targets} "
            "cannot be; the centre must lie inside the window, and there must be a target"
        )
    for name in ("window", "targets"):
        if spec.config.get(name) != getattr(spec, name):
            raise DataError(
                f"{path}: {name} is {getattr(spec, name)}, but {spec.config.get(name)} in config"
            )
    return spec


def weights_digest(path: Path) -> str:
    """Return the hex digest of a file's bytes; raise NoInput where it cannot be read."""
    try:
        return file_sha256(path)
    except OSError as error:
        raise NoInput(f"cannot read {path}: {error.strerror}") from None
