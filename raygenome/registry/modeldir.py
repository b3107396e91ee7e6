"""A model directory: what a net is, its weights and its outputs, in three files; see `saving`.

    model.json            a ModelSpec
    weights.safetensors   the weights, by the names of the net's own state dict
    targets.tsv           the outputs

Only what builds a net imports torch, inside the function, so that reading a spec stays quick.
"""

import dataclasses
import hashlib
import json
import typing
from pathlib import Path
from typing import Any

from raygenome.errors import DataError, NoInput, UsageError
from raygenome.genome.targets import Target, read_targets
from raygenome.storage.files import file_sha256

if typing.TYPE_CHECKING:
    from raygenome.models import LayeredNet

#: Version of the model directory; a reader of one refuses another.
FORMAT = 1
SPEC_FILE = "model.json"
WEIGHTS_FILE = "weights.safetensors"
TARGETS_FILE = "targets.tsv"


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """What model.json says.

    Attributes:
        name: what the registry calls it.
        architecture: key of `raygenome.models.ARCHITECTURES`; `config` are its arguments.
        channels: order of the input channels, such as "AGCT".
        window: input length in bases; `centre` is the 0-based index in it of a SNV.
        n_value: what all four channels hold for an N.
        targets: number of outputs.
        weights_sha256: hex digest of weights.safetensors.
        source: where the weights came from, in words.
        licence: of the weights; "unknown" where nobody said.
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
    """Return what a model directory's model.json says, checked; the weights are not opened.

    Raises:
        NoInput: there is no model.json.
        DataError: it is of another format version, lacks a field or contradicts itself.
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
            f"{path} has model format {found['format']}; this raygenome reads format {FORMAT}; "
            "import the model again, or use the raygenome that wrote it"
        )
    return _checked_spec(found, path)


def load_targets(directory: Path) -> list[Target]:
    """Return the targets of a model directory, one for each output, in order.

    Raises:
        NoInput, DataError: the table is missing or cannot be one (see `targets.read_targets`),
            or has another number of rows than the model has outputs.
    """
    spec = load_spec(directory)
    targets = read_targets(directory / TARGETS_FILE)
    if len(targets) != spec.targets:
        raise DataError(
            f"{directory / TARGETS_FILE} has {len(targets)} targets; "
            f"the model has {spec.targets} outputs"
        )
    return targets


def load_model(directory: Path) -> tuple["LayeredNet", ModelSpec]:
    """Return the net of a model directory, float32 on the CPU in evaluation mode, and its spec.

    Raises:
        NoInput: a file is missing.
        DataError: the weights are not those that model.json names by digest, or do not fit the
            net; or the architecture or its config is unknown here.
    """
    from raygenome.registry import weights

    net, spec = _checked_net(directory)
    path = directory / WEIGHTS_FILE
    weights.fill(net, weights.read_weights(path), source=str(path))
    return net.eval(), spec


def check_model(directory: Path) -> tuple["LayeredNet", ModelSpec]:
    """Return the net, empty, and the spec of a directory whose weights are those it was made with.

    Quicker than `load_model`: the weights are read once for their digest, and not kept; the net is
    on torch's "meta" device. They were checked when the directory was made.

    Raises:
        NoInput, DataError: as `load_model` and `load_targets` do.
    """
    checked = _checked_net(directory)
    load_targets(directory)
    return checked


def model_digest(directory: Path) -> str:
    """Return the sha256, in hex, of all of a model that decides what it answers.

    That is what model.json says but for its name and where it comes from, and the target table;
    the weights are in by their own digest.
    """
    spec = dataclasses.asdict(load_spec(directory))
    for about in ("name", "source", "licence", "training"):
        del spec[about]
    content = json.dumps(spec, sort_keys=True).encode() + (directory / TARGETS_FILE).read_bytes()
    return hashlib.sha256(content).hexdigest()


def _checked_net(directory: Path) -> tuple["LayeredNet", ModelSpec]:
    """Return the net without weights, on the meta device, once their digest is as it should be."""
    import torch

    from raygenome.models import build

    spec = load_spec(directory)
    path = directory / WEIGHTS_FILE
    found = weights_digest(path)
    if found != spec.weights_sha256:
        raise DataError(
            f"{path} has sha256 {found}; {SPEC_FILE} says {spec.weights_sha256}; "
            "the weights are damaged or not this model's: import it again"
        )
    try:
        with torch.device("meta"):  # no time spent on random weights that are replaced at once
            net = build(spec.architecture, spec.config)
    except UsageError as error:
        raise DataError(f"{directory / SPEC_FILE}: {error}") from None
    return net, spec


def _checked_spec(found: dict[str, Any], path: Path) -> ModelSpec:
    """Return the spec that a parsed model.json holds; raise DataError where it cannot be one."""
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
            "cannot be; the centre lies inside the window, and there is a target"
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
