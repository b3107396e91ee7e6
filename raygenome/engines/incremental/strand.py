"""One strand of a stretch, from codes to effects: trunk, head and substitutions put together."""

import math
from collections.abc import Iterator

import numpy as np
import torch

from raygenome.engines.full import probability
from raygenome.engines.incremental.algorithms import COSTS, stage_form
from raygenome.engines.incremental.blocks import Stretch
from raygenome.engines.incremental.buffers import Scratch
from raygenome.engines.incremental.chain import Chain
from raygenome.engines.incremental.convolution import FastConv, batches
from raygenome.engines.incremental.head import Head
from raygenome.engines.incremental.substitutions import Substitutions
from raygenome.engines.incremental.trunk import StageRows, Trunk, index_tensor
from raygenome.engines.incremental.weights import WeightStore

#: Substitutions whose differences are computed at once.
_BATCH = {"cpu": 256, "cuda": 4096}


class StrandRunner:
    """Computes the effects of a stretch's alleles on one strand.

    Its weights are computed by the thread that makes it: one with one torch thread, so that they do
    not depend on how many cores a machine has.

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
            form = stage_form(stage, COSTS[gemm.device.type])
            weight = weights.spectral(f"stage{i}", form, stage.weight.transpose(1, 2))
            convs.append(FastConv(form, weight, stage.bias, gemm))
        self._trunk = Trunk(chain, convs, torch.from_numpy(table).to(gemm.device), gemm)
        self._head = Head(chain, gemm, weights)
        self._substitutions = [
            Substitutions(chain, centre, self._trunk.first, gemm, weights) for centre in centres
        ]

    def forms(self) -> str:
        """Return in a few words how the net is computed."""
        named = [f"convolution {i} {conv.form}" for i, conv in enumerate(self._trunk.convs, 2)]
        if self._head.form is not None:
            named.append(f"first linear layer {self._head.form} where variants are dense")
        return ", ".join(["products an output", *named])

    def effects(
        self, stretch: Stretch, strand: int, scratch: Scratch
    ) -> Iterator[tuple[np.ndarray, torch.Tensor, torch.Tensor]]:
        """Yield alleles (rows of the stretch), and their diff and log odds, float32 (n, targets).

        Alleles that change nothing do not come.
        """
        spliced = stretch.spliced.positions(self.chain)
        rows = self._trunk.run(stretch.codes, self._needed(stretch, spliced), scratch)
        features = rows[-1].pooled
        z_ref = self._head.anchored(features, stretch.anchors, scratch)
        reference = _Reference(self._head.logits(z_ref.clone()), stretch.window_of)
        if len(spliced):
            z = self._head.windows(features, spliced, scratch, "z spliced")
            yield reference.effects(stretch.spliced_rows, self._head.logits(z))
        substitutions = self._substitutions[strand]
        if substitutions.reaches:
            for alleles, z in self._substituted(stretch, substitutions, rows, z_ref, scratch):
                yield reference.effects(alleles, self._head.logits(z))

    def _substituted(
        self,
        stretch: Stretch,
        substitutions: Substitutions,
        rows: list[StageRows],
        z_ref: torch.Tensor,
        scratch: Scratch,
    ) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        """Yield substituted alleles and their windows' first pre-activations."""
        for part in batches(len(stretch.substituted), _BATCH[self._device.type]):
            alleles = stretch.substituted[part]
            window = stretch.window_of[alleles]
            z = substitutions.delta(
                stretch.codes, rows, stretch.anchors[window], stretch.bases[part], scratch
            )
            yield alleles, z.add_(z_ref.index_select(0, index_tensor(window, self._device)))

    def _needed(self, stretch: Stretch, spliced: np.ndarray) -> np.ndarray:
        """Return where features are needed, bool (positions,)."""
        needed = np.zeros(len(stretch.codes), dtype=bool)
        for i in range(self.chain.features):
            needed[stretch.anchors + i * self.chain.feature_stride] = True
        needed[spliced] = True
        return needed


class _Reference:
    """The outputs of reference windows, and which window each allele has."""

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
