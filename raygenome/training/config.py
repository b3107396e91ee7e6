"""The recipe of a training run: what a YAML in configs/ may say, checked as a whole.

Every number of a published recipe has a field here, so that `configs/deepsea.yaml` and
`configs/basset.yaml` are the published optimisers and nothing else.
"""

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from raygenome.errors import DataError, NoInput, UsageError


class _Loader(yaml.SafeLoader):
    """YAML as people write it: 1e-8 is a number and `on` a word, as in YAML 1.2."""


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


class _Part(BaseModel):
    """A part of a recipe: no unknown keys, no change, no guessing of types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Optimizer(_Part):
    """The update rule.

    Attributes:
        name: sgd, rmsprop or adamw, each torch's own. For sgd and rmsprop these are Torch7's rules
            to the letter (`optim.sgd`, `optim.rmsprop`).
        lr: the learning rate at step 0, after any warm-up.
        momentum, dampening: of sgd. Torch7's default dampening is the momentum.
        alpha: smoothing of rmsprop's mean square; Basset calls it momentum.
        betas: of adamw.
        eps: added to the root in rmsprop and adamw.
        weight_decay: of all parameters, biases too; decoupled in adamw. For a penalty of L2 times
            the squared norm it is 2 * L2.
    """

    name: Literal["sgd", "rmsprop", "adamw"] = "adamw"
    lr: _Positive
    momentum: _Fraction = 0.0
    dampening: _Fraction = 0.0
    alpha: _Fraction = 0.99
    betas: tuple[_Fraction, _Fraction] = (0.9, 0.999)
    eps: _Positive = 1e-8
    weight_decay: Annotated[float, Field(ge=0)] = 0.0


class Schedule(_Part):
    """The learning rate over the steps t = 0, 1, ...

    Attributes:
        name: constant; inverse: lr / (1 + decay * t), as Torch7's learningRateDecay; cosine: down
            to `final` of lr behind the last step.
        decay: of inverse.
        warmup: the share of all steps over which the rate first rises in a line from 0.
        final: of cosine.
    """

    name: Literal["constant", "inverse", "cosine"] = "constant"
    decay: Annotated[float, Field(ge=0)] = 0.0
    warmup: _Fraction = 0.0
    final: Annotated[float, Field(ge=0, le=1)] = 0.0


class L1(_Part):
    """An L1 penalty, summed over batch and units.

    Attributes:
        weight: its factor.
        on: hidden: the output of the last hidden layer, as DeepSEA's text has it; logits: the
            output of the last layer before the sigmoid, with the gradient stopping at that layer's
            own weights, as DeepSEA's code does.
    """

    weight: _Positive
    on: Literal["hidden", "logits"] = "hidden"


class Select(_Part):
    """Which epoch is kept.

    Attributes:
        by: valid loss (lower is better), or mean valid AUROC or AUPRC over the targets.
        patience: epochs without a better one after which training ends; None never does.
    """

    by: Literal["loss", "auroc", "auprc"] = "loss"
    patience: _Count | None = None


class Recipe(_Part):
    """A whole recipe.

    Attributes:
        architecture: key of `raygenome.models.ARCHITECTURES`.
        net: arguments of that net; window and targets come from the data.
        epochs: at most so many.
        epoch_samples: samples an epoch; all where None. Each epoch draws its own.
        batch_size: samples a step, over all workers together.
        seed: of the first weights, the order of samples and the dropout.
        loss: binary cross entropy, as the mean over batch and targets, or their sum.
        strands: forward: each window as it is; both: its reverse complement is a sample of its own;
            random: a coin decides for each; alternate: whole epochs, forward first.
        shift: each window is moved by up to so many bases either way, N moving in.
        precision: fp32, tf32 (CUDA) or bf16 (autocast; weights and updates stay fp32).
        prior: whether the last layer's bias begins at the log odds of each target's share of
            positive windows, and not near 0, so that the first steps need not find them.
        average: decay of a moving average of the weights, which is what is validated and kept;
            None keeps the weights themselves. See `averaging`.
        max_norm: the largest L2 norm of the weights of one output unit, convolutions and full
            layers alike, enforced after each step.
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
        """Return the recipe as plain JSON values."""
        return self.model_dump(mode="json")


_PARTS: dict[str, type[_Part]] = {
    "optimizer": Optimizer,
    "schedule": Schedule,
    "l1": L1,
    "select": Select,
}


def load_recipe(path: Path | str) -> Recipe:
    """Return the recipe that a YAML file holds.

    Raises:
        NoInput: no such file.
        DataError: it is not YAML, or not a recipe; the message names the first field that is wrong.
    """
    path = Path(path)
    try:
        found = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise NoInput(f"cannot read the recipe {path}: {error.strerror}") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: no UTF-8, or no such date
        raise DataError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(found, dict):
        raise DataError(
            f"{path} holds no recipe; it needs at least architecture, epochs, "
            "batch_size and optimizer"
        )
    try:
        return make_recipe(found)
    except UsageError as error:
        raise DataError(f"{path}: {error}") from None


def make_recipe(values: dict[str, Any]) -> Recipe:
    """Return the recipe of plain values.

    Raises:
        UsageError: with the first field that is wrong, what it holds and what it needs.
    """
    try:
        # JSON's rules: a list may stand for a tuple and 1 for 1.0, but "1" is no number.
        return Recipe.model_validate_json(json.dumps(values))
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        what = first["msg"][0].lower() + first["msg"][1:]
        if first["type"] == "missing":
            raise UsageError(f"{name} is missing; a recipe needs it") from None
        if first["type"] == "extra_forbidden":
            inside = len(first["loc"]) > 1
            kind = _PARTS.get(str(first["loc"][0]), Recipe) if inside else Recipe
            raise UsageError(
                f"there is no {name}; there are {', '.join(kind.model_fields)}"
            ) from None
        raise UsageError(f"{name} is {first['input']!r}: {what}") from None
    except (TypeError, ValueError) as error:
        raise UsageError(f"a recipe holds plain values only ({error})") from None
