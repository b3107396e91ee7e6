"""The scorer, but slow, and leaving a mark of each attempt: for what happens meanwhile."""

import os
import time
from pathlib import Path
from typing import Any

from raygenome.results.rundir import Shard
from raygenome.scoring.scorer import Scorer

SHARD_S = 0.4


class SlowScorer(Scorer):
    """Takes SHARD_S longer for a shard, between its attempt and its commit."""

    def score_shard(self, shard: Shard) -> dict[str, Any]:
        with marks(Path(self._config.run), shard.index).open("a") as attempts:
            attempts.write(f"{os.getpid()}\n")
        time.sleep(SHARD_S)
        return super().score_shard(shard)


def marks(run: Path, shard: int) -> Path:
    """Return the file with a line for each attempt at a shard."""
    folder = run.with_name("attempts")
    folder.mkdir(exist_ok=True)
    return folder / str(shard)


def attempts(run: Path, shard: int) -> int:
    return len(marks(run, shard).read_text().splitlines())
