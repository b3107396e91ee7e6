"""Choosing the engine that runs a net, and making it."""

from collections.abc import Iterator
from typing import Any, Literal, Protocol

from torch import nn

from raygenome.engines.full import Effects, FullEngine
from raygenome.engines.incremental.engine import IncrementalEngine
from raygenome.engines.incremental.planner import NoChainError, plan_chain
from raygenome.genome.windows import Alleles, Sequence


class Engine(Protocol):
    """Computes effects."""

    def effects(self, alleles: Alleles, sequence: Sequence) -> Iterator[Effects]:
        """Yield the effects of `alleles`, sorted by start, in their order, some rows at a time."""

    def algorithms(self) -> str:
        """Return in a few words how the net is computed, for a user to read."""

    def close(self) -> None:
        """End its threads."""


def choose_engine(wanted: str, net: nn.Module) -> tuple[Literal["incremental", "full"], str]:
    """Return the engine for `net`, and why it is not the incremental one, or "".

    Args:
        wanted: "auto", "incremental" or "full".
        net: as `models.build` returns it; it may be on torch's "meta" device.
    """
    if wanted == "full":
        return "full", ""
    try:
        plan_chain(net)
    except NoChainError as error:
        return "full", str(error)
    return "incremental", ""


def make_engine(
    name: str, net: nn.Module, *, share_as: str | None = None, **options: Any
) -> Engine:
    """Return an engine.

    Args:
        name: "incremental" or "full", as `choose_engine` returned it.
        net: with its weights, on the CPU.
        share_as: the model's digest; workers of one machine then share its weights.
        **options: arguments that both engines take; see `FullEngine`.
    """
    if name == "full":
        return FullEngine(net, **options)
    return IncrementalEngine(plan_chain(net), share_as=share_as, **options)
