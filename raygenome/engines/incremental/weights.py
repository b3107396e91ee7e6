"""Weights made from a chain's, held once: by this process, or by all processes of a machine.

A spectral head is 0.7 GB in float32, the same in every worker. Workers of one machine hold such
weights together: a file in the machine's temporary folder, mapped into each of them.

The file lives as long as any process uses it: each holds a shared lock on it, which the kernel
drops however the process ends; whoever finds a file that nobody holds removes it. One process
makes it, under an exclusive lock on a second file, and gives it its name when it is whole.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import numpy as np
import torch

from raygenome.engines.incremental.bilinear import Bilinear
from raygenome.engines.incremental.chain import Chain
from raygenome.engines.incremental.gemm import Gemm

#: Smaller weights are not worth a file.
_SMALLEST_SHARED = 4 << 20

_log = logging.getLogger(__name__)


class WeightStore:
    """Makes weights, and shares the large ones if it is given a key.

    Where there is no room for a file, or no right to make one, each process makes its own.

    Args:
        gemm: whose device and precision they are for.
        key: names the model by content; None keeps every weight to this process.
    """

    def __init__(self, gemm: Gemm, key: str | None = None) -> None:
        self._gemm = gemm
        self._key = key if gemm.device.type == "cpu" else None
        self._handles: list[IO[bytes]] = []

    def hold(self, chain: Chain) -> Chain:
        """Return `chain` with the largest of its weights, the head's first, held here."""
        first, *rest = chain.head
        weight = self._made("head", lambda: first.weight)
        return dataclasses.replace(chain, head=(dataclasses.replace(first, weight=weight), *rest))

    def weight(self, name: str, matrix: torch.Tensor) -> torch.Tensor:
        """Return `matrix` (outputs, inputs), float32, as `Gemm.rows` takes it.

        `name` is that of these weights, within the model.
        """
        return self._made(name, lambda: self._gemm.weight(matrix))

    def spectral(self, name: str, form: Bilinear, weight: torch.Tensor) -> torch.Tensor:
        """Return G w (products, outputs, channels) of w (outputs, taps, channels), float32."""
        constants = hashlib.sha256(form.to_weights.tobytes()).hexdigest()[:12]

        def made() -> torch.Tensor:
            outputs, taps, channels = weight.shape
            to_weights = torch.from_numpy(form.to_weights)
            out = torch.empty(form.products, outputs, channels, dtype=self._gemm.dtype)
            for begin in range(0, outputs, 64):  # all of it in float64 at once would be large
                part = weight[begin : begin + 64].double().transpose(0, 1).reshape(taps, -1)
                product = to_weights @ part
                out[:, begin : begin + 64] = product.view(form.products, -1, channels)
            return out.to(self._gemm.device)

        return self._made(f"{name}-{constants}", made)

    def close(self) -> None:
        """Let go of shared files, and remove those that nobody holds any more."""
        for handle in self._handles:
            handle.close()
        self._handles.clear()
        if self._key is not None:
            with contextlib.suppress(OSError):  # without the folder there is nothing to sweep
                _sweep(_folder())

    def _made(self, name: str, make: Callable[[], torch.Tensor]) -> torch.Tensor:
        """Return what `make` returns, or what somebody else who made it holds."""
        return make() if self._key is None else self._shared(name, make)

    def _shared(self, name: str, make: Callable[[], torch.Tensor]) -> torch.Tensor:
        identity = f"{self._key} {name} {self._gemm.dtype} {torch.__version__}"
        stem = hashlib.sha256(identity.encode()).hexdigest()[:24]
        try:
            folder = _folder()
            path = folder / f"{stem}.weights"
            with _locked(folder / f"{stem}.lock"):
                _sweep(folder, keep=path)
                while (handle := _held(path)) is None:
                    weights = make()
                    if weights.nbytes < _SMALLEST_SHARED:
                        return weights
                    _write(path, weights)
                self._handles.append(handle)
                return _mapped(path)
        except OSError as error:
            _log.warning("weights are not shared between workers: %s", error)
            return make()


def _folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"raygenome-weights-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to somebody else")
    return folder


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("ab") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _held(path: Path) -> IO[bytes] | None:
    """Return a handle that holds the file at `path`, or None if there is none to hold."""
    try:
        handle = path.open("rb")
    except FileNotFoundError:
        return None
    fcntl.flock(handle, fcntl.LOCK_SH)
    if os.fstat(handle.fileno()).st_nlink:
        return handle  # whoever would remove it from now on finds it held
    handle.close()
    return None


def _write(path: Path, weights: torch.Tensor) -> None:
    """Write the file of `weights` whole or not at all: a .npy, so that it knows its shape."""
    temporary = path.with_suffix(".partial")  # one writer at a time: it holds the lock
    try:
        with temporary.open("wb") as handle:
            np.save(handle, _plain(weights))
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)


def _plain(weights: torch.Tensor) -> np.ndarray:
    """Return the numbers of `weights`; numpy has no bfloat16, so its bits go as int16."""
    if weights.dtype == torch.bfloat16:
        return weights.view(torch.int16).numpy()
    return weights.numpy()


def _mapped(path: Path) -> torch.Tensor:
    # Copy on write: torch wants memory that it may write to, and nobody does.
    weights = torch.from_numpy(np.load(path, mmap_mode="c"))
    return weights.view(torch.bfloat16) if weights.dtype == torch.int16 else weights


def _sweep(folder: Path, keep: Path | None = None) -> None:
    """Remove the weights that no process holds."""
    for path in folder.glob("*.weights"):
        if path == keep:
            continue
        with contextlib.suppress(OSError), path.open("rb") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(handle.fileno()).st_nlink:  # else the name is another file's by now
                path.unlink()
