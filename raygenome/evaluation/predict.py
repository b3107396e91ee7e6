"""A net's probabilities for the windows of a split, mean of both strands.

The mean is of the two probabilities, after the sigmoid: how DeepSEA was published, and what a
score's `diff` is made of.
"""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import torch
from torch import nn

from raygenome.datasets.batches import Encoder, Loader, plain_samples
from raygenome.datasets.packed import Split
from raygenome.errors import StorageError, UsageError
from raygenome.progress.bars import NoProgress, Progress

STRANDS = ("both", "forward")
DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("fp32", "tf32", "bf16")

#: Predictions above this many bytes are held in a file.
_IN_MEMORY = 200_000_000


class Encoding(Protocol):
    """How a net wants its input: what a model's spec says of it, or a net's own defaults."""

    @property
    def channels(self) -> str:
        """The channel order, such as "AGCT"."""

    @property
    def n_value(self) -> float:
        """What all four channels hold for an N."""


def choose_device(device: str, precision: str, *, gpu: bool | None = None) -> str:
    """Return "cpu" or "cuda": `device`, with "auto" replaced by what there is.

    Args:
        device: auto, cpu or cuda.
        precision: fp32, tf32 or bf16.
        gpu: whether there is a GPU where the work is done; None looks at this machine.

    Raises:
        UsageError: a value that is not on offer; or a GPU, or a mode that only a GPU has, is asked
            for and there is none.
    """
    for name, value, offered in (
        ("device", device, DEVICES),
        ("precision", precision, PRECISIONS),
    ):
        if value not in offered:
            raise UsageError(f"--{name} is {value!r}; it must be one of {', '.join(offered)}")
    gpu = torch.cuda.is_available() if gpu is None else gpu
    if device == "auto":
        device = "cuda" if gpu else "cpu"
    elif device == "cuda" and not gpu:
        raise UsageError("--device is cuda and torch finds no usable GPU here; use --device cpu")
    if device == "cpu" and precision == "tf32":
        raise UsageError("precision tf32 exists only on CUDA devices; use fp32 or bf16")
    return device


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
    """Return the probabilities of windows; the net is left on `device`, in the mode that it was in.

    Args:
        net: maps one-hot (batch, 4, window) float32 to logits (batch, T).
        encoding: how.
        split: where the windows are.
        rows: which of them, in this order; all where None.
        strands: "both": the mean over the window and its reverse complement; "forward".
        device: "cpu" or "cuda".
        precision: "fp32", "tf32" (CUDA only) or "bf16", of the net; what comes out is float32.
        batch_size: windows a forward pass.
        progress: told how many windows are done.

    Returns:
        float32 (n, T); where that is large it lies in a temporary file, which has no name and is
        gone with the array, or with the process. Its place is TMPDIR's.

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
        if strands not in STRANDS:
            raise UsageError(f"--strands is {strands!r}; it must be one of {', '.join(STRANDS)}")
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


def _room(rows: int, targets: int) -> np.ndarray:
    """Return an uninitialised float32 (rows, targets), in a file without a name if it is large."""
    size = rows * targets * 4
    if size <= _IN_MEMORY:
        return np.empty((rows, targets), dtype=np.float32)
    try:
        with tempfile.TemporaryFile() as file:
            # Without this a full disk would kill the process at some later write to the map.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            return np.memmap(file, np.float32, "w+", shape=(rows, targets))
    except OSError as error:
        raise StorageError(
            f"no room for {size / 1e6:,.0f} MB of predictions in {tempfile.gettempdir()} "
            f"({error.strerror}); set TMPDIR to a folder with more space"
        ) from None


@contextmanager
def _evaluation_mode(net: nn.Module) -> Iterator[None]:
    """Switch dropout off and fix batch norms; switch back what was on."""
    training = net.training
    net.eval()
    try:
        yield
    finally:
        net.train(training)


@contextmanager
def _precision(device: torch.device, precision: str) -> Iterator[None]:
    """Run what is inside in a precision; on CUDA, TF32 is on for "tf32" and for nothing else."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = precision == "tf32"
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before
