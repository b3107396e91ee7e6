"""The plain engine: the whole net on every window, both strands. This is what a score *is*.

    diff     = mean over strands of p_alt - p_ref             (p = sigmoid of the net's logit)
    log_odds = mean over strands of log2 odds_alt - log2 odds_ref = (logit_alt - logit_ref) / ln 2

Both follow the DeepSEA paper's definitions, whose scorer averages the strands after the logarithm.
Everything is taken in float32 before any rounding for storage.

A result must not depend on the number of workers or threads. Kernels choose their routines by shape
and thread count only. So every forward pass has one fixed batch shape (the last batch is padded),
and each batch runs on one thread; several batches run side by side. The calling thread, which may
have several torch threads, only adds, subtracts and divides single numbers.
"""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from raygenome.genome.sequence import COMPLEMENT, one_hot_table
from raygenome.genome.windows import (
    Alleles,
    Sequence,
    WindowSpec,
    alternate_windows,
    reference_windows,
)

#: How many alleles' windows are held at once; a multiple of every batch size.
_BLOCK = 512
#: Sequences per forward pass. On a CPU the activations of 16 stay in cache; a GPU needs many.
_BATCH = {"cpu": 16, "cuda": 512}


class Effects(NamedTuple):
    """Effects of consecutive alleles: float32 (n, targets), on the CPU."""

    diff: np.ndarray
    log_odds: np.ndarray


class FullEngine:
    """Runs a net on every window.

    Args:
        net: maps one-hot (batch, 4, width) float32 to logits (batch, targets).
        channels: the net's channel order, such as "AGCT".
        n_value: the value of all four channels for N.
        window_spec: its window.
        device: "cpu" or "cuda".
        precision: "fp32", "tf32" (CUDA only) or "bf16".
        both_strands: average the forward strand and the reverse complement.
        threads: on a CPU, how many forward passes run at once; each uses one core.
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        channels: str,
        n_value: float,
        window_spec: WindowSpec,
        device: str = "cpu",
        precision: str = "fp32",
        both_strands: bool = True,
        threads: int = 1,
    ) -> None:
        self._device = torch.device(device)
        self._net = net.to(self._device).eval()
        self._table = torch.from_numpy(one_hot_table(channels, n_value)).to(self._device)
        self._complement = torch.from_numpy(COMPLEMENT).to(self._device)
        self._window_spec = window_spec
        self._precision = precision
        self._both_strands = both_strands
        self._batch = _BATCH[self._device.type]
        self._callers_threads = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(
            max(threads, 1), "forward", initializer=torch.set_num_threads, initargs=(1,)
        )

    def algorithms(self) -> str:
        """Return in a few words how the net is computed."""
        return "the whole net on every window"

    def close(self) -> None:
        """End the threads, and restore torch's number of threads."""
        self._pool.shutdown()
        torch.set_num_threads(self._callers_threads)

    def effects(self, alleles: Alleles, sequence: Sequence) -> Iterator[Effects]:
        """Yield the effects of `alleles`, sorted by start, in their order, some rows at a time."""
        for begin in range(0, len(alleles.start), _BLOCK):
            yield self._block_effects(alleles.rows(begin, begin + _BLOCK), sequence)

    def _block_effects(self, alleles: Alleles, sequence: Sequence) -> Effects:
        # The ALTs of one position share its reference window, whichever records they came in.
        positions, position_of = np.unique(alleles.start, return_inverse=True)
        reference = reference_windows(positions, self._window_spec, sequence)
        alternate = alternate_windows(alleles, reference[position_of], self._window_spec, sequence)
        # An ALT that does not change the window has an effect of exactly zero.
        changed = (alternate != reference[position_of]).any(axis=1)

        # Axes: windows, (logit, probability), strands, targets.
        outputs = self._outputs(np.concatenate([reference, alternate[changed]]))
        ref = outputs[: len(positions)][torch.from_numpy(position_of[changed]).to(self._device)]
        alt = outputs[len(positions) :]
        difference = (alt - ref).mean(dim=2)
        diff, log_odds = difference[:, 1], difference[:, 0] / math.log(2)
        return Effects(_spread(diff, changed), _spread(log_odds, changed))

    def _outputs(self, codes: np.ndarray) -> torch.Tensor:
        """Return logits and probabilities of windows (n, width): (n, 2, strands, targets)."""
        padding = -len(codes) % self._batch
        padded = torch.from_numpy(np.pad(codes, ((0, padding), (0, 0))))
        batches = padded.split(self._batch)
        if self._device.type == "cpu":
            results = list(self._pool.map(self._forward, batches))
        else:
            results = [self._forward(batch) for batch in batches]
        return torch.cat(results)[: len(codes)]

    @torch.inference_mode()
    def _forward(self, codes: torch.Tensor) -> torch.Tensor:
        """Return the outputs of one full batch of windows, codes (batch, width)."""
        codes = codes.to(self._device).long()
        strands = [codes]
        if self._both_strands:
            strands.append(self._complement[codes.flip(1)].long())
        # (batch, width, 4) seen as (batch, 4, width): in memory the channels stay last, which
        # is the layout that convolutions run fastest in on a CPU.
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._precision == "bf16"):
            logits = [self._net(self._table[strand].transpose(1, 2)) for strand in strands]
        logit = torch.stack(logits, dim=1).float()
        return torch.stack([logit, probability(logit)], dim=1)


def probability(logits: torch.Tensor) -> torch.Tensor:
    """Return the sigmoid of `logits`; each value is independent of its place in the tensor.

    torch computes the last elements of each thread's share, those that do not fill a vector
    register, by another routine, whose last bit may differ. So the tensor is padded to whole
    registers, and this must run with one torch thread.
    """
    flat = logits.reshape(-1)
    padded = nn.functional.pad(flat, (0, -len(flat) % 64))
    return torch.sigmoid(padded)[: len(flat)].view(logits.shape)


def _spread(values: torch.Tensor, rows: np.ndarray) -> np.ndarray:
    """Return float32 (len(rows), targets): `values` where `rows` is true, zero elsewhere."""
    out = np.zeros((len(rows), values.shape[1]), dtype=np.float32)
    out[rows] = values.cpu().numpy()
    return out
