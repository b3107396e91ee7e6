"""What the pool itself costs, on real Ray actors whose scorers are stubs.

`driver_row` times the driver: its scorer does nothing and hands back a receipt of realistic size.
`efficiency_row` times the handing out: its scorer sleeps as long as a shard would take, so that
eight workers fit on two cores, and what is lost is start, tail and the driver's delay.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from bench.inputs import memory_now
from raygenome.pool import PoolOptions, run_shards
from raygenome.scoring.plan import cut

#: Receipts after which the driver's memory is taken to be warm.
_WARM = 1_000
#: Lengths of GRCh38's chromosomes in Mb, 1 to 22, X, Y, and of four contigs that are on none.
_CONTIGS = (248, 242, 198, 190, 182, 171, 159, 145, 138, 134, 135, 133, 114, 107, 102, 90, 83)
_CONTIGS += (80, 59, 64, 47, 51, 156, 57, 0.2, 0.2, 0.1, 0.04)
#: How much the time of an allele differs between shards, by what nobody knows when they are
#: handed out: how dense they are, how many are indels, which other programs run.
_SPREAD = 0.25


@dataclass(frozen=True)
class Task:
    """A shard of a stub: how many rows it has, and how many seconds it takes."""

    index: int
    rows: int
    seconds: float


class StubScorer:
    """Does nothing at all."""

    rows_done = 0

    def score_shard(self, task: Task) -> dict[str, Any]:
        """Return a receipt as long as a real one."""
        file = {"dataset": "scores", "path": f"scores/chrom=chr1/part-{task.index:05d}.parquet"}
        file |= {
            "rows": task.rows,
            "bytes": 125_000_000 + task.index,
            "sha256": f"{task.index:064x}",
        }
        return {
            "shard": task.index,
            "chrom": "chr1",
            "rows": task.rows,
            "first_pos": task.index,
            "last_pos": task.index + task.rows,
            "seconds": 12.345,
            "engine_seconds": 11.234,
            "files": [file, {**file, "dataset": "tops"}],
        }


class TimedScorer(StubScorer):
    """Sleeps as long as a shard takes."""

    def __init__(self) -> None:
        self.rows_done = 0

    def score_shard(self, task: Task) -> dict[str, Any]:
        """Return a receipt that says when the shard was begun: seconds since the epoch."""
        began = time.time()
        time.sleep(task.seconds)
        self.rows_done += task.rows
        return {**super().score_shard(task), "began": began}


class DriverRow(NamedTuple):
    """What the driver did for one shard, on average; memory is what it grew by after a while.

    Attributes:
        shards: how many there were.
        wall_ms: of the clock; the workers had nothing to do.
        cpu_ms: of the driver's own processor time, Ray's threads in it included.
        bytes: by which the process grew when receipts were dropped.
        receipt_bytes: by which it grew when they were kept, as a run keeps them.
    """

    shards: int
    wall_ms: float
    cpu_ms: float
    bytes: float
    receipt_bytes: float


def driver_row(shards: int, workers: int) -> DriverRow:
    """Run `shards` shards of nothing twice, receipts dropped and kept; Ray is connected."""
    _drive(min(_WARM, shards), workers, id)  # what is made once, in Ray too, is not a shard's
    kept: deque[dict[str, Any]] = deque(maxlen=1)
    dropped, wall, cpu = _drive(shards, workers, kept.append)
    all_kept: list[dict[str, Any]] = []
    keeping, _, _ = _drive(shards, workers, all_kept.append)
    return DriverRow(shards, 1e3 * wall / shards, 1e3 * cpu / shards, dropped, keeping)


def _drive(
    shards: int, workers: int, keep: Callable[[dict[str, Any]], object]
) -> tuple[float, float, float]:
    """Return bytes of growth a shard, and seconds of the clock and of this process from the first.

    Seconds begin with the first receipt: the start of actors is not the driver's work.
    """
    began: list[tuple[float, float]] = []
    memory: list[float] = []

    def on_receipt(receipt: dict[str, Any]) -> None:
        keep(receipt)
        if not began:
            began.append((time.perf_counter(), time.process_time()))
        memory.append(0.0)
        if len(memory) in (min(_WARM, shards // 2), shards):
            memory[-1] = memory_now("VmRSS") * 2**20

    tasks = [Task(index, 65_536, 0.0) for index in range(shards)]
    failures = run_shards(tasks, StubScorer, PoolOptions(workers=workers), on_receipt=on_receipt)
    wall, cpu = time.perf_counter(), time.process_time()
    if failures or len(memory) != shards:
        raise RuntimeError(f"{len(failures)} stubs failed: {failures[:1]}")
    warm = min(_WARM, shards // 2)
    growth = (memory[-1] - memory[warm - 1]) / (shards - warm)
    return growth, wall - began[0][0], cpu - began[0][1]


class EfficiencyRow(NamedTuple):
    """How much of the workers' time was scoring.

    Attributes:
        workers: how many.
        shards: among them.
        seconds: from the first shard that was begun to the last receipt.
        start_seconds: of those, until the last worker had begun.
        efficiency: seconds of scoring over workers x seconds.
    """

    workers: int
    shards: int
    seconds: float
    start_seconds: float
    efficiency: float


def efficiency_row(workers: int, seconds: float, shards_each: int = 80) -> EfficiencyRow:
    """Run so many stubs that each worker has `seconds` to sleep; Ray is connected."""
    tasks = list(genome_tasks(workers * shards_each, workers * seconds))
    work = sum(task.seconds for task in tasks)
    begun: list[float] = []
    failures = run_shards(
        biggest_first(tasks),
        TimedScorer,
        PoolOptions(workers=workers),
        on_receipt=lambda receipt: begun.append(receipt["began"]),
    )
    last = time.time()
    if failures:
        raise RuntimeError(f"{len(failures)} stubs failed: {failures[0]}")
    begun.sort()
    whole = last - begun[0]
    start = begun[workers - 1] - begun[0]
    return EfficiencyRow(workers, len(tasks), whole, start, work / (workers * whole))


def genome_tasks(shards: int, seconds: float) -> Iterator[Task]:
    """Yield about `shards` shards of a genome, cut as a plan is, that take `seconds` together."""
    rows = np.round(np.array(_CONTIGS) * 1e5).astype(np.int64)
    ends = np.cumsum(rows)
    runs = list(zip(range(len(rows)), (ends - rows).tolist(), ends.tolist(), strict=True))
    pieces = list(cut(runs, int(-(-ends[-1] // shards))))
    size = np.array([end - begin for _, begin, end in pieces])
    takes = size * np.exp(np.random.default_rng(0).normal(0, _SPREAD, len(size)))
    takes *= seconds / takes.sum()
    for index, (many, long) in enumerate(zip(size.tolist(), takes.tolist(), strict=True)):
        yield Task(index, many, long)


def biggest_first(tasks: Sequence[Task]) -> list[Task]:
    """Return the tasks as a run hands them out, so that none that is long is begun last."""
    return sorted(tasks, key=lambda task: -task.rows)
