"""The incremental engine: the plain engine's numbers, without computing anything twice.

    alleles ──chunks──► sequence ──► trunk ──► reference windows ──► logits_ref
                        block         (shared   (z_ref)                  │
                        (codes,        rows)     + substitutions (dz) ──► logits_alt ──► effects
                         windows)                indel windows (z) ─────►

Both strands go the same way, the reverse strand on the reverse complement of the block. Chunks are
cut by the memory that the trunk of their windows takes. Chunks share nothing, so a result depends
on its shard alone, and not on the worker or on other shards.
"""

import queue
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch

from raygenome.engines.full import Effects
from raygenome.engines.incremental.blocks import SequenceBlock, make_block
from raygenome.engines.incremental.buffers import BufferPool
from raygenome.engines.incremental.chain import Chain
from raygenome.engines.incremental.convolution import batches
from raygenome.engines.incremental.gemm import Gemm
from raygenome.engines.incremental.strand import StrandRunner
from raygenome.engines.incremental.trunk import index_tensor
from raygenome.engines.incremental.weights import WeightStore
from raygenome.genome.sequence import one_hot_table
from raygenome.genome.windows import Alleles, Sequence, WindowSpec

#: The most alleles in a chunk, and about the most bytes in its trunk.
CHUNK = {"cpu": (8192, 256 << 20), "cuda": (1 << 16, 2 << 30)}
#: Rows of effects that are yielded at once.
_BLOCK = 512


class _Chunk:
    """The effects of a chunk; alleles that no strand adds to have exactly zero.

    Each strand adds its effects, on the device. A sum of two does not depend on their order.
    """

    def __init__(self, alleles: int, targets: int, strands: int, device: torch.device) -> None:
        self._diff = torch.zeros(alleles, targets, device=device)
        self._log_odds = torch.zeros(alleles, targets, device=device)
        self._strands = strands
        self._lock = threading.Lock()
        self.under_way: list[Future[None]] = []

    def add(self, alleles: np.ndarray, diff: torch.Tensor, log_odds: torch.Tensor) -> None:
        """Add one strand's effects of `alleles`, (n, targets)."""
        rows = index_tensor(alleles, diff.device)
        with self._lock:
            self._diff.index_add_(0, rows, diff)
            self._log_odds.index_add_(0, rows, log_odds)

    def blocks(self) -> Iterator[Effects]:
        """Yield the mean of the strands when all are done, some rows at a time."""
        for future in self.under_way:
            future.result()
        diff, log_odds = (
            _on_host(total.div_(self._strands)) for total in (self._diff, self._log_odds)
        )
        for begin in range(0, len(diff), _BLOCK):
            rows = slice(begin, begin + _BLOCK)
            yield Effects(diff[rows], log_odds[rows])


def _on_host(tensor: torch.Tensor) -> np.ndarray:
    """Return the numbers of `tensor`; from a GPU by way of pinned memory."""
    if tensor.device.type == "cuda":
        tensor = torch.empty_like(tensor, device="cpu", pin_memory=True).copy_(tensor)
    return tensor.numpy()


class IncrementalEngine:
    """Runs a chain on sequence blocks.

    Args:
        chain: the net.
        channels: its channel order, such as "AGCT".
        n_value: the value of its four channels for N.
        window_spec: its window.
        device: "cpu" or "cuda".
        precision: "fp32", "tf32" (CUDA only), or "bf16": the large products take rounded factors;
            sums, pre-activations, differences, the first convolution and the head's last layers
            stay float32.
        both_strands: average the forward strand and the reverse complement.
        threads: on a CPU, how many strands of chunks are computed at once; each uses one core.
        share_as: the model's digest; processes of this machine that give the same digest share
            the weights. None shares nothing.
    """

    def __init__(
        self,
        chain: Chain,
        *,
        channels: str,
        n_value: float,
        window_spec: WindowSpec,
        device: str = "cpu",
        precision: str = "fp32",
        both_strands: bool = True,
        threads: int = 1,
        share_as: str | None = None,
    ) -> None:
        if window_spec.width != chain.width:
            raise ValueError(
                f"the window has {window_spec.width} bases, the net needs {chain.width}"
            )
        self._window_spec = window_spec
        self._device = torch.device(device)
        self._strands = 2 if both_strands else 1
        self._targets = len(chain.head[-1].bias)
        threads = max(threads, 1) if device == "cpu" else 1
        self._ahead = threads + 1
        self._callers_threads = torch.get_num_threads()
        self._buffers: queue.SimpleQueue[BufferPool] = queue.SimpleQueue()
        for _ in range(threads):
            self._buffers.put(BufferPool(self._device))
        self._pool = ThreadPoolExecutor(
            threads, "strand", initializer=torch.set_num_threads, initargs=(1,)
        )
        self._weights = WeightStore(Gemm(self._device, precision), share_as)
        table = one_hot_table(channels, n_value)
        centres = (window_spec.centre, window_spec.width - 1 - window_spec.centre)[: self._strands]
        made = self._pool.submit(StrandRunner, chain, table, centres, self._weights)
        try:
            self._runner = made.result()
        except BaseException:
            self.close()
            raise
        self._chain = self._runner.chain  # holds shared weights; the caller's can be freed

    def algorithms(self) -> str:
        """Return in a few words how the net is computed."""
        return self._runner.algorithms()

    def close(self) -> None:
        """End the threads, restore torch's number of threads, and release the weights."""
        self._pool.shutdown(cancel_futures=True)
        torch.set_num_threads(self._callers_threads)
        self._weights.close()

    def effects(self, alleles: Alleles, sequence: Sequence) -> Iterator[Effects]:
        """Yield the effects of `alleles`, sorted by start, in their order, some rows at a time."""
        under_way: deque[_Chunk] = deque()
        try:
            for begin, end in cut(alleles, self._chain, *CHUNK[self._device.type]):
                rows = alleles.rows(begin, end)
                block = make_block(rows, self._window_spec, self._chain, sequence)
                chunk = _Chunk(end - begin, self._targets, self._strands, self._device)
                chunk.under_way = [
                    self._pool.submit(self._strand, strand, block, chunk)
                    for strand in range(self._strands)
                ]
                under_way.append(chunk)
                while len(under_way) * self._strands > self._ahead:
                    yield from under_way.popleft().blocks()
            while under_way:
                yield from under_way.popleft().blocks()
        finally:
            for chunk in under_way:
                for future in chunk.under_way:
                    future.cancel()

    @torch.inference_mode()
    def _strand(self, strand: int, block: SequenceBlock, chunk: _Chunk) -> None:
        """Add to `chunk` the effects of a sequence block's alleles on one strand."""
        buffers = self._buffers.get()
        try:
            if strand == 1:
                block = block.reversed(self._window_spec.width)
            for alleles, diff, log_odds in self._runner.effects(block, strand, buffers):
                chunk.add(alleles, diff, log_odds)
        finally:
            self._buffers.put(buffers)


def cut(alleles: Alleles, chain: Chain, most: int, most_bytes: int) -> Iterator[tuple[int, int]]:
    """Yield the row ranges of chunks, few and even: `most` alleles or `most_bytes` of trunk.

    An allele adds to a trunk the positions since the allele before it, or its window's own lattices
    if these are fewer. An indel may add its window's lattices once more. A chunk ends after the
    allele that reaches the limit, so it may exceed its bytes by that one.
    """
    per_base, per_window = trunk_bytes(chain)
    step = np.diff(alleles.start, prepend=alleles.start[:1] - chain.width)
    added = np.minimum(step * per_base, per_window)
    lengths = np.fromiter((len(alt) for alt in alleles.alt), np.int64, len(alleles.alt))
    added += np.where((lengths == 1) & (alleles.ref_length == 1), 0, per_window)
    upto = np.cumsum(added)
    rows = len(upto)
    if rows == 0:
        return
    first = 0
    for share in batches(int(upto[-1]), most_bytes):
        reached = int(np.searchsorted(upto, share.stop)) + 1
        last = rows if share.stop == upto[-1] else reached  # the last alleles may add nothing
        for part in batches(last - first, most):
            yield first + part.start, first + part.stop
        first = last


def trunk_bytes(chain: Chain) -> tuple[int, int]:
    """Return the bytes that a trunk holds per base where all is shared, and per lone window."""
    per_base = per_window = 0
    for i, stage in enumerate(chain.stages):
        kept = i > 0  # the first stage's convolution is not kept
        row = 4 * len(stage.weight)
        per_base += row * (1 + kept)
        per_window += row * (stage.groups + stage.outputs * kept)
    return per_base, per_window
