"""Files as the disk has them: their digest, and how one comes to exist, whole or not at all."""

import hashlib
import os
from pathlib import Path
from typing import Any


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Flush a file, or the entries of a folder, so that it survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish(temporary: Path, final: Path) -> dict[str, Any]:
    """Give a finished temporary file its final name; return its size and SHA-256.

    When this returns, the file survives a power cut. Publishing the same content twice is harmless.
    """
    digest = file_sha256(temporary)
    size = temporary.stat().st_size
    sync(temporary)
    _make_folder(final.parent)
    os.replace(temporary, final)
    sync(final.parent)
    return {"bytes": size, "sha256": digest}


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it; each new one is flushed in the folder that holds it."""
    if not folder.exists():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync(folder.parent)
