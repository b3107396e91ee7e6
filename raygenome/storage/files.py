"""Files on a local disk: their digest, and how one appears, whole or not at all.

Every file or folder that appears by a rename does so through `publish`, `atomic_file` or
`publish_folder`.
"""

import contextlib
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Iterator
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
    """Give a finished temporary file its final name; return its {bytes, sha256}.

    When this returns, the file survives a power cut. Publishing the same content twice is harmless.
    """
    digest = file_sha256(temporary)
    size = temporary.stat().st_size
    sync(temporary)
    _make_folder(final.parent)
    os.replace(temporary, final)
    sync(final.parent)
    return {"bytes": size, "sha256": digest}


@contextlib.contextmanager
def atomic_file(final: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path next to `final`, which becomes `final` at the end of the block.

    Args:
        final: the file; an earlier one is replaced. It stays as it was if the block raises.
        durable: whether the file has to survive a power cut.
    """
    temporary = final.with_name(f".{final.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        if durable:
            publish(temporary, final)
        else:
            os.replace(temporary, final)
    finally:
        temporary.unlink(missing_ok=True)


def publish_folder(temporary: Path, final: Path) -> None:
    """Give a finished folder of files its final name, in place of an earlier folder.

    When this returns, the folder survives a power cut. A folder cannot be replaced in one step: the
    earlier one is moved aside first, and `restore_folder` moves it back if this process dies.
    """
    for file in temporary.iterdir():
        sync(file)
    sync(temporary)
    aside = final.with_name(f".{final.name}.{uuid.uuid4().hex}.old")
    if final.exists():
        final.rename(aside)
    try:
        os.replace(temporary, final)
    except BaseException:
        if aside.exists():
            aside.rename(final)
        raise
    sync(final.parent)
    shutil.rmtree(aside, ignore_errors=True)


def restore_folder(final: Path) -> None:
    """Clean up after a process that died in `publish_folder`; none may be at work there now.

    The earlier folder is moved back to `final` unless the new one took its place.
    """
    for aside in final.parent.glob(f".{final.name}.*.old"):
        if final.exists():
            shutil.rmtree(aside)
        else:
            aside.rename(final)


def restore_folders(parent: Path) -> None:
    """Do what `restore_folder` does for every folder in `parent`."""
    for aside in parent.glob(".*.old"):
        if name := re.fullmatch(r"\.(.+)\.[0-9a-f]{32}\.old", aside.name):
            restore_folder(parent / name[1])


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it; each new one is flushed in the folder that holds it."""
    if not folder.exists():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync(folder.parent)
