"""The head: linear layers on the features of windows.

Its first layer reads all features of a window, and is most of a window's work once the trunk is
shared. Read as a convolution along the features' lattice, it gives the pre-activation at *every*
anchor of a lane for about 2.2 products an anchor in place of DeepSEA's 53: where windows are dense
that is cheaper than window by window, by the same bilinear form as any convolution.
"""

import threading
from functools import cached_property

import numpy as np
import torch

from raygenome.engines.incremental.algorithms import COSTS, head_form, head_pays
from raygenome.engines.incremental.buffers import Scratch
from raygenome.engines.incremental.chain import Chain
from raygenome.engines.incremental.convolution import DirectConv, FastConv
from raygenome.engines.incremental.gemm import Gemm
from raygenome.engines.incremental.trunk import Rows, cover, index_tensor
from raygenome.engines.incremental.weights import WeightStore


class Head:
    """Runs the linear layers.

    Its first layer's weights are made when first needed, since they are large and a run needs one
    kind of them at most times.

    Args:
        chain: the net.
        gemm: what multiplies.
        weights: makes and holds the weights.
    """

    def __init__(self, chain: Chain, gemm: Gemm, weights: WeightStore) -> None:
        self._chain = chain
        self._gemm = gemm
        self._weights = weights
        self._costs = COSTS[gemm.device.type]
        self._first = chain.head[0]
        self.form = head_form(self._first, self._costs)
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
        assert self.form is not None
        weight = self._weights.spectral("head", self.form, self._first.weight)
        return FastConv(self.form, weight, self._first.bias, self._gemm)

    def windows(
        self, features: Rows, positions: np.ndarray, scratch: Scratch, name: str
    ) -> torch.Tensor:
        """Return the first pre-activations, window by window: (n, outputs), in scratch `name`.

        Args:
            features: the trunk's last rows.
            positions: int64 (n, features), those of each window.
            scratch: of this thread.
            name: of the buffer.
        """
        z = scratch.take(name, len(positions), self.outputs)
        with self._lock:
            conv = self._direct
        index = index_tensor(features.of[positions], self._gemm.device)
        for part, some in conv(features.values, index, scratch):
            z[part] = some
        return z

    def anchored(self, features: Rows, anchors: np.ndarray, scratch: Scratch) -> torch.Tensor:
        """Return the first pre-activations of windows of the genome: (n, outputs), in scratch.

        Args:
            features: the trunk's last rows.
            anchors: int64 (n,), each once.
            scratch: of this thread.
        """
        stride = self._chain.feature_stride
        if self.form is not None:
            starts = cover(np.sort(anchors), stride, self.form.outputs)
            if head_pays(self.form, self._first, len(starts), len(anchors), self._costs):
                return self._everywhere(features, anchors, starts, scratch)
        positions = anchors[:, None] + stride * np.arange(self._chain.features)
        return self.windows(features, positions, scratch, "z")

    def _everywhere(
        self, features: Rows, anchors: np.ndarray, starts: np.ndarray, scratch: Scratch
    ) -> torch.Tensor:
        """Return those of `anchors`, from blocks that begin at `starts`."""
        with self._lock:
            conv = self._fast
        form, device = conv.form, self._gemm.device
        reach = self._chain.feature_stride * np.arange(form.points)[:, None]
        of = np.pad(features.of, (0, int(reach[-1, 0]) + 1))
        window = np.full(len(of), -1)
        window[anchors] = np.arange(len(anchors))
        z = scratch.take("z", len(anchors), self.outputs)
        for part, y in conv(features.values, index_tensor(of[starts + reach], device), scratch):
            made = window[starts[part] + reach[: form.outputs]].reshape(-1)
            wanted = np.flatnonzero(made >= 0)
            rows = y.flatten(0, 1).index_select(0, index_tensor(wanted, device))
            z.index_copy_(0, index_tensor(made[wanted], device), rows)
        return z

    def logits(self, z: torch.Tensor) -> torch.Tensor:
        """Return the logits (n, targets) of first pre-activations z; z may be overwritten."""
        for i, (weight, bias) in enumerate(self._rest):
            z = self._exact.rows(self._chain.head[i].activation.apply_(z), weight, bias)
        return z
