"""A folder of this process on local disk, gone when the process is, however it ends.

Each has a file that is locked as long as its process lives: a folder whose lock nobody holds is a
dead one's, and whoever makes or closes one removes it. All this is done under a lock on them all.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

_LOCK = "lock"


class Scratch:
    """Such a folder; made by the constructor, under TMPDIR.

    Attributes:
        path: the folder.
    """

    def __init__(self) -> None:
        with _all() as root:
            _sweep(root)
            self.path = root / f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
            self.path.mkdir()
            self._lock = (self.path / _LOCK).open("wb")
            fcntl.flock(self._lock, fcntl.LOCK_EX)

    def close(self) -> None:
        """Remove it."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def sweep_scratch() -> None:
    """Remove the folders of processes that are no more."""
    with contextlib.suppress(OSError), _all() as root:
        _sweep(root)


@contextlib.contextmanager
def _all() -> Iterator[Path]:
    """Give the folder that holds them all, to one process at a time."""
    root = Path(tempfile.gettempdir()) / f"raygenome-scratch-{os.getuid()}"
    root.mkdir(mode=0o700, exist_ok=True)
    with (root / _LOCK).open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield root


def _sweep(root: Path) -> None:
    for folder in root.iterdir():
        if not folder.is_dir():
            continue
        with contextlib.suppress(OSError), (folder / _LOCK).open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
