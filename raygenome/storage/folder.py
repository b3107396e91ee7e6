"""A folder that a command makes: one process at a time writes there, each file appears whole."""

import contextlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from raygenome.errors import DataError, OutputError
from raygenome.storage.files import publish


class OutputFolder:
    """A folder with its working files in `.work/`.

    Attributes:
        path: the folder.
        work: what only an unfinished one needs.
        temporary: files being written; swept by whoever takes the lock.
        KIND: what is made here, noted in `.work/kind`, so that no command takes another's folder,
            or one that is not ours at all, for its own.
    """

    KIND = "output"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.work = path / ".work"
        self.temporary = self.work / "tmp"
        self._kind = self.work / "kind"

    def temporary_file(self, final: Path) -> Path:
        """Return a name of its own to write `final` under."""
        self.temporary.mkdir(parents=True, exist_ok=True)
        return self.temporary / f"{final.name}.{uuid.uuid4().hex}.tmp"

    def publish_text(self, text: str, final: Path) -> dict[str, Any]:
        """Write a text file at `final`, all of it or nothing; return its size and SHA-256."""
        temporary = self.temporary_file(final)
        temporary.write_text(text, encoding="utf-8")
        return publish(temporary, final)

    def publish_json(self, value: object, final: Path) -> dict[str, Any]:
        """Write `value` as JSON at `final`, all of it or nothing."""
        return self.publish_text(json.dumps(value, indent=1) + "\n", final)

    def publish_copy(self, source: Path, final: Path) -> dict[str, Any]:
        """Copy `source` to `final`, all of it or nothing."""
        temporary = self.temporary_file(final)
        shutil.copyfile(source, temporary)
        return publish(temporary, final)

    def note(self, data: bytes, final: Path) -> None:
        """Write a file that a power cut may take, but that is never seen half written."""
        temporary = self.temporary_file(final)
        temporary.write_bytes(data)
        os.replace(temporary, final)

    def note_json(self, value: object, final: Path) -> None:
        """Write JSON as `note` does."""
        self.note(json.dumps(value).encode(), final)

    def read_json(self, file: Path, *, mend: str) -> Any:
        """Return what a JSON file holds, None where it is not there.

        Raises:
            DataError: it is damaged; `mend` says what to do.
        """
        try:
            return json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise DataError(f"{file} is damaged ({error}); {mend}") from None

    def sweep(self) -> None:
        """Remove what an earlier, dead process was writing when it ended."""
        shutil.rmtree(self.temporary, ignore_errors=True)

    def require_folder(self) -> None:
        """Refuse a path at which there is a file.

        Raises:
            OutputError: there is.
        """
        if self.path.exists() and not self.path.is_dir():
            raise OutputError(f"{self.path} is a file; --out needs a directory")

    def kind_begun(self) -> str | None:
        """Return what was begun here, None where nothing was or nothing says so."""
        try:
            return self._kind.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            return None

    def is_free(self) -> bool:
        """Return whether nothing is here, or only what a process leaves that died at once."""
        if not self.path.exists():
            return True
        nothing_yet = {self._kind.name, "lock", self.temporary.name}
        return all(
            entry == self.work
            and entry.is_dir()
            and {file.name for file in entry.iterdir()} <= nothing_yet
            for entry in self.path.iterdir()
        )

    def make(self) -> None:
        """Make the folder, and see that it can be written to.

        Raises:
            OutputError: it cannot.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            probe = self.temporary_file(self.path / "probe")  # swept, should it stay behind
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise OutputError(
                f"cannot write to {self.path} ({error.strerror}); choose another --out"
            ) from None

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for this process; a dead process holds nothing.

        Raises:
            OutputError: another process has it.
        """
        self.work.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.work / "lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise OutputError(
                f"{self.path} is being written by another raygenome; "
                "wait for it or choose another --out"
            ) from None
        try:
            self.sweep()
            if self.kind_begun() != self.KIND:  # half of it would be another's
                self.note(f"{self.KIND}\n".encode(), self._kind)
            yield
        finally:
            lock.release()
