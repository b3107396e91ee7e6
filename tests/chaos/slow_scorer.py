"""A slow scorer that records each attempt in a file, for tests that act during scoring.

PYTHONPATH=tests python -m chaos.slow_scorer score ...    as `raygenome score ...`
"""

import os
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

from raygenome.genome.alleles import Shard
from raygenome.scoring import dispatch
from raygenome.scoring.shard import Scorer

#: Extra seconds per shard, unless the folder of the marks holds a file `fast`.
SHARD_S = 0.4

#: Environment variables, which workers inherit: the seconds per shard in place of SHARD_S, and the
#: number of the start, for a run that is started several times.
SECONDS, LIFE = "SLOW_SCORER_SECONDS", "SLOW_SCORER_LIFE"


class Attempt(NamedTuple):
    """A shard that a worker has started: in which life of the run, and the worker's pid."""

    life: int
    pid: int


class SlowScorer(Scorer):
    """Waits between the start of a shard and its commit."""

    def score_shard(self, shard: Shard) -> dict[str, Any]:
        """Leave the mark, wait, and score."""
        marks = marks_of(Path(self._config.run))
        line = f"{shard.index} {os.environ.get(LIFE, '0')} {os.getpid()}\n"
        with (marks / "attempts").open("a") as file:  # one write per line: none is torn
            file.write(line)
        if not (marks / "fast").exists():
            time.sleep(float(os.environ.get(SECONDS, SHARD_S)))
        return super().score_shard(shard)


def marks_of(run: Path) -> Path:
    """Return the folder of a run's marks, next to the run."""
    folder = run.with_name(f"{run.name}-marks")
    folder.mkdir(exist_ok=True)
    return folder


def attempts(run: Path) -> dict[int, list[Attempt]]:
    """Return the attempts at each shard of a run, in order."""
    found: dict[int, list[Attempt]] = defaultdict(list)
    file = marks_of(run) / "attempts"
    for line in file.read_text().splitlines() if file.exists() else ():
        shard, life, pid = map(int, line.split())
        found[shard].append(Attempt(life, pid))
    return found


def main() -> None:
    """Run the command line with this scorer instead of the real one."""
    from chaos.slow_scorer import SlowScorer as Named  # workers cannot import it from __main__

    from raygenome.cli import main as command_line

    dispatch.Scorer = Named  # type: ignore[misc]
    command_line()


if __name__ == "__main__":
    main()
