"""A worker that Ray's real memory monitor kills, with a low threshold."""

from pathlib import Path

import pytest
from support.pool_runs import Run, tasks
from support.small_cluster import LEAKS, small_cluster

from raygenome.cluster.connect import joined

#: Bytes that a worker may take beyond the memory in use, and bytes that must be free.
ROOM, NEEDED = 3 * 2**30, 8 * 2**30


def memory() -> tuple[int, int]:
    """Return the bytes that this machine has and those that are free, as Ray counts them."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        pytest.skip("there is no /proc/meminfo")
    found = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
    return found["MemTotal"], found["MemAvailable"]


@LEAKS
@pytest.mark.ray
@pytest.mark.slow
def test_a_shard_that_fills_the_memory_is_given_up(tmp_path: Path) -> None:
    total, free = memory()
    if free < NEEDED:
        pytest.skip("too little memory is free to spend some")
    run = Run(tmp_path)
    threshold = (total - free + ROOM) / total
    with (
        small_cluster(memory_usage_threshold=threshold, memory_monitor_refresh_ms=100) as cluster,
        joined(cluster.address),
    ):
        cluster.add()
        run(tasks(5, s1="gorge"), workers=1, worker_gpus=1, max_attempts=2)
    ((shard, cause, attempts),) = run.failures
    assert (shard.index, attempts) == (1, 2)
    assert cause == "its worker was killed by Ray because its node ran out of memory"
    assert run.done == run.parts() == [0, 2, 3, 4]
