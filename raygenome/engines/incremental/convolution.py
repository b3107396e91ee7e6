"""Convolutions over rows that lie anywhere: gather, multiply, and give back rows.

A *store* is a float32 tensor (rows, channels) of activations at some positions, row 0 being zeros.
A convolution is asked for blocks of outputs; for each block an index says which rows of the store
are its inputs. Blocks of one batch are multiplied together, so that each weight matrix is read
once for all of them. Two ways to the same numbers:

* `DirectConv`: the definition, one output a block, all taps in one matrix product;
* `FastConv`: a bilinear form (see `bilinear`), many outputs a block.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from raygenome.engines.incremental.bilinear import Bilinear
from raygenome.engines.incremental.buffers import Scratch
from raygenome.engines.incremental.gemm import Gemm


class _Sizes(NamedTuple):
    """How much is multiplied at once on a kind of device.

    rows: of one matrix product, at most; more are no faster.
    batch: bytes that the spectra of one batch of blocks, and its products, may take.
    group: bytes of those that are transformed at once: on a CPU they stay in its cache.
    """

    rows: int
    batch: int
    group: int


_SIZES = {
    "cpu": _Sizes(rows=256, batch=96 << 20, group=8 << 20),
    "cuda": _Sizes(rows=8192, batch=1 << 30, group=1 << 30),
}


class DirectConv:
    """Outputs as written, z = bias + sum over k of W_k x_k.

    Args:
        weight: (outputs, taps * channels), as `gemm` takes it.
        taps: rows of the store under one output.
        bias: float32 (outputs,).
        gemm: what multiplies.
    """

    def __init__(self, weight: torch.Tensor, taps: int, bias: torch.Tensor, gemm: Gemm) -> None:
        self.outputs, columns = weight.shape
        self.channels = columns // taps
        self._weight = weight
        self._bias = bias.to(gemm.device, torch.float32)
        self._gemm = gemm
        sizes = _SIZES[gemm.device.type]
        self._batch = min(max(sizes.batch // (4 * columns), 32), sizes.rows)

    def __call__(
        self, store: torch.Tensor, index: torch.Tensor, scratch: Scratch
    ) -> Iterator[tuple[slice, torch.Tensor]]:
        """Yield outputs (n, outputs) and which they are, for `index` (all, taps) of `store`."""
        for part in batches(len(index), self._batch):
            rows = index[part]
            x = scratch.take("gathered", rows.numel(), self.channels)
            torch.index_select(store, 0, rows.reshape(-1), out=x)
            yield part, self._gemm.rows(x.view(len(rows), -1), self._weight, self._bias)


class FastConv:
    """Outputs by a bilinear form.

    Args:
        form: the form.
        weight: (products, outputs, channels), as `WeightStore.spectral` makes it.
        bias: float32 (outputs,), or None.
        gemm: what multiplies.
    """

    def __init__(
        self, form: Bilinear, weight: torch.Tensor, bias: torch.Tensor | None, gemm: Gemm
    ) -> None:
        self.form = form
        self.channels = weight.shape[2]
        self.outputs = weight.shape[1]
        self._weight = weight
        self._biases: list[torch.Tensor | None] = [None] * form.products
        if bias is not None:
            q, scale = form.bias()
            self._biases[q] = (bias.double() / scale).to(gemm.device, torch.float32)
        self._to_inputs = _constant(form.to_inputs, gemm)
        self._to_outputs = _constant(form.to_outputs, gemm)
        self._gemm = gemm
        sizes = _SIZES[gemm.device.type]
        block_bytes = 4 * form.products * max(self.channels, self.outputs)
        self._blocks = min(max(sizes.batch // block_bytes, 32), sizes.rows)
        self._group = max(sizes.group // block_bytes, 1)

    def __call__(
        self, store: torch.Tensor, index: torch.Tensor, scratch: Scratch
    ) -> Iterator[tuple[slice, torch.Tensor]]:
        """Yield outputs (M, blocks, outputs) and which blocks they are.

        Args:
            store: rows (rows, channels).
            index: rows of the store, (N, all blocks).
            scratch: of this thread.
        """
        for batch in batches(index.shape[1], self._blocks):
            for group, y in self._batch(store, index[:, batch], scratch):
                yield slice(batch.start + group.start, batch.start + group.stop), y

    def _batch(
        self, store: torch.Tensor, index: torch.Tensor, scratch: Scratch
    ) -> Iterator[tuple[slice, torch.Tensor]]:
        form, blocks = self.form, index.shape[1]
        groups = list(batches(blocks, self._group))
        spectrum = scratch.take("spectrum", form.products, blocks, self.channels)
        for group in groups:
            rows = index[:, group].reshape(-1)
            x = scratch.take("gathered", len(rows), self.channels)
            torch.index_select(store, 0, rows, out=x)
            y = self._gemm.mix(self._to_inputs, x.view(form.points, -1))
            spectrum[:, group] = y.view(form.products, -1, self.channels)
        flat = scratch.take("products", form.products * blocks, self.outputs)
        products = [
            flat[form.products * g.start : form.products * g.stop].view(
                form.products, -1, self.outputs
            )
            for g in groups
        ]
        for q, bias in enumerate(self._biases):
            y = self._gemm.rows(spectrum[q], self._weight[q], bias)
            for group, product in zip(groups, products, strict=True):
                product[q] = y[group]
        for group, product in zip(groups, products, strict=True):
            y = self._gemm.mix(self._to_outputs, product.view(form.products, -1))
            yield group, y.view(len(y), -1, self.outputs)


def batches(blocks: int, size: int) -> Iterator[slice]:
    """Yield slices of near equal length, at most `size`, that cover `blocks`."""
    parts = -(-blocks // size)
    for i in range(parts):
        yield slice(blocks * i // parts, blocks * (i + 1) // parts)


def _constant(matrix: np.ndarray, gemm: Gemm) -> torch.Tensor:
    return torch.from_numpy(matrix).to(gemm.device, torch.float32).contiguous()
