"""Counts the work of an engine, and measures how much work the machine can do per second."""

import math
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from bench.inputs import seconds_of
from raygenome.engines.incremental.gemm import Gemm
from raygenome.genome.sequence import MemoryContig
from raygenome.genome.windows import Alleles

#: Operators that read or write only some rows of their first tensor.
_ROW_OPERATORS = ("index_select", "index.Tensor", "index_copy", "index_put", "embedding")
_PRODUCTS = ("aten::mm", "aten::addmm", "aten::linear", "mkldnn::_linear_pointwise")


class Work(NamedTuple):
    """The multiply-adds of matrix products, and the bytes that operators read and write."""

    macs: int
    bytes: int


class Machine(NamedTuple):
    """A device's rates per second: multiply-adds of a large product, bytes of a large copy."""

    macs: float
    bytes: float


def measure_machine(device: str, precision: str) -> Machine:
    """Return the best rates of several runs of a large matrix product and a large copy."""
    size, copied = (2048, 1 << 28) if device == "cpu" else (8192, 1 << 32)
    gemm = Gemm(torch.device(device), precision)
    x = torch.rand(size, size, device=device)
    weight = gemm.weight(torch.rand(size, size))
    x = x.to(weight.dtype)
    if precision == "bf16" and device == "cuda":  # without the conversion to float32 in `rows`

        def product() -> object:
            return torch.mm(x, weight)
    else:

        def product() -> object:
            return gemm.rows(x, weight)

    source = torch.zeros(copied // 4, device=device)
    target = torch.zeros_like(source)
    return Machine(
        size**3 / _best(device, product),
        2 * copied / _best(device, lambda: target.copy_(source)),
    )


def _best(device: str, work: Callable[[], object]) -> float:
    work()
    return min(seconds_of(device, work) for _ in range(5))


def count_work(engine: Any, alleles: Alleles, contig: MemoryContig) -> Work:
    """Run the engine on `alleles` in this thread, and return the work that it does."""
    pool, engine._pool = engine._pool, _InThisThread()
    try:
        with _Counter() as counter, torch.inference_mode():
            for _ in engine.effects(alleles, contig):
                pass
    finally:
        engine._pool = pool
    return Work(counter.macs, counter.bytes)


class _InThisThread:
    """An executor that runs functions in this thread, because dispatch modes are per thread."""

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(function(*arguments))
        return future


class _Counter(TorchDispatchMode):
    """Adds up the work of each operator."""

    def __init__(self) -> None:
        super().__init__()
        self.macs = 0
        self.bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        out = func(*args, **(kwargs or {}))
        name = str(func)
        if getattr(func, "is_view", False) or "empty" in name:
            return out
        tensors = [x for x in args if isinstance(x, torch.Tensor)]
        made = [out] if isinstance(out, torch.Tensor) else []
        if any(x.dtype == torch.float64 for x in [*tensors, *made]):
            return out  # preparing weights: once per process, not per allele
        schema = func._schema.name
        if schema in _PRODUCTS:
            one = tensors[-2] if schema == "aten::addmm" else tensors[0]
            self.macs += made[0].numel() * one.shape[-1]
        if any(part in name for part in _ROW_OPERATORS):
            rows = tensors[-1] if "copy" in name or "put" in name else made[0]
            self.bytes += 2 * _size(rows)
        else:
            self.bytes += sum(map(_size, tensors)) + sum(map(_size, made))
        return out


def _size(tensor: torch.Tensor) -> int:
    return math.prod(tensor.shape) * tensor.element_size()
