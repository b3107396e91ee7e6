"""Convolutions over rows in any order: gather the inputs, multiply, return rows.

A *store* is a float32 tensor (rows, channels) of activations at some positions; row 0 is zeros. A
convolution computes blocks of outputs; an index gives the rows of the store that are the inputs of
each block. The blocks of one batch are multiplied together, so that each weight matrix is read once
for all of them. There are two ways to the same numbers:

* `DirectConv`: the definition, one output per block, all taps in one matrix product;
* `FastConv`: a bilinear algorithm (see `bilinear`), many outputs per block.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from raygenome.engines.incremental.bilinear import Bilinear
from raygenome.engines.incremental.buffers import BufferPool
from raygenome.engines.incremental.gemm import Gemm


class _Sizes(NamedTuple):
    """How much is multiplied at once on one kind of device.

    Attributes:
        rows: the most rows of one matrix product; more are no faster.
        batch: the most bytes of the spectra of one batch of blocks, and of its products.
        group: the most bytes transformed at once; on a CPU they stay in its cache.
    """

    rows: int
    batch: int
    group: int


_SIZES = {
    "cpu": _Sizes(rows=256, batch=96 << 20, group=8 << 20),
    "cuda": _Sizes(rows=8192, batch=1 << 30, group=1 << 30),
}


class DirectConv:
    """Outputs by the definition, z = bias + sum over k of W_k x_k.

    Args:
        weight: (outputs, taps * channels), as `gemm` takes it.
        taps: rows of the store under one output.
        bias: float32 (outputs,).
        gemm: computes the matrix products.
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
        self, store: torch.Tensor, index: torch.Tensor, buffers: BufferPool
    ) -> Iterator[tuple[slice, torch.Tensor]]:
        """Yield slices of the blocks and their outputs (n, outputs), for `index` (all, taps)."""
        for part in batches(len(index), self._batch):
            rows = index[part]
            x = buffers.take("gathered", rows.numel(), self.channels)
            torch.index_select(store, 0, rows.reshape(-1), out=x)
            yield part, self._gemm.rows(x.view(len(rows), -1), self._weight, self._bias)


class FastConv:
    """Outputs by a bilinear algorithm.

    Args:
        algorithm: its constant matrices.
        weight: (products, outputs, channels), as `WeightStore.spectral` makes it.
        bias: float32 (outputs,), or None.
        gemm: computes the matrix products.
    """

    def __init__(
        self, algorithm: Bilinear, weight: torch.Tensor, bias: torch.Tensor | None, gemm: Gemm
    ) -> None:
        self.algorithm = algorithm
        self.channels = weight.shape[2]
        self.outputs = weight.shape[1]
        self._weight = weight
        self._biases: list[torch.Tensor | None] = [None] * algorithm.products
        if bias is not None:
            q, scale = algorithm.bias()
            self._biases[q] = (bias.double() / scale).to(gemm.device, torch.float32)
        self._to_inputs = _constant(algorithm.to_inputs, gemm)
        self._to_outputs = _constant(algorithm.to_outputs, gemm)
        self._gemm = gemm
        sizes = _SIZES[gemm.device.type]
        block_bytes = 4 * algorithm.products * max(self.channels, self.outputs)
        self._blocks = min(max(sizes.batch // block_bytes, 32), sizes.rows)
        self._group = max(sizes.group // block_bytes, 1)

    def __call__(
        self, store: torch.Tensor, index: torch.Tensor, buffers: BufferPool
    ) -> Iterator[tuple[slice, torch.Tensor]]:
        """Yield slices of the blocks and their outputs (M, blocks, outputs).

        Args:
            store: rows (rows, channels).
            index: rows of the store, (N, all blocks).
            buffers: of this thread.
        """
        for batch in batches(index.shape[1], self._blocks):
            for group, y in self._batch(store, index[:, batch], buffers):
                yield slice(batch.start + group.start, batch.start + group.stop), y

    def _batch(
        self, store: torch.Tensor, index: torch.Tensor, buffers: BufferPool
    ) -> Iterator[tuple[slice, torch.Tensor]]:
        algorithm, blocks = self.algorithm, index.shape[1]
        groups = list(batches(blocks, self._group))
        spectrum = buffers.take("spectrum", algorithm.products, blocks, self.channels)
        for group in groups:
            rows = index[:, group].reshape(-1)
            x = buffers.take("gathered", len(rows), self.channels)
            torch.index_select(store, 0, rows, out=x)
            y = self._gemm.mix(self._to_inputs, x.view(algorithm.points, -1))
            spectrum[:, group] = y.view(algorithm.products, -1, self.channels)
        flat = buffers.take("products", algorithm.products * blocks, self.outputs)
        products = [
            flat[algorithm.products * g.start : algorithm.products * g.stop].view(
                algorithm.products, -1, self.outputs
            )
            for g in groups
        ]
        for q, bias in enumerate(self._biases):
            y = self._gemm.rows(spectrum[q], self._weight[q], bias)
            for group, product in zip(groups, products, strict=True):
                product[q] = y[group]
        for group, product in zip(groups, products, strict=True):
            y = self._gemm.mix(self._to_outputs, product.view(algorithm.products, -1))
            yield group, y.view(len(y), -1, self.outputs)


def batches(blocks: int, size: int) -> Iterator[slice]:
    """Yield slices of nearly equal length, at most `size`, that together cover `blocks`."""
    parts = -(-blocks // size)
    for i in range(parts):
        yield slice(blocks * i // parts, blocks * (i + 1) // parts)


def _constant(matrix: np.ndarray, gemm: Gemm) -> torch.Tensor:
    return torch.from_numpy(matrix).to(gemm.device, torch.float32).contiguous()
