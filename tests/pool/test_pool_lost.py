"""An existing cluster that is lost for good, with a pool in a separate process."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.paths import PYTHON_PATHS
from support.small_cluster import LEAKS, small_cluster

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(120), LEAKS]

DRIVER = """
import logging, sys
from functools import partial
from pathlib import Path
from support.pool_scorers import FileScorer, Task
from raygenome.errors import PartialFailure
from raygenome.cluster.connect import joined
from raygenome.pool import PoolOptions, run_shards

logging.disable(logging.CRITICAL)
address, folder = sys.argv[1:]
tasks = [Task(0), Task(1, "hang"), Task(2, "hang")]
try:
    with joined(address):
        run_shards(
            tasks,
            partial(FileScorer, Path(folder)),
            PoolOptions(workers=2, worker_gpus=1, patience_s=4.0),
            on_receipt=lambda receipt: print("receipt", flush=True),
        )
except PartialFailure as lost:
    print(lost)
    sys.exit(lost.exit_code)
"""


@pytest.mark.parametrize("program", ["gcs_server", "raylet"])
def test_a_cluster_that_is_lost_ends_the_run_in_time(tmp_path: Path, program: str) -> None:
    """Ray itself would end the driver a minute after a lost GCS, and never after a lost raylet."""
    with small_cluster() as cluster:
        cluster.add(gpus=2)
        path = os.pathsep.join([*map(str, PYTHON_PATHS), os.environ["PYTHONPATH"]])
        with subprocess.Popen(
            [sys.executable, "-c", DRIVER, cluster.address, str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "receipt\n"
            began = time.monotonic()
            cluster.lose(program)
            out, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (75, "")
        assert time.monotonic() - began < 40
        assert out.startswith("the Ray cluster was lost: nothing answers at ")
