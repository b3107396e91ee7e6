"""The configuration of a training run: the fields of a YAML file in configs/, and their checks.

Every number of a published training procedure has a field here, so that `configs/deepsea.yaml` and
`configs/basset.yaml` are exactly the published procedures.
"""

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from raygenome.errors import DataError, NoInput, UsageError


class _Loader(yaml.SafeLoader):
    """YAML 1.2 where it matters: 1e-8 is a number, and `on` is a string."""


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        if tag not in ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:float")
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile("(true|false)$", re.IGNORECASE), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?$"),
    list("-+.0123456789"),
)

_Positive = Annotated[float, Field(gt=0)]
_Fraction = Annotated[float, Field(ge=0, lt=1)]
_Count = Annotated[int, Field(ge=1)]


class _Section(BaseModel):
    """A section of the configuration: no unknown keys, immutable, no conversion of types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Optimizer(_Section):
    """The update rule.

    Attributes:
        name: sgd, rmsprop or adamw, as in torch. sgd and rmsprop are exactly Torch7's rules
            (`optim.sgd`, `optim.rmsprop`).
        lr: the learning rate at step 0, or after the warm-up.
        momentum, dampening: for sgd. In Torch7 the default dampening equals the momentum.
        alpha: for rmsprop, smoothing of the mean square; Basset calls it momentum.
        betas: for adamw.
        eps: added to the root in rmsprop and adamw.
        weight_decay: for all parameters, biases included; decoupled in adamw. A penalty of L2 times
            the squared norm is weight_decay 2 * L2.
    """

    name: Literal["sgd", "rmsprop", "adamw"] = "adamw"
    lr: _Positive
    momentum: _Fraction = 0.0
    dampening: _Fraction = 0.0
    alpha: _Fraction = 0.99
    betas: tuple[_Fraction, _Fraction] = (0.9, 0.999)
    eps: _Positive = 1e-8
    weight_decay: Annotated[float, Field(ge=0)] = 0.0


class Schedule(_Section):
    """The learning rate over the steps t = 0, 1, ...

    Attributes:
        name: constant; inverse: lr / (1 + decay * t), as Torch7's learningRateDecay; cosine: falls
            to `final` * lr after the last step.
        decay: for inverse.
        warmup: the fraction of all steps over which the rate first rises linearly from 0.
        final: for cosine.
    """

    name: Literal["constant", "inverse", "cosine"] = "constant"
    decay: Annotated[float, Field(ge=0)] = 0.0
    warmup: _Fraction = 0.0
    final: Annotated[float, Field(ge=0, le=1)] = 0.0


class L1(_Section):
    """An L1 penalty, summed over batch and units.

    Attributes:
        weight: its factor.
        on: hidden: the output of the last hidden layer, as in DeepSEA's paper; logits: the output
            of the last layer before the sigmoid, with no gradient beyond that layer's own weights,
            as in DeepSEA's code.
    """

    weight: _Positive
    on: Literal["hidden", "logits"] = "hidden"


class Select(_Section):
    """Which epoch's model is kept.

    Attributes:
        by: validation loss (lower is better), or validation AUROC or AUPRC, mean over targets.
        patience: training ends after this many epochs without a better one; None: never early.
    """

    by: Literal["loss", "auroc", "auprc"] = "loss"
    patience: _Count | None = None


class TrainConfig(_Section):
    """The whole configuration.

    Attributes:
        architecture: key of `raygenome.models.ARCHITECTURES`.
        net: arguments of that net; window and targets come from the data.
        epochs: at most this many.
        epoch_samples: samples per epoch, drawn again for each epoch; None: all of them.
        batch_size: samples per step, over all workers together.
        seed: seed of the initial weights, the order of samples and the dropout.
        loss: binary cross entropy, as the mean or the sum over batch and targets.
        strands: forward: each window as it is; both: its reverse complement is a second sample;
            random: one of the two at random; alternate: by whole epochs, forward first.
        shift: each window moves by up to this many bases in either direction, filled with N.
        precision: fp32, tf32 (CUDA) or bf16 (autocast; weights and updates stay fp32).
        prior: whether the last layer's bias starts at the log odds of each target's fraction of
            positive windows, and not near 0, so that the first steps need not learn them.
        average: decay of an exponential moving average (EMA) of the weights, which is validated and
            kept in place of the weights; None: no EMA. See `objective.MovingAverage`.
        max_norm: the largest L2 norm of the weights of one output unit, of convolutions and linear
            layers, enforced after each step.
        min_positives: the fewest positive training windows that a target may have.
    """

    architecture: str
    net: dict[str, Any] = {}
    epochs: _Count
    epoch_samples: _Count | None = None
    batch_size: _Count
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    loss: Literal["mean", "sum"] = "mean"
    strands: Literal["forward", "both", "random", "alternate"] = "forward"
    shift: Annotated[int, Field(ge=0)] = 0
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    optimizer: Optimizer
    schedule: Schedule = Schedule()
    prior: bool = False
    average: _Fraction | None = None
    max_norm: _Positive | None = None
    l1: L1 | None = None
    select: Select = Select()
    min_positives: _Count = 1

    def plain(self) -> dict[str, Any]:
        """Return the configuration as plain JSON values."""
        return self.model_dump(mode="json")


_SECTIONS: dict[str, type[_Section]] = {
    "optimizer": Optimizer,
    "schedule": Schedule,
    "l1": L1,
    "select": Select,
}


def load_config(path: Path | str) -> TrainConfig:
    """Return the configuration in a YAML file.

    Raises:
        NoInput: there is no such file.
        DataError: it is not YAML, or not a configuration; the message names the first wrong field.
    """
    path = Path(path)
    try:
        found = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise NoInput(f"cannot read the config {path}: {error.strerror}") from None
    except yaml.MarkedYAMLError as error:
        mark, problem = error.problem_mark, error.problem or "wrong syntax"
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise DataError(f"{path}{where} is not YAML: {problem}", "correct the file") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8, or an impossible date
        raise DataError(
            f"{path} is not YAML: {' '.join(str(error).split())}", "correct the file"
        ) from None
    if not isinstance(found, dict):
        raise DataError(
            f"{path} holds no training config",
            "it needs at least architecture, epochs, batch_size and optimizer",
        )
    try:
        return make_config(found)
    except UsageError as error:
        raise DataError(f"{path}: {error.found}", error.do) from None


def make_config(values: dict[str, Any]) -> TrainConfig:
    """Return the configuration of plain values.

    Raises:
        UsageError: names the first wrong field, its value and what it must be.
    """
    try:
        # JSON's rules: a list may stand for a tuple and 1 for 1.0, but "1" is not a number.
        return TrainConfig.model_validate_json(json.dumps(values))
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        what = first["msg"][0].lower() + first["msg"][1:]
        if first["type"] == "missing":
            raise UsageError(f"{name} is missing in the config", "add it") from None
        if first["type"] == "extra_forbidden":
            inside = len(first["loc"]) > 1
            kind = _SECTIONS.get(str(first["loc"][0]), TrainConfig) if inside else TrainConfig
            raise UsageError(
                f"unknown key {name} in the config",
                f"the known keys are {', '.join(kind.model_fields)}",
            ) from None
        raise UsageError(f"{name} is {first['input']!r}: {what}") from None
    except (TypeError, ValueError) as error:
        raise UsageError(f"a config may hold plain values only ({error})") from None
