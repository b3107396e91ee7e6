"""Commands on a head that `ray start` started and that is killed while they run."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.paths import PYTHON_PATHS
from support.ray_head import RayHead, ray_head
from support.small_run import make_inputs
from support.small_training import write_dataset, write_recipe

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(180)]


#: Runs the command line of a module that waits only a few seconds for a silent cluster.
COMMAND = """
import importlib, sys
from raygenome.cluster import health

health.PATIENCE_S = 4.0
importlib.import_module(sys.argv.pop(1)).main()
"""

LOST = "the Ray cluster was lost: nothing answers at "


@contextmanager
def command(module: str, words: list[Any], head: RayHead) -> Iterator[subprocess.Popen[str]]:
    """Run the command line of `module` on the head, and kill it at the end of the block."""
    path = os.pathsep.join(map(str, PYTHON_PATHS))
    with subprocess.Popen(
        [sys.executable, "-c", COMMAND, module, *map(str, words), "--address", head.gcs],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**head.environment(), "PYTHONPATH": path},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def await_progress(run: Path, process: subprocess.Popen[str], least: int) -> None:
    """Wait until a run has done at least `least` rows."""
    deadline = time.monotonic() + 90
    while not (run / "progress.json").exists() or told(run)["done"] < least:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)


def told(run: Path) -> dict[str, Any]:
    return json.loads((run / "progress.json").read_text())


def assert_ends_as_lost(
    process: subprocess.Popen[str], run: Path, head: RayHead, line: str
) -> None:
    """Kill the head's GCS, and check that the command ends by itself with one line."""
    began = time.monotonic()
    head.lose("gcs_server")
    _, err = process.communicate(timeout=58)
    assert process.returncode == 75, err
    assert time.monotonic() - began < 45
    last = err.splitlines()[-1]
    assert re.match(
        f"raygenome: ({line}).* (committed results|checkpoints) are kept[;:] "
        ".*run again with --resume$",
        last,
    )
    assert "Traceback" not in err
    assert told(run)["state"] == "failed"
    assert f"raygenome: {told(run)['error']}" == last


def test_score_ends_when_its_head_is_killed(tmp_path: Path) -> None:
    """Ray itself would end the process a minute later, with exit code 1 and no message."""
    inputs = make_inputs(tmp_path)
    run = tmp_path / "run"
    words = ["score", inputs["vcf"], "--model", inputs["model"], "--fasta", inputs["fasta"]]
    words += ["--out", run, "--workers", 2, "--device", "cpu", "--shard-size", 5]
    with (
        ray_head(python_path=PYTHON_PATHS) as head,
        command("chaos.slow_scorer", words, head) as process,
    ):
        await_progress(run, process, least=1)
        assert_ends_as_lost(process, run, head, LOST)


@pytest.mark.campaign
def test_train_ends_when_its_head_is_killed(tmp_path: Path) -> None:
    """Ray Train may notice it first, and would print 50 lines."""
    (tmp_path / "look-every").write_text("2")
    (tmp_path / "hold-0-9").touch()
    run = tmp_path / "run"
    words = ["train", write_recipe(tmp_path / "r.yaml"), "--data", write_dataset(tmp_path / "data")]
    words += ["--out", run, "--workers", 2, "--device", "cpu"]
    with (
        ray_head(python_path=PYTHON_PATHS) as head,
        command("support.training_launcher", words, head) as process,
    ):
        await_progress(run, process, least=1)
        assert_ends_as_lost(process, run, head, f"{LOST}|training stopped: ")
