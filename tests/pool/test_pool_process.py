"""A pool in a separate process: leftovers, signals, and a Ray that is gone for good."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from chaos.processes import below
from support.paths import python_environment

pytestmark = [pytest.mark.ray, pytest.mark.slow]

DRIVER = """
import logging, os, signal, sys
from functools import partial
from pathlib import Path
from support.pool_scorers import FileScorer, Task
from raygenome.pool import PoolOptions, run_shards

def handler(number, frame):
    raise SystemExit(143)

signal.signal(signal.SIGTERM, handler)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has it ignored behind `&`
before = dict(os.environ)
folder = Path(sys.argv[1])
acts = sys.argv[2:]
tasks = [Task(index, act) for index, act in enumerate(acts)]
logging.disable(logging.CRITICAL)

def begin(receipt):
    print("receipt", receipt["pid"], flush=True)

run_shards(tasks, partial(FileScorer, folder), PoolOptions(workers=2), on_receipt=begin)
assert signal.getsignal(signal.SIGTERM) is handler
assert dict(os.environ) == before, set(os.environ.items()) ^ set(before.items())
"""


def driver(folder: Path, *acts: str) -> subprocess.Popen:
    """Start a process in its own group that runs a pool, as a command line would."""
    folder.joinpath("home").mkdir()
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(folder), *acts],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**python_environment(), "HOME": str(folder / "home")},
        start_new_session=True,
        cwd=folder,
    )


def test_a_private_ray_is_silent_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with driver(tmp_path, "write", "kill-once", "error", "write") as process:
        out, err = process.communicate(timeout=50)
    assert process.returncode == 0, err
    assert [line.split()[0] for line in out.splitlines()] == ["receipt"] * 3
    assert err == ""
    assert list(tmp_path.joinpath("home").iterdir()) == []


@pytest.mark.parametrize(
    ("send", "number", "code"),
    [
        (os.killpg, signal.SIGINT, None),  # as a terminal does
        (os.kill, signal.SIGTERM, 143),
        (os.killpg, signal.SIGTERM, 143),  # as `timeout` and batch systems do: Ray dies as well
    ],
)
def test_a_signal_ends_the_run_and_its_workers_soon(
    tmp_path: Path, send: Callable[[int, int], None], number: int, code: int | None
) -> None:
    with driver(tmp_path, "write", "hang", "hang") as process:
        assert process.stdout is not None
        worker = int(process.stdout.readline().split()[1])
        began = time.monotonic()
        send(process.pid, number)
        _, err = process.communicate(timeout=30)
    assert time.monotonic() - began < 15
    if code is None:
        assert "KeyboardInterrupt" in err.splitlines()[-1]
    else:
        assert (process.returncode, err) == (code, "")
    # If Ray died with the driver, a worker notices it by itself after some seconds.
    deadline = time.monotonic() + 30
    while is_alive(worker):
        assert time.monotonic() < deadline, "the worker lives on"
        time.sleep(0.1)


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


PRIVATE_LOST = "raygenome.errors.PartialFailure: the Ray cluster was lost: nothing answers at "


@pytest.mark.parametrize("role", ["gcs", "raylet"])
def test_a_private_ray_that_is_gone_ends_the_run_soon(tmp_path: Path, role: str) -> None:
    """Ray itself would end it a minute after a lost GCS, and never after a lost raylet."""
    with driver(tmp_path, "write", "hang", "hang") as process:
        assert process.stdout is not None
        process.stdout.readline()
        family = below(process.pid)
        (victim,) = [each for each in family if each.role == role]
        began = time.monotonic()
        victim.kill()
        _, err = process.communicate(timeout=60)
    assert time.monotonic() - began < 40
    assert process.returncode == 1, "a Python traceback; the command line has its own code"
    assert PRIVATE_LOST in err.splitlines()[-1]
    assert err.splitlines()[-1].endswith("committed results are kept; run again with --resume")
    left = [each for each in family if each.is_alive()]
    # Workers and agents find out within a minute that their head is gone.
    assert not [each for each in left if each.role in ("gcs", "raylet")]
    for each in left:
        each.kill()
