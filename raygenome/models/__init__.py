"""The nets. A new one is a folder beside this file and a line in `ARCHITECTURES`.

    net.py         its class, a `models.net.Net`; imports torch
    published.py   its published weights: files, licence, key map; not needed if there are none
    targets.tsv    the outputs of the published weights

Importing this package does not import torch; building a net does.
"""

import importlib
import importlib.util
import inspect
import pkgutil
import typing
from collections.abc import Mapping
from importlib import resources
from typing import Any

from raygenome.errors import NoInput, UsageError
from raygenome.genome.targets import Target, read_targets
from raygenome.models.published import PublishedFile

if typing.TYPE_CHECKING:
    from raygenome.models.net import Net

#: The class of each net, as module:name.
ARCHITECTURES = {
    "basset": "raygenome.models.basset.net:Basset",
    "beluga": "raygenome.models.beluga.net:Beluga",
    "deepsea": "raygenome.models.deepsea.net:DeepSEA",
}


def net_class(architecture: str) -> type["Net"]:
    """Return the class of a net; raise UsageError where no net has that name."""
    if architecture not in ARCHITECTURES:
        raise UsageError(
            f"no architecture is called {architecture!r}; there are: {', '.join(ARCHITECTURES)}"
        )
    return pkgutil.resolve_name(ARCHITECTURES[architecture])


def build(architecture: str, config: Mapping[str, Any] | None = None) -> "Net":
    """Return a new net with torch's own random weights, in training mode.

    Args:
        architecture: a key of `ARCHITECTURES`.
        config: keyword arguments of that net; those not given are as published.

    Raises:
        UsageError: no such architecture, or an argument that the net does not take.
    """
    net = net_class(architecture)
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


def _published(architecture: str) -> Any:
    """Return a net's module `published`, or None if it has none."""
    name = f"{__name__}.{architecture}.published"
    return importlib.import_module(name) if importlib.util.find_spec(name) else None


#: The files of published weights, by the names that `models pull` takes.
PUBLISHED: dict[str, PublishedFile] = {}
#: For each net with published weights: the number that they give to each of our layers.
CHECKPOINT_LAYERS: dict[str, dict[str, str]] = {}
for _name in ARCHITECTURES:
    if _module := _published(_name):
        PUBLISHED |= _module.FILES
        CHECKPOINT_LAYERS[_name] = _module.LAYERS


def published_targets(architecture: str) -> list[Target]:
    """Return the targets of a net's published weights, in the order of its outputs.

    Raises:
        NoInput: no table is shipped for this architecture.
    """
    table = resources.files(__name__) / architecture / "targets.tsv"
    if not table.is_file():
        raise NoInput(f"no table of published targets for architecture {architecture!r}")
    with resources.as_file(table) as path:
        return read_targets(path)


def default_targets(architecture: str, count: int) -> list[Target]:
    """Return the published targets if there are `count`, else numbered ones: target_0 ..."""
    try:
        published = published_targets(architecture)
    except NoInput:
        published = []
    if len(published) == count:
        return published
    return [Target(i, f"target_{i}", "", "", "", "") for i in range(count)]
