"""Loads batches: gathers packed records from the memory map, and unpacks them on the device.

A base travels to the device as 2 bits and a label as 1 bit. One lookup turns a byte into the
one-hot rows of its four bases. The reverse complement is taken on the packed bytes.

Axes: N samples of a batch, L bases, T targets.
"""

import queue
import threading
from collections.abc import Generator
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional

from raygenome.datasets.packed import BASES_OF_BYTE, Split, base_bytes
from raygenome.genome.sequence import one_hot_table

#: The largest number of gathered batches that wait for the device.
AHEAD = 4


class Samples(NamedTuple):
    """Samples in training order, (n,) each.

    Attributes:
        row: int64, row of the split.
        reverse: bool, whether to take the reverse complement.
        shift: int64, by how many bases to move the window to the right.
    """

    row: np.ndarray
    reverse: np.ndarray
    shift: np.ndarray

    def slice(self, begin: int, end: int) -> "Samples":
        """Return samples [begin, end)."""
        return Samples(self.row[begin:end], self.reverse[begin:end], self.shift[begin:end])


def plain_samples(rows: np.ndarray, *, reverse: bool = False) -> Samples:
    """Return rows as samples without a shift, all on the same strand."""
    return Samples(rows, np.full(len(rows), reverse), np.zeros(len(rows), dtype=np.int64))


class Batch(NamedTuple):
    """Packed samples on the host.

    Attributes:
        records: uint8 (N, bytes), bases before labels.
        reverse: bool (N,), whether to take the reverse complement of a sample.
        shift: int64 (N,), or None if no window moves.
        n_index: int64 (positions,): the positions of Ns, as sample * window_size + position in the
            sample's own direction; empty in most batches.
    """

    records: torch.Tensor
    reverse: torch.Tensor
    shift: torch.Tensor | None
    n_index: torch.Tensor

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on a device; the copy from pinned memory is asynchronous."""
        if device.type == "cpu":
            return self
        moved = [None if each is None else each.to(device, non_blocking=True) for each in self]
        return Batch(*moved)  # type: ignore[arg-type]


class Loader:
    """Gathers the records of a split.

    Args:
        split: the windows.
        pin: whether to put batches in pinned memory, for copies to a GPU.
    """

    def __init__(self, split: Split, *, pin: bool = False) -> None:
        self._split = split
        self._pin = pin
        with_n = split.n_runs[:, 0]
        self._has_n = len(with_n) > 0

    def gather(self, samples: Samples) -> Batch:
        """Return the packed records of some samples."""
        batch = Batch(
            torch.from_numpy(np.take(self._split.records, samples.row, axis=0)),
            torch.from_numpy(np.ascontiguousarray(samples.reverse)),
            torch.from_numpy(np.ascontiguousarray(samples.shift)) if samples.shift.any() else None,
            torch.from_numpy(self._n_index(samples)),
        )
        if not self._pin:
            return batch
        return Batch(*[None if each is None else each.pin_memory() for each in batch])  # type: ignore[arg-type]

    def _n_index(self, samples: Samples) -> np.ndarray:
        """Return the positions of Ns, see `Batch`."""
        if not self._has_n:
            return np.empty(0, dtype=np.int64)
        sample, start, end = self._split.n_runs_of(samples.row).T
        length, size = end - start, self._split.window_size
        first = sample * size + np.where(samples.reverse[sample], size - end, start)
        within = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
        return np.repeat(first, length) + within

    def batches(
        self, samples: Samples, batch_size: int, share: slice, *, first: int = 0
    ) -> Generator[Batch]:
        """Yield this worker's share of each whole batch, gathered ahead by a thread.

        Args:
            samples: samples of an epoch, over all workers.
            batch_size: number of samples of a global batch.
            share: the range of this worker's samples in a global batch.
            first: number of the first batch to yield.
        """
        ready: queue.Queue[Batch | BaseException | None] = queue.Queue(AHEAD)
        stopped = threading.Event()

        def put(item: "Batch | BaseException | None") -> bool:
            while not stopped.is_set():
                try:
                    ready.put(item, timeout=0.1)
                    return True
                except queue.Full:
                    continue
            return False

        def fill() -> None:
            try:
                for step in range(first, len(samples.row) // batch_size):
                    begin = step * batch_size
                    mine = samples.slice(begin + share.start, begin + share.stop)
                    if not put(self.gather(mine)):
                        return
                put(None)
            except BaseException as error:  # noqa: BLE001 - raised again by the consumer
                put(error)

        thread = threading.Thread(target=fill, name="loader", daemon=True)
        thread.start()
        try:
            while (item := ready.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            stopped.set()
            thread.join()


class Encoder:
    """Unpacks batches on a device.

    Args:
        window_size: bases per window.
        n_targets: labels per window.
        channels: the model's channel order, such as "AGCT".
        n_value: the value of all four channels for an N.
        device: the device of the lookup tables and of the batches.
    """

    def __init__(
        self, window_size: int, n_targets: int, channels: str, n_value: float, device: torch.device
    ) -> None:
        self._window_size, self._n_targets, self._n_value = window_size, n_targets, n_value
        table = one_hot_table(channels, n_value)[BASES_OF_BYTE].reshape(256, 16)
        self._one_hot = torch.from_numpy(table).to(device)
        # For each byte of four bases: their complements in reverse order.
        weights = np.array([64, 16, 4, 1], dtype=np.uint8)
        complement = ((3 - BASES_OF_BYTE) * weights).sum(axis=1).astype(np.uint8)
        self._complement = torch.from_numpy(complement).to(device)
        self._bits = torch.arange(8, dtype=torch.uint8, device=device)

    def windows(self, batch: Batch) -> torch.Tensor:
        """Return one-hot windows, float32 (N, 4, L), a view of memory (N, L, 4)."""
        packed = batch.records[:, : base_bytes(self._window_size)]
        any_reverse = bool(batch.reverse.any()) if batch.reverse.device.type == "cpu" else True
        if any_reverse:
            turned = self._complement[packed.flip(1).int()]
            packed = torch.where(batch.reverse[:, None], turned, packed)
        x_NLC = functional.embedding(packed.int(), self._one_hot).view(len(packed), -1, 4)
        x_NLC = self._trimmed(x_NLC, batch)
        if len(batch.n_index):
            x_NLC = x_NLC.contiguous()
            x_NLC.view(-1, 4).index_fill_(0, batch.n_index, self._n_value)
        if batch.shift is not None:
            x_NLC = self._shifted(x_NLC, batch.shift)
        return x_NLC.transpose(1, 2)

    def labels(self, batch: Batch) -> torch.Tensor:
        """Return the labels, float32 (N, T)."""
        packed = batch.records[:, base_bytes(self._window_size) :]
        bits = (packed[:, :, None] >> self._bits) & 1
        return bits.flatten(1)[:, : self._n_targets].float()

    def _trimmed(self, x_NLC: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return windows without the padding of the last byte, which comes first if reversed."""
        spare = x_NLC.shape[1] - self._window_size
        if spare == 0:
            return x_NLC
        forward, reverse = x_NLC[:, : self._window_size], x_NLC[:, spare:]
        return torch.where(batch.reverse[:, None, None], reverse, forward)

    def _shifted(self, x_NLC: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        """Return windows moved to the right by `shift` bases each, filled with N."""
        source = torch.arange(self._window_size, device=x_NLC.device) - shift[:, None]
        outside = (source < 0) | (source >= self._window_size)
        index = source.clamp(0, self._window_size - 1)[:, :, None].expand(-1, -1, 4)
        return x_NLC.gather(1, index).masked_fill_(outside[:, :, None], self._n_value)
