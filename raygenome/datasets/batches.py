"""From the memory map to the device: packed records, gathered ahead, unpacked where they are used.

What travels to the device is a quarter of a byte a base and an eighth of a byte a label. One
lookup turns a byte into the one-hot rows of its four bases, and the reverse complement is taken on
the packed bytes.

Axes: N samples of a batch, L bases, T targets.
"""

import queue
import threading
from collections.abc import Generator
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional

from raygenome.datasets.packed import Split
from raygenome.datasets.packing import BASES_OF_BYTE, packed_bases
from raygenome.genome.sequence import one_hot_table

#: How many batches wait, at most, for the device.
AHEAD = 4


class Samples(NamedTuple):
    """Samples in the order in which they are taken, (n,) each.

    Attributes:
        row: int64, of the split.
        reverse: bool, whether the reverse complement is taken.
        shift: int64, by how many bases the window moves to the right.
    """

    row: np.ndarray
    reverse: np.ndarray
    shift: np.ndarray

    def part(self, begin: int, end: int) -> "Samples":
        """Return samples [begin, end)."""
        return Samples(self.row[begin:end], self.reverse[begin:end], self.shift[begin:end])


def plain_samples(rows: np.ndarray, *, reverse: bool = False) -> Samples:
    """Return rows as samples that do not move, on one strand or the other."""
    return Samples(rows, np.full(len(rows), reverse), np.zeros(len(rows), dtype=np.int64))


class Batch(NamedTuple):
    """Packed samples on the host.

    Attributes:
        records: uint8 (N, bytes), bases in front of labels.
        reverse: bool (N,), whose reverse complement is taken.
        shift: int64 (N,), or None where no window moves.
        n_index: int64 (positions,): where an N is, as sample * window + position, reversed as the
            samples are; empty in most batches.
    """

    records: torch.Tensor
    reverse: torch.Tensor
    shift: torch.Tensor | None
    n_index: torch.Tensor

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on a device; from pinned memory the copy is not waited for."""
        if device.type == "cpu":
            return self
        moved = [None if part is None else part.to(device, non_blocking=True) for part in self]
        return Batch(*moved)  # type: ignore[arg-type]


class Loader:
    """Gathers the records of a split.

    Args:
        split: whose windows.
        pin: whether batches lie in pinned memory, for copies to a GPU.
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
        return Batch(*[None if part is None else part.pin_memory() for part in batch])  # type: ignore[arg-type]

    def _n_index(self, samples: Samples) -> np.ndarray:
        """Return where the samples hold an N, see `Batch`."""
        if not self._has_n:
            return np.empty(0, dtype=np.int64)
        sample, start, end = self._split.n_runs_of(samples.row).T
        length, window = end - start, self._split.window
        first = sample * window + np.where(samples.reverse[sample], window - end, start)
        within = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
        return np.repeat(first, length) + within

    def batches(
        self, samples: Samples, batch_size: int, part: slice, *, first: int = 0
    ) -> Generator[Batch]:
        """Yield this worker's part of each whole batch, gathered ahead by a thread.

        Args:
            samples: of an epoch, over all workers.
            batch_size: samples of a global batch.
            part: which of them are this worker's.
            first: the batch to begin with.
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
                    if not put(self.gather(samples.part(begin + part.start, begin + part.stop))):
                        return
                put(None)
            except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
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
        window: bases of a window.
        targets: labels of a window.
        channels: the model's channel order, such as "AGCT".
        n_value: what all four channels hold for an N.
        device: where the tables are, and the batches have to be.
    """

    def __init__(
        self, window: int, targets: int, channels: str, n_value: float, device: torch.device
    ) -> None:
        self._window, self._targets, self._n_value = window, targets, n_value
        table = one_hot_table(channels, n_value)[BASES_OF_BYTE].reshape(256, 16)
        self._one_hot = torch.from_numpy(table).to(device)
        # Of a byte of four bases: the complement of each, in the opposite order.
        weights = np.array([64, 16, 4, 1], dtype=np.uint8)
        complement = ((3 - BASES_OF_BYTE) * weights).sum(axis=1).astype(np.uint8)
        self._complement = torch.from_numpy(complement).to(device)
        self._bits = torch.arange(8, dtype=torch.uint8, device=device)

    def windows(self, batch: Batch) -> torch.Tensor:
        """Return one-hot windows, float32 (N, 4, L), a view of memory (N, L, 4)."""
        packed = batch.records[:, : packed_bases(self._window)]
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
        packed = batch.records[:, packed_bases(self._window) :]
        bits = (packed[:, :, None] >> self._bits) & 1
        return bits.flatten(1)[:, : self._targets].float()

    def _trimmed(self, x_NLC: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return windows without what fills the last byte; reversed, it comes first."""
        spare = x_NLC.shape[1] - self._window
        if spare == 0:
            return x_NLC
        ahead, behind = x_NLC[:, : self._window], x_NLC[:, spare:]
        return torch.where(batch.reverse[:, None, None], behind, ahead)

    def _shifted(self, x_NLC: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        """Return windows moved to the right by `shift` bases each, with N moving in."""
        source = torch.arange(self._window, device=x_NLC.device) - shift[:, None]
        outside = (source < 0) | (source >= self._window)
        index = source.clamp(0, self._window - 1)[:, :, None].expand(-1, -1, 4)
        return x_NLC.gather(1, index).masked_fill_(outside[:, :, None], self._n_value)
