"""The nets: a new one is a file beside these and a line in `ARCHITECTURES`."""

import inspect
from collections.abc import Mapping
from typing import Any

from raygenome.errors import UsageError
from raygenome.models.basset import Basset
from raygenome.models.deepsea import DeepSEA
from raygenome.models.layers import LayeredNet

ARCHITECTURES: dict[str, type[LayeredNet]] = {"basset": Basset, "deepsea": DeepSEA}


def build(architecture: str, config: Mapping[str, Any] | None = None) -> LayeredNet:
    """Return a new net with torch's own random weights, in training mode.

    Args:
        architecture: a key of `ARCHITECTURES`.
        config: keyword arguments of that net; what is not given is as published.

    Raises:
        UsageError: no such architecture, or a config that it cannot take.
    """
    if architecture not in ARCHITECTURES:
        names = ", ".join(sorted(ARCHITECTURES))
        raise UsageError(f"no architecture is called {architecture!r}; there are: {names}")
    net = ARCHITECTURES[architecture]
    config = dict(config or {})
    known = inspect.signature(net).parameters
    for key, value in config.items():
        if key not in known:
            raise UsageError(
                f"{architecture} takes no {key!r}; it takes: {', '.join(sorted(known))}"
            )
        wants_list = isinstance(known[key].default, tuple)
        if wants_list != isinstance(value, list | tuple):
            needed = "a list of numbers" if wants_list else "one number"
            raise UsageError(f"{key} is {value!r}; it must be {needed}")
    return net(**config)
