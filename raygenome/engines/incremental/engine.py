"""The incremental engine: the plain engine's numbers, without computing anything twice.

    alleles ──chunks──► stretch ──► trunk ──► reference windows ──► logits_ref
                        (codes,      (rows     (z_ref)                  │
                         windows)     shared)   + substitutions (dz) ──► logits_alt ──► effects
                                                 spliced windows (z) ──►

Both strands go the same way, the other one on the reverse complement of the stretch. Chunks are
cut by what the trunk of their windows takes in memory, and nothing of one reaches another: so a
result depends on its shard alone, whoever computes it and beside whom.
"""

import math
import queue
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch

from raygenome.engines.full import Effects
from raygenome.engines.incremental.chain import Chain
from raygenome.engines.incremental.convolution import FastConv, batches
from raygenome.engines.incremental.forms import COSTS, stage_form
from raygenome.engines.incremental.gemm import Gemm
from raygenome.engines.incremental.head import Head
from raygenome.engines.incremental.scratch import Scratch
from raygenome.engines.incremental.stretch import Stretch, make_stretch
from raygenome.engines.incremental.substitutions import Substitutions
from raygenome.engines.incremental.trunk import StageRows, Trunk, index_tensor
from raygenome.engines.incremental.weights import WeightStore
from raygenome.genome.sequence import one_hot_table
from raygenome.genome.windows import Alleles, Frame, Sequence

#: Alleles of a chunk, at most, and bytes that its trunk may take.
_CHUNK = {"cpu": (8192, 192 << 20), "cuda": (1 << 16, 8 << 30)}
#: Substitutions whose differences are computed at once.
_BATCH = {"cpu": 256, "cuda": 4096}
#: Rows of effects that are given at once.
_BLOCK = 512


class IncrementalEngine:
    """Runs a chain on stretches of genome.

    Args:
        chain: the net.
        channels: its channel order, such as "AGCT".
        n_value: what its four channels hold for N.
        frame: its window.
        device: "cpu" or "cuda".
        precision: "fp32", "tf32" (CUDA only), or "bf16": the large products take rounded factors;
            sums, pre-activations, differences, the first convolution and the head's last layers
            stay float32.
        both_strands: average the forward strand and the reverse complement.
        threads: strands of chunks computed side by side on a CPU; each uses one core.
        share_as: names the model by content; processes of this machine that give the same name
            hold the weights together.
    """

    name = "incremental"

    def __init__(
        self,
        chain: Chain,
        *,
        channels: str,
        n_value: float,
        frame: Frame,
        device: str = "cpu",
        precision: str = "fp32",
        both_strands: bool = True,
        threads: int = 1,
        share_as: str | None = None,
    ) -> None:
        self._chain = chain
        self._frame = frame
        self._device = torch.device(device)
        self._strands = 2 if both_strands else 1
        gemm = Gemm(self._device, precision)
        self._weights = WeightStore(gemm, share_as)
        self._trunk = self._make_trunk(one_hot_table(channels, n_value), gemm)
        self._head = Head(chain, gemm, self._weights)
        centres = (frame.centre, frame.width - 1 - frame.centre)[: self._strands]
        self._substitutions = [
            Substitutions(chain, centre, self._trunk.first, gemm, self._weights)
            for centre in centres
        ]
        threads = max(threads, 1) if device == "cpu" else 1
        self._ahead = threads + 1
        self._callers_threads = torch.get_num_threads()
        self._scratch: queue.SimpleQueue[Scratch] = queue.SimpleQueue()
        for _ in range(threads):
            self._scratch.put(Scratch(self._device))
        self._pool = ThreadPoolExecutor(
            threads, "strand", initializer=torch.set_num_threads, initargs=(1,)
        )

    def _make_trunk(self, table: np.ndarray, gemm: Gemm) -> Trunk:
        convs = []
        for i, stage in enumerate(self._chain.stages[1:], 1):
            form = stage_form(stage, COSTS[self._device.type])
            weight = self._weights.spectral(f"stage{i}", form, stage.weight.transpose(1, 2))
            convs.append(FastConv(form, weight, stage.bias, gemm))
        return Trunk(self._chain, convs, torch.from_numpy(table).to(self._device), gemm)

    def forms(self) -> str:
        """Return in a few words how the net is computed."""
        named = [
            *(f"stage {i} {conv.form}" for i, conv in enumerate(self._trunk.convs, 2)),
            f"head {self._head.form or 'as written'}",
        ]
        return "; ".join(named)

    def close(self) -> None:
        """End the threads, give torch back the number that it had, and let go of the weights."""
        self._pool.shutdown(cancel_futures=True)
        torch.set_num_threads(self._callers_threads)
        self._weights.close()

    def effects(self, alleles: Alleles, sequence: Sequence) -> Iterator[Effects]:
        """Yield the effects of `alleles`, sorted by start, in their order, some rows at a time."""
        under_way: deque[list[Future[Effects]]] = deque()
        try:
            for begin, end in cut(alleles, self._chain, *_CHUNK[self._device.type]):
                stretch = make_stretch(alleles.rows(begin, end), self._frame, self._chain, sequence)
                under_way.append(
                    [
                        self._pool.submit(self._strand, strand, stretch)
                        for strand in range(self._strands)
                    ]
                )
                while len(under_way) * self._strands > self._ahead:
                    yield from _blocks(under_way.popleft())
            while under_way:
                yield from _blocks(under_way.popleft())
        finally:
            for futures in under_way:
                for future in futures:
                    future.cancel()

    @torch.inference_mode()
    def _strand(self, strand: int, stretch: Stretch) -> Effects:
        """Return the effects of a stretch's alleles on one strand."""
        scratch = self._scratch.get()
        try:
            if strand == 1:
                stretch = stretch.reversed(self._frame.width)
            return self._effects(stretch, self._substitutions[strand], scratch)
        finally:
            self._scratch.put(scratch)

    def _effects(self, stretch: Stretch, substitutions: Substitutions, scratch: Scratch) -> Effects:
        spliced = stretch.spliced.positions(self._chain)
        rows = self._trunk.run(stretch.codes, self._needed(stretch, spliced), scratch)
        features = rows[-1].pooled
        z_ref = self._head.anchored(features, stretch.anchors, scratch)
        out = _Outputs(self._head.logits(z_ref.clone()), stretch.window_of)
        if len(spliced):
            z = self._head.windows(features, spliced, scratch, "z spliced")
            out.add(stretch.spliced_rows, self._head.logits(z))
        if substitutions.reaches:
            self._substitute(stretch, substitutions, rows, z_ref, scratch, out)
        return Effects(out.diff, out.log_odds)

    def _substitute(
        self,
        stretch: Stretch,
        substitutions: Substitutions,
        rows: list[StageRows],
        z_ref: torch.Tensor,
        scratch: Scratch,
        out: "_Outputs",
    ) -> None:
        for part in batches(len(stretch.substituted), _BATCH[self._device.type]):
            alleles = stretch.substituted[part]
            window = stretch.window_of[alleles]
            z = substitutions.delta(
                stretch.codes, rows, stretch.anchors[window], stretch.bases[part], scratch
            )
            z += z_ref.index_select(0, index_tensor(window, self._device))
            out.add(alleles, self._head.logits(z))

    def _needed(self, stretch: Stretch, spliced: np.ndarray) -> np.ndarray:
        """Return where features are needed, bool (positions,)."""
        needed = np.zeros(len(stretch.codes), dtype=bool)
        for i in range(self._chain.features):
            needed[stretch.anchors + i * self._chain.feature_stride] = True
        needed[spliced] = True
        return needed


class _Outputs:
    """Effects of one strand, filled in as they come; what is never filled in is exactly zero."""

    def __init__(self, reference: torch.Tensor, window_of: np.ndarray) -> None:
        self._logit = reference
        self._probability = torch.sigmoid(reference)
        self._window_of = window_of
        shape = (len(window_of), reference.shape[1])
        self.diff = np.zeros(shape, dtype=np.float32)
        self.log_odds = np.zeros(shape, dtype=np.float32)

    def add(self, alleles: np.ndarray, logits: torch.Tensor) -> None:
        """Take the logits (n, targets) of `alleles`' alternate windows."""
        window = index_tensor(self._window_of[alleles], logits.device)
        diff = torch.sigmoid(logits).sub_(self._probability.index_select(0, window))
        log_odds = (logits - self._logit.index_select(0, window)).div_(math.log(2))
        self.diff[alleles] = diff.cpu().numpy()
        self.log_odds[alleles] = log_odds.cpu().numpy()


def _blocks(strands: list[Future[Effects]]) -> Iterator[Effects]:
    """Yield the mean of the strands, some rows at a time."""
    mean, *others = (future.result() for future in strands)
    for other in others:  # two at most: the order of the sum is no question
        for total, more in zip(mean, other, strict=True):
            total += more
            total *= 0.5
    for begin in range(0, len(mean.diff), _BLOCK):
        rows = slice(begin, begin + _BLOCK)
        yield Effects(mean.diff[rows], mean.log_odds[rows])


def cut(alleles: Alleles, chain: Chain, most: int, most_bytes: int) -> Iterator[tuple[int, int]]:
    """Yield the row ranges of chunks: each of `most` alleles or `most_bytes` of trunk, at most.

    An allele adds to a trunk the positions since the one before, or a window's own lattices if
    that is less; one that is spliced may add as much again.
    """
    per_base, per_window = trunk_bytes(chain)
    step = np.diff(alleles.start, prepend=alleles.start[:1] - chain.width)
    cost = np.minimum(step * per_base, per_window)
    lengths = np.fromiter((len(alt) for alt in alleles.alt), np.int64, len(alleles.alt))
    cost += np.where((lengths == 1) & (alleles.ref_length == 1), 0, per_window)
    upto = np.cumsum(cost)
    begin = 0
    while begin < len(upto):
        before = upto[begin - 1] if begin else 0
        end = int(np.searchsorted(upto, before + most_bytes, side="right"))
        end = min(max(end, begin + 1), begin + most, len(upto))
        yield begin, end
        begin = end


def trunk_bytes(chain: Chain) -> tuple[int, int]:
    """Return the bytes that a trunk holds for a base where all is shared, and for one window."""
    per_base = per_window = 0
    for i, stage in enumerate(chain.stages):
        kept = i > 0  # the first stage's convolution is not
        row = 4 * len(stage.weight)
        per_base += row * (1 + kept)
        per_window += row * (stage.groups + stage.outputs * kept)
    return per_base, per_window
