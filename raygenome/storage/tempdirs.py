"""A temporary folder that is removed when its process ends, however it ends.

Each folder holds a file that is locked as long as its process lives. A folder whose lock is free
belongs to a dead process. It is removed when another process creates such a folder or calls
`remove_dead_temp_dirs`. All of this happens under one lock on the folder that holds them.
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


class TempDir:
    """A folder of this process under TMPDIR; the constructor makes it.

    Attributes:
        path: the folder.
    """

    def __init__(self) -> None:
        with _locked_root() as root:
            _remove_dead(root)
            self.path = root / f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
            self.path.mkdir()
            self._lock = (self.path / _LOCK).open("wb")
            fcntl.flock(self._lock, fcntl.LOCK_EX)

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def remove_dead_temp_dirs() -> None:
    """Remove the temporary folders of processes that no longer run."""
    with contextlib.suppress(OSError), _locked_root() as root:
        _remove_dead(root)


@contextlib.contextmanager
def _locked_root() -> Iterator[Path]:
    """Yield the folder of all temporary folders of this user, to one process at a time."""
    root = Path(tempfile.gettempdir()) / f"raygenome-scratch-{os.getuid()}"
    root.mkdir(mode=0o700, exist_ok=True)
    with (root / _LOCK).open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield root


def _remove_dead(root: Path) -> None:
    for folder in root.iterdir():
        if not folder.is_dir():
            continue
        with contextlib.suppress(OSError), (folder / _LOCK).open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
