"""The head: linear layers on the features of windows.

The first layer reads all features of a window. It is most of a window's work once the trunk is
shared. Seen as a convolution along the lattice of the features, it gives the pre-activation at
*every* anchor of a lattice with about 2.2 products per anchor instead of DeepSEA's 53. Where
windows are dense, that is cheaper than window by window. The bilinear algorithms are those of any
convolution.
"""

import threading
from functools import cached_property

import numpy as np
import torch

from raygenome.engines.incremental.algorithms import COSTS, choose_head_algorithm, head_pays
from raygenome.engines.incremental.buffers import BufferPool
from raygenome.engines.incremental.chain import Chain
from raygenome.engines.incremental.convolution import DirectConv, FastConv
from raygenome.engines.incremental.gemm import Gemm
from raygenome.engines.incremental.trunk import Rows, cover, index_tensor
from raygenome.engines.incremental.weights import WeightStore


class LinearHead:
    """Runs the linear layers.

    The first layer's weights are made when they are first needed: they are large, and most runs
    need only one kind of them, direct or transformed.

    Args:
        chain: the net.
        gemm: computes the matrix products.
        weights: makes and holds the weights.
    """

    def __init__(self, chain: Chain, gemm: Gemm, weights: WeightStore) -> None:
        self._chain = chain
        self._gemm = gemm
        self._weights = weights
        self._costs = COSTS[gemm.device.type]
        self._first = chain.head[0]
        self.algorithm = choose_head_algorithm(self._first, self._costs)
        self.outputs = len(self._first.weight)
        self._lock = threading.Lock()
        self._exact = gemm.exact()
        self._rest = [
            (
                self._exact.weight(layer.weight.flatten(1)),
                layer.bias.to(gemm.device, torch.float32),
            )
            for layer in chain.head[1:]
        ]

    @cached_property
    def _direct(self) -> DirectConv:
        weight = self._gemm.weight(self._first.weight.flatten(1))
        return DirectConv(weight, self._chain.features, self._first.bias, self._gemm)

    @cached_property
    def _fast(self) -> FastConv:
        assert self.algorithm is not None
        weight = self._weights.spectral("head", self.algorithm, self._first.weight)
        return FastConv(self.algorithm, weight, self._first.bias, self._gemm)

    def windows(
        self, features: Rows, positions: np.ndarray, buffers: BufferPool, name: str
    ) -> torch.Tensor:
        """Return the first pre-activations, window by window: (n, outputs), in buffer `name`.

        Args:
            features: the trunk's last rows.
            positions: int64 (n, features), the positions of each window's features.
            buffers: of this thread.
            name: of the buffer.
        """
        z = buffers.take(name, len(positions), self.outputs)
        with self._lock:
            conv = self._direct
        index = index_tensor(features.of[positions], self._gemm.device)
        for part, some in conv(features.values, index, buffers):
            z[part] = some
        return z

    def anchored(self, features: Rows, anchors: np.ndarray, buffers: BufferPool) -> torch.Tensor:
        """Return the first pre-activations of windows of the genome: (n, outputs), in a buffer.

        Args:
            features: the trunk's last rows.
            anchors: int64 (n,), without repeats.
            buffers: of this thread.
        """
        stride = self._chain.feature_stride
        if self.algorithm is not None:
            starts = cover(np.sort(anchors), stride, self.algorithm.outputs)
            if head_pays(self.algorithm, self._first, len(starts), len(anchors), self._costs):
                return self._everywhere(features, anchors, starts, buffers)
        positions = anchors[:, None] + stride * np.arange(self._chain.features)
        return self.windows(features, positions, buffers, "z")

    def _everywhere(
        self, features: Rows, anchors: np.ndarray, starts: np.ndarray, buffers: BufferPool
    ) -> torch.Tensor:
        """Return the pre-activations at `anchors`, from blocks that begin at `starts`."""
        with self._lock:
            conv = self._fast
        algorithm, device = conv.algorithm, self._gemm.device
        reach = self._chain.feature_stride * np.arange(algorithm.points)[:, None]
        of = np.pad(features.of, (0, int(reach[-1, 0]) + 1))
        window = np.full(len(of), -1)
        window[anchors] = np.arange(len(anchors))
        z = buffers.take("z", len(anchors), self.outputs)
        for part, y in conv(features.values, index_tensor(of[starts + reach], device), buffers):
            made = window[starts[part] + reach[: algorithm.outputs]].reshape(-1)
            wanted = np.flatnonzero(made >= 0)
            rows = y.flatten(0, 1).index_select(0, index_tensor(wanted, device))
            z.index_copy_(0, index_tensor(made[wanted], device), rows)
        return z

    def logits(self, z: torch.Tensor) -> torch.Tensor:
        """Return the logits (n, targets) of first pre-activations `z`, which may be overwritten."""
        for i, (weight, bias) in enumerate(self._rest):
            z = self._exact.rows(self._chain.head[i].activation.apply_(z), weight, bias)
        return z
