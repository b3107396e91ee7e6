"""The overhead of the worker pool itself, measured on real Ray actors with stub scorers.

`driver_row` times the driver. Its stub does nothing and returns a receipt of realistic size.
`efficiency_row` times the scheduling. Its stub sleeps as long as a shard would take, so that eight
workers fit on two cores. The time lost is start-up, the wait for the last shards, and the driver's
delay.
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

#: Receipts after which the driver's memory no longer grows by one-time allocations.
_WARM = 1_000
#: Lengths in Mb of GRCh38's chromosomes 1 to 22, X and Y, and of four unplaced contigs.
_CONTIGS = (248, 242, 198, 190, 182, 171, 159, 145, 138, 134, 135, 133, 114, 107, 102, 90, 83)
_CONTIGS += (80, 59, 64, 47, 51, 156, 57, 0.2, 0.2, 0.1, 0.04)
#: How much the time per allele varies between shards (standard deviation of its logarithm). The
#: causes are unknown when shards are scheduled: density, number of indels, other programs.
_SPREAD = 0.25


@dataclass(frozen=True)
class Task:
    """A shard for a stub scorer: its number of rows, and the seconds that it takes."""

    index: int
    rows: int
    seconds: float


class StubScorer:
    """A scorer that does nothing."""

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
    """A scorer that sleeps as long as a shard takes."""

    def __init__(self) -> None:
        self.rows_done = 0

    def score_shard(self, task: Task) -> dict[str, Any]:
        """Return a receipt with the time at which the shard started, in seconds since the epoch."""
        started = time.time()
        time.sleep(task.seconds)
        self.rows_done += task.rows
        return {**super().score_shard(task), "started": started}


class DriverRow(NamedTuple):
    """The driver's cost per shard, on average; memory is measured after the first receipts.

    Attributes:
        shards: number of shards.
        wall_ms: wall milliseconds per shard; the workers do nothing.
        cpu_ms: CPU milliseconds of the driver process per shard, including Ray's threads in it.
        bytes: growth of the process per shard if receipts are dropped.
        receipt_bytes: growth of the process per shard if receipts are kept, as a run does.
    """

    shards: int
    wall_ms: float
    cpu_ms: float
    bytes: float
    receipt_bytes: float


def driver_row(shards: int, workers: int) -> DriverRow:
    """Run empty shards, with receipts dropped and then kept; Ray must be connected."""
    _drive(min(_WARM, shards), workers, id)  # warm-up: one-time costs do not count
    kept: deque[dict[str, Any]] = deque(maxlen=1)
    dropped, wall, cpu = _drive(shards, workers, kept.append)
    all_kept: list[dict[str, Any]] = []
    keeping, _, _ = _drive(shards, workers, all_kept.append)
    return DriverRow(shards, 1e3 * wall / shards, 1e3 * cpu / shards, dropped, keeping)


def _drive(
    shards: int, workers: int, keep: Callable[[dict[str, Any]], object]
) -> tuple[float, float, float]:
    """Return the bytes of growth per shard, and total wall seconds and CPU seconds.

    The seconds count from the first receipt, because starting actors is not the driver's work.
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
    """The fraction of the workers' time that was scoring.

    Attributes:
        workers: number of workers.
        shards: number of shards of all workers.
        seconds: from the start of the first shard to the last receipt.
        start_seconds: from the start of the first shard until every worker has started one.
        efficiency: seconds of scoring / (workers x seconds).
    """

    workers: int
    shards: int
    seconds: float
    start_seconds: float
    efficiency: float


def efficiency_row(workers: int, seconds: float, shards_each: int = 80) -> EfficiencyRow:
    """Run stub shards of `seconds` per worker in total; Ray must be connected."""
    tasks = list(genome_tasks(workers * shards_each, workers * seconds))
    work = sum(task.seconds for task in tasks)
    starts: list[float] = []
    failures = run_shards(
        biggest_first(tasks),
        TimedScorer,
        PoolOptions(workers=workers),
        on_receipt=lambda receipt: starts.append(receipt["started"]),
    )
    last = time.time()
    if failures:
        raise RuntimeError(f"{len(failures)} stubs failed: {failures[0]}")
    starts.sort()
    whole = last - starts[0]
    start = starts[workers - 1] - starts[0]
    return EfficiencyRow(workers, len(tasks), whole, start, work / (workers * whole))


def genome_tasks(shards: int, seconds: float) -> Iterator[Task]:
    """Yield about `shards` shards of a genome, cut as in a plan, that take `seconds` in total."""
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
    """Return the tasks in the order of a run: largest first, so that no long task starts last."""
    return sorted(tasks, key=lambda task: -task.rows)
