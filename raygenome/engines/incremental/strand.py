"""One strand of a sequence block, from codes to effects: trunk, head and substitutions."""

import math
from collections.abc import Iterator

import numpy as np
import torch

from raygenome.engines.full import probability
from raygenome.engines.incremental.algorithms import COSTS, choose_algorithm
from raygenome.engines.incremental.blocks import SequenceBlock
from raygenome.engines.incremental.buffers import BufferPool
from raygenome.engines.incremental.chain import Chain
from raygenome.engines.incremental.convolution import FastConv, batches
from raygenome.engines.incremental.head import LinearHead
from raygenome.engines.incremental.substitutions import Substitutions
from raygenome.engines.incremental.trunk import StageRows, Trunk, index_tensor
from raygenome.engines.incremental.weights import WeightStore

#: Number of substitutions that are computed at once.
_BATCH = {"cpu": 256, "cuda": 4096}


class StrandRunner:
    """Computes the effects of a sequence block's alleles on one strand.

    The thread that constructs it computes its weights. That must be a thread with one torch thread,
    so that the weights do not depend on the number of cores.

    Args:
        chain: the net.
        table: one-hot rows, float32 (5, 4).
        centres: index of the first changed base in its window, by strand.
        weights: makes and holds the weights; its `gemm` multiplies.
    """

    def __init__(
        self,
        chain: Chain,
        table: np.ndarray,
        centres: tuple[int, ...],
        weights: WeightStore,
    ) -> None:
        gemm = weights.gemm
        self.chain = chain = weights.hold(chain)
        self._device = gemm.device
        convs = []
        for i, stage in enumerate(chain.stages[1:], 1):
            algorithm = choose_algorithm(stage, COSTS[gemm.device.type])
            weight = weights.spectral(f"stage{i}", algorithm, stage.weight.transpose(1, 2))
            convs.append(FastConv(algorithm, weight, stage.bias, gemm))
        self._trunk = Trunk(chain, convs, torch.from_numpy(table).to(gemm.device), gemm)
        self._head = LinearHead(chain, gemm, weights)
        self._substitutions = [
            Substitutions(chain, centre, self._trunk.first, gemm, weights) for centre in centres
        ]

    def algorithms(self) -> str:
        """Return in a few words how the net is computed."""
        named = [f"convolution {i} {conv.algorithm}" for i, conv in enumerate(self._trunk.convs, 2)]
        if self._head.algorithm is not None:
            named.append(f"first linear layer {self._head.algorithm} where variants are dense")
        return f"products per output: {', '.join(named)}"

    def effects(
        self, block: SequenceBlock, strand: int, buffers: BufferPool
    ) -> Iterator[tuple[np.ndarray, torch.Tensor, torch.Tensor]]:
        """Yield alleles (rows of the block), and their diff and log odds, float32 (n, targets).

        Alleles that change nothing are left out.
        """
        indels = block.indels.positions(self.chain)
        rows = self._trunk.run(block.codes, self._needed(block, indels), buffers)
        features = rows[-1].pooled
        z_ref = self._head.anchored(features, block.anchors, buffers)  # (windows, head outputs)
        reference = _Reference(self._head.logits(z_ref.clone()), block.window_of)
        if len(indels):
            z = self._head.windows(features, indels, buffers, "z indels")  # (indels, head outputs)
            yield reference.effects(block.indel_rows, self._head.logits(z))
        substitutions = self._substitutions[strand]
        if substitutions.reaches:
            for alleles, z in self._substituted(block, substitutions, rows, z_ref, buffers):
                yield reference.effects(alleles, self._head.logits(z))

    def _substituted(
        self,
        block: SequenceBlock,
        substitutions: Substitutions,
        rows: list[StageRows],
        z_ref: torch.Tensor,
        buffers: BufferPool,
    ) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        """Yield substituted alleles and their windows' first pre-activations."""
        for part in batches(len(block.substituted), _BATCH[self._device.type]):
            alleles = block.substituted[part]
            window = block.window_of[alleles]
            z = substitutions.delta(
                block.codes, rows, block.anchors[window], block.bases[part], buffers
            )
            yield alleles, z.add_(z_ref.index_select(0, index_tensor(window, self._device)))

    def _needed(self, block: SequenceBlock, indels: np.ndarray) -> np.ndarray:
        """Return where features are needed, bool (positions,)."""
        needed = np.zeros(len(block.codes), dtype=bool)
        for i in range(self.chain.features):
            needed[block.anchors + i * self.chain.feature_stride] = True
        needed[indels] = True
        return needed


class _Reference:
    """The outputs of reference windows, and the window of each allele."""

    def __init__(self, logits: torch.Tensor, window_of: np.ndarray) -> None:
        self._logits = logits
        self._probabilities = probability(logits)
        self._window_of = window_of

    def effects(
        self, alleles: np.ndarray, logits: torch.Tensor
    ) -> tuple[np.ndarray, torch.Tensor, torch.Tensor]:
        """Return `alleles`, and diff and log odds (n, targets) of their logits (n, targets)."""
        window = index_tensor(self._window_of[alleles], logits.device)
        diff = probability(logits).sub_(self._probabilities.index_select(0, window))
        log_odds = logits.sub_(self._logits.index_select(0, window)).div_(math.log(2))
        return alleles, diff, log_odds
