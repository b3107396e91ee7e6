"""A run of the pool on a folder, with its reports."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from support.pool_scorers import FileScorer, Task

from raygenome.pool import PoolOptions, ShardFailure, run_shards


class Run:
    """Runs a pool on `folder` and keeps what it reports."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.receipts: list[dict[str, Any]] = []
        self.progress: list[int] = []
        self.failures: list[ShardFailure] = []
        self.after: Callable[[int], None] = lambda _: None

    def __call__(
        self,
        tasks: list[Task],
        *,
        make: Callable[[], Any] | None = None,
        workers: int = 2,
        **options: Any,
    ) -> None:
        self.failures = run_shards(
            tasks,
            make or partial(FileScorer, self.folder),
            PoolOptions(workers=workers, poll_s=0.1, **options),
            on_receipt=self._keep,
            on_progress=self.progress.append,
        )

    def _keep(self, receipt: dict[str, Any]) -> None:
        self.receipts.append(receipt)
        self.after(len(self.receipts))

    @property
    def done(self) -> list[int]:
        """The sorted shards of all receipts, with repeats if there are any."""
        return sorted(receipt["shard"] for receipt in self.receipts)

    def attempts(self, index: int) -> int:
        path = self.folder / f"attempts-{index}"
        return len(path.read_text()) if path.exists() else 0

    def parts(self) -> list[int]:
        return sorted(int(path.name[5:]) for path in self.folder.glob("part-*") if not path.suffix)


def tasks(count: int, **acts: str) -> list[Task]:
    """Return `count` shards; `s3="kill"` sets what shard 3 does."""
    return [Task(index, acts.get(f"s{index}", "write")) for index in range(count)]
