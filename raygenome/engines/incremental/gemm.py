"""The fastest matrix products on this machine, with float32 sums for all input types.

torch multiplies float32 matrices on a CPU with MKL, which runs at half speed on AMD processors.
oneDNN, which torch includes for convolutions, runs at full speed on Intel and AMD. Its matrix
product is the operator that torch's own compiler emits. Where an installation lacks it, torch's
documented product takes its place: the same numbers up to rounding, but slower.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.nn import functional

_ONEDNN: Any = getattr(getattr(torch.ops, "mkldnn", None), "_linear_pointwise", None)


class Gemm:
    """Multiplies on one device in one precision.

    Args:
        device: the device of the matrices.
        precision: precision of the products with weights: "fp32", "tf32" (CUDA: factors rounded to
            10 bits), or "bf16" (factors rounded to bfloat16). Transforms and sums are float32 in
            all three.
    """

    def __init__(self, device: torch.device, precision: str) -> None:
        self.device = device
        self.dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self._onednn = device.type == "cpu" and _has_onednn()
        self.rounds = precision != "fp32"  # whether factors are rounded
        self._tf32 = precision == "tf32"

    def exact(self) -> "Gemm":
        """Return a `Gemm` for the same device that does not round factors."""
        return Gemm(self.device, "fp32")

    def weight(self, matrix: torch.Tensor) -> torch.Tensor:
        """Return `matrix` as the second factor of `rows`, on the device."""
        return matrix.to(self.device, self.dtype).contiguous()

    def rows(
        self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return x (n, inputs) times the transpose of `weight` (outputs, inputs), float32.

        With oneDNN, the result of a row does not depend on the other rows. That was tested for 2 to
        299 rows; a single row is doubled.
        """
        if len(x) == 1:  # a single row would take another routine, whose last bits differ
            return self.rows(x.expand(2, -1).contiguous(), weight, bias)[:1]
        if weight.dtype == torch.float32:
            if self._onednn:
                return _ONEDNN(x, weight, bias, "none", [], None)
            with _tf32(self._tf32):
                return functional.linear(x, weight, bias)
        x = x.to(weight.dtype)
        if self.device.type == "cuda":
            product = torch.mm(x, weight.t(), out_dtype=torch.float32)
        else:  # a CPU's product rounds its sums to bfloat16 once, at their end
            product = functional.linear(x, weight).float()
        return product if bias is None else product.add_(bias)

    def mix(self, matrix: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Return matrix (m, n) times x (n, columns), always in float32."""
        if self._onednn:
            return _ONEDNN(matrix, x.t(), None, "none", [], None)
        with _tf32(allowed=False):
            return torch.mm(matrix, x)


@contextlib.contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    """Set temporarily whether CUDA may round float32 factors; without CUDA it has no effect."""
    switch = torch.backends.cuda.matmul
    before = switch.allow_tf32
    switch.allow_tf32 = allowed
    try:
        yield
    finally:
        switch.allow_tf32 = before


def _has_onednn() -> bool:
    """Return whether oneDNN's product works here."""
    if _ONEDNN is None or not torch.backends.mkldnn.is_available():
        return False
    try:
        two = _ONEDNN(torch.ones(2, 3), torch.ones(4, 3), None, "none", [], None)
        three = _ONEDNN(
            torch.ones(2, 3), torch.ones(4, 3).t().contiguous().t(), None, "none", [], None
        )
    except (RuntimeError, TypeError):
        return False
    return bool((two == 3).all() and (three == 3).all())
