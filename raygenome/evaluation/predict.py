"""A net's probabilities for the windows of a split, averaged over both strands.

The average is of the two probabilities, after the sigmoid, as in DeepSEA's paper and in the `diff`
of a score.
"""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import torch
from torch import nn

from raygenome.cluster.compute import require_choice
from raygenome.datasets.batches import Encoder, Loader, plain_samples
from raygenome.datasets.packed import Split
from raygenome.errors import StorageError
from raygenome.progress.bars import NoProgress, Progress

STRANDS = ("both", "forward")

#: Predictions of more bytes than this are kept in a file.
_IN_MEMORY = 200_000_000


class Encoding(Protocol):
    """How to encode a net's input: a model's spec, or a net's own defaults."""

    @property
    def channels(self) -> str:
        """The channel order, such as "AGCT"."""

    @property
    def n_value(self) -> float:
        """The value of all four channels for an N."""


def predict(
    net: nn.Module,
    encoding: Encoding,
    split: Split,
    rows: np.ndarray | Sequence[int] | slice | None = None,
    *,
    strands: str = "both",
    device: str | torch.device = "cpu",
    precision: str = "fp32",
    batch_size: int = 256,
    progress: Progress | None = None,
) -> np.ndarray:
    """Return the probabilities of windows; the net stays on `device`, in the mode that it was in.

    Args:
        net: maps one-hot (batch, 4, window) float32 to logits (batch, T).
        encoding: how to encode its input.
        split: the windows.
        rows: which rows of the split, in this order; None for all.
        strands: "both": the mean over the window and its reverse complement; or "forward".
        device: "cpu" or "cuda".
        precision: "fp32", "tf32" (CUDA only) or "bf16", of the net; the result is float32.
        batch_size: windows per forward pass.
        progress: shown how many windows are done.

    Returns:
        float32 (n, T). A large array lies in a nameless temporary file under TMPDIR, which is
        removed with the array or with the process.

    Raises:
        StorageError: there is no space for that file.
    """
    wanted = np.arange(split.n_rows)[slice(None) if rows is None else rows]
    device = torch.device(device)
    progress = progress or NoProgress()
    forward = _Forward(net.to(device), encoding, split, device, strands)
    probabilities = _room(len(wanted), split.n_targets)
    progress.begin("predict", len(wanted), unit="windows")
    try:
        with _evaluation_mode(net), _precision(device, precision), torch.inference_mode():
            for begin in range(0, len(wanted), batch_size):
                batch = wanted[begin : begin + batch_size]
                probabilities[begin : begin + len(batch)] = forward(batch)
                progress.update(begin + len(batch))
    finally:
        progress.end()
    return probabilities


class _Forward:
    """Probabilities of one batch of rows."""

    def __init__(
        self, net: nn.Module, encoding: Encoding, split: Split, device: torch.device, strands: str
    ) -> None:
        require_choice("strands", strands, STRANDS)
        self._net = net
        self._device = device
        self._both = strands == "both"
        self._loader = Loader(split, pin=device.type == "cuda")
        self._encoder = Encoder(
            split.window_size, split.n_targets, encoding.channels, encoding.n_value, device
        )

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Return float32 (rows, T)."""
        probability = self._probability(rows, reverse=False)
        if self._both:
            probability = (probability + self._probability(rows, reverse=True)) / 2
        return probability.cpu().numpy()

    def _probability(self, rows: np.ndarray, *, reverse: bool) -> torch.Tensor:
        batch = self._loader.gather(plain_samples(rows, reverse=reverse)).to(self._device)
        return torch.sigmoid(self._net(self._encoder.windows(batch)).float())


def _room(n_rows: int, n_targets: int) -> np.ndarray:
    """Return an uninitialised float32 (n_rows, n_targets), in a nameless file if it is large."""
    size = n_rows * n_targets * 4
    if size <= _IN_MEMORY:
        return np.empty((n_rows, n_targets), dtype=np.float32)
    try:
        with tempfile.TemporaryFile() as file:
            # Otherwise a full disk would kill the process at some later write to the map.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            return np.memmap(file, np.float32, "w+", shape=(n_rows, n_targets))
    except OSError as error:
        raise StorageError(
            f"there is no space for {size / 1e6:,.0f} MB of predictions in "
            f"{tempfile.gettempdir()} ({error.strerror})",
            "set TMPDIR to a folder with more space",
        ) from None


@contextmanager
def _evaluation_mode(net: nn.Module) -> Iterator[None]:
    """Run the block in evaluation mode, without dropout; restore the mode afterwards."""
    training = net.training
    net.eval()
    try:
        yield
    finally:
        net.train(training)


@contextmanager
def _precision(device: torch.device, precision: str) -> Iterator[None]:
    """Run the block in a precision; on CUDA, TF32 is on for "tf32" and for nothing else."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = precision == "tf32"
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before
