"""A `LocalStore` whose files are named by paths, for writers that know only folders."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from raygenome.errors import DataError
from raygenome.storage.files import publish
from raygenome.storage.store import Kind, LocalStore


class OutputFolder:
    """A folder with its working files in `.work/`.

    Attributes:
        path: the folder.
        store: the same with names in place of paths.
        work: what only an unfinished output needs.
        temporary: files being written; swept by the next to take the lock.
        KIND: what is made here, see `Kind`.
    """

    KIND = Kind("output", finished="", started="")

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = LocalStore(path)
        self.work = path / ".work"
        self.temporary = self.work / "tmp"

    def temporary_file(self, final: Path) -> Path:
        """See `Store`."""
        return self.store.temporary_file(final.name)

    def publish_text(self, text: str, final: Path) -> dict[str, Any]:
        """See `Store`."""
        temporary = self.temporary_file(final)
        temporary.write_text(text, encoding="utf-8")
        return publish(temporary, final)

    def publish_json(self, value: object, final: Path) -> dict[str, Any]:
        """See `Store`."""
        return self.publish_text(json.dumps(value, indent=1) + "\n", final)

    def note(self, data: bytes, final: Path) -> None:
        """See `Store`."""
        self.store.note(data, str(final.relative_to(self.path)))

    def note_json(self, value: object, final: Path) -> None:
        """See `Store`."""
        self.note(json.dumps(value).encode(), final)

    def read_json(self, file: Path, *, mend: str) -> Any:
        """See `Store`."""
        try:
            return json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise DataError(f"{file} is damaged ({error})", mend) from None

    def sweep(self) -> None:
        """Remove what an earlier, dead process was writing when it ended."""
        shutil.rmtree(self.temporary, ignore_errors=True)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """See `Store`."""
        with self.store.lock(self.KIND):
            self.sweep()
            yield
