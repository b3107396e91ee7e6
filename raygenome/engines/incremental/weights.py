"""Transformed weights, held once: by this process, or by all processes of a machine together.

DeepSEA's spectral head is 0.8 GB in float32, the same in every worker. The workers of one machine
share such weights: each maps the same file in the machine's temporary folder.

The file exists as long as a process uses it. Each process holds a shared lock on it, which the
kernel releases however the process ends. A file without a lock is never used, since it may be
damaged; the next process that sees it removes it. All this is done under a lock on the folder. So
a run leaves nothing on the disk, and never trusts what another run left.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import logging
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import numpy as np
import torch

import raygenome
from raygenome.engines.incremental.bilinear import Bilinear
from raygenome.engines.incremental.chain import Chain
from raygenome.engines.incremental.gemm import Gemm

#: Smaller weights are not shared; in bytes.
_SMALLEST_SHARED = 4 << 20

_log = logging.getLogger(__name__)


class WeightStore:
    """Makes weights, and shares the large ones if it has a key.

    Where a file cannot be written, each process makes its own weights.

    Args:
        gemm: gives the device and the precision.
        key: the model's digest; None shares nothing.
    """

    def __init__(self, gemm: Gemm, key: str | None = None) -> None:
        self.gemm = gemm
        self._key = key if gemm.device.type == "cpu" else None
        self._handles: list[IO[bytes]] = []

    def hold(self, chain: Chain) -> Chain:
        """Return `chain` with its largest weights, those of the head's first layer, held here."""
        first, *rest = chain.head
        weight = self._made("head", lambda: first.weight)
        return dataclasses.replace(chain, head=(dataclasses.replace(first, weight=weight), *rest))

    def weight(self, name: str, matrix: torch.Tensor) -> torch.Tensor:
        """Return `matrix` (outputs, inputs), float32, as `Gemm.rows` takes it.

        `name` names these weights within the model.
        """
        return self._made(name, lambda: self.gemm.weight(matrix))

    def spectral(self, name: str, algorithm: Bilinear, weight: torch.Tensor) -> torch.Tensor:
        """Return G w (products, outputs, channels) of w (outputs, taps, channels), float32."""
        constants = hashlib.sha256(algorithm.to_weights.tobytes()).hexdigest()[:12]

        def made() -> torch.Tensor:
            outputs, taps, channels = weight.shape
            to_weights = torch.from_numpy(algorithm.to_weights)
            out = torch.empty(algorithm.products, outputs, channels, dtype=self.gemm.dtype)
            for begin in range(0, outputs, 64):  # all of it in float64 at once would be large
                part = weight[begin : begin + 64].double().transpose(0, 1).reshape(taps, -1)
                product = to_weights @ part
                out[:, begin : begin + 64] = product.view(algorithm.products, -1, channels)
            return out.to(self.gemm.device)

        return self._made(f"{name}-{constants}", made)

    def close(self) -> None:
        """Release shared files, and remove those that no process holds any more."""
        for handle in self._handles:
            handle.close()
        self._handles.clear()
        if self._key is not None:
            sweep_weights()

    def _made(self, name: str, make: Callable[[], torch.Tensor]) -> torch.Tensor:
        """Return the result of `make`, or the same weights made by another process."""
        return make() if self._key is None else self._shared(name, make)

    def _shared(self, name: str, make: Callable[[], torch.Tensor]) -> torch.Tensor:
        versions = f"{raygenome.__version__} {torch.__version__}"
        identity = f"{versions} {self._key} {name} {self.gemm.dtype}"
        stem = hashlib.sha256(identity.encode()).hexdigest()[:24]
        try:
            folder = _folder()
            path = folder / f"{stem}.weights"
            with _locked(folder):
                _sweep(folder)
                if not path.exists():
                    weights = make()
                    if weights.nbytes < _SMALLEST_SHARED:
                        return weights
                    _write(path, weights)
                handle = path.open("rb")
                fcntl.flock(handle, fcntl.LOCK_SH)
                self._handles.append(handle)
                return _mapped(path)
        except (OSError, ValueError) as error:
            _log.warning("weights are not shared between workers: %s", error)
            self._key = None
            return make()


def sweep_weights(patience_s: float = 0.0) -> None:
    """Remove the shared weights of this machine that no process holds.

    `patience_s` is how many seconds to wait for processes that are about to end.
    """
    deadline = time.monotonic() + patience_s
    with contextlib.suppress(OSError):  # without the folder there is nothing to remove
        folder = _folder()
        while True:
            with _locked(folder):
                left = _sweep(folder)
            if not left or time.monotonic() > deadline:
                return
            time.sleep(0.05)


def _folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"raygenome-weights-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise PermissionError(f"{folder} is not a folder of this user alone")
    return folder


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write(path: Path, weights: torch.Tensor) -> None:
    """Write the file of `weights`, whole or not at all, as .npy, which keeps the shape."""
    temporary = path.with_suffix(".partial")  # one writer at a time: the folder is locked
    try:
        with temporary.open("wb") as handle:
            np.save(handle, _plain(weights))
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)


def _plain(weights: torch.Tensor) -> np.ndarray:
    """Return `weights` as an array; numpy has no bfloat16, so its bits become int16."""
    if weights.dtype == torch.bfloat16:
        return weights.view(torch.int16).numpy()
    return weights.numpy()


def _mapped(path: Path) -> torch.Tensor:
    # Copy on write: torch asks for writable memory, although nothing writes to it.
    weights = torch.from_numpy(np.load(path, mmap_mode="c"))
    return weights.view(torch.bfloat16) if weights.dtype == torch.int16 else weights


def _sweep(folder: Path) -> int:
    """Remove the files that no process holds; return how many are left. `folder` is locked."""
    left = 0
    for path in [*folder.glob("*.weights"), *folder.glob("*.partial")]:
        try:
            with path.open("r+b") as handle:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
        except OSError:
            left += 1
    return left
