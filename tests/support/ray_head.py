"""A real Ray head from `ray start --head --block`, protected by a token and ended by pid."""

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

#: Longest time that a head may take to answer, on a machine that others use too.
START_S = 90.0


@dataclass(frozen=True)
class RayHead:
    """A running head.

    Attributes:
        url: URL of its dashboard.
        gcs: HOST:PORT of the head itself.
        token: the token that it requires.
        process: `ray start --block`.
        session: the folder of its logs and sockets.
    """

    url: str
    gcs: str
    token: str
    process: subprocess.Popen[bytes]
    session: Path

    def environment(self) -> dict[str, str]:
        """Return the environment of a client that may talk to this head only."""
        return {**_clean(), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token}

    def lose(self, program: str) -> None:
        """Kill one of its processes, such as gcs_server, with SIGKILL."""
        found = [
            pid
            for pid in map(int, filter(str.isdigit, os.listdir("/proc")))
            if _is_of(pid, program, self.process.pid)
        ]
        assert found, f"no {program} runs"
        for pid in found:
            os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def ray_head(
    *, cpus: int = 2, path: list[Path] | None = None, python_path: list[Path] | None = None
) -> Iterator[RayHead]:
    """Run a head within the block.

    Args:
        cpus: number of CPUs that it offers.
        path: folders that come first on its PATH.
        python_path: folders that come first on the import path of everything that runs on it.
    """
    folder = Path(
        tempfile.mkdtemp(prefix="rg")
    )  # short, since socket paths have at most 107 characters
    token = secrets.token_hex(32)
    environment = {**_clean(), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    environment["PATH"] = os.pathsep.join([*map(str, path or []), environment["PATH"]])
    environment["PYTHONPATH"] = os.pathsep.join(map(str, python_path or []))
    port, dashboard, agent, client = free_ports(4)
    words = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
        *("--disable-usage-stats", f"--temp-dir={folder}", f"--port={port}"),
        *("--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1"),
        *(f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}"),
        *(f"--ray-client-server-port={client}", f"--num-cpus={cpus}", "--num-gpus=0"),
        "--object-store-memory=80000000",
    ]
    with (folder / "start.log").open("wb") as log:
        process = subprocess.Popen(
            words,
            env=environment,
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{dashboard}"
    try:
        await_answer(url, token, process, folder / "start.log")
        yield RayHead(url, f"127.0.0.1:{port}", token, process, folder)
    finally:
        end(process)
        shutil.rmtree(folder, ignore_errors=True)


def await_answer(url: str, token: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the Jobs API answers."""
    request = urllib.request.Request(
        f"{url}/api/jobs/", headers={"Authorization": f"Bearer {token}"}
    )
    end_at = time.monotonic() + START_S
    while True:
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                json.load(answer)
                return
        except (OSError, urllib.error.URLError):
            if process.poll() is not None or time.monotonic() > end_at:
                raise AssertionError(f"no head: {log.read_text()}") from None
            time.sleep(0.2)


def _is_of(pid: int, program: str, session: int) -> bool:
    """Return whether a process runs `program` and belongs to a session."""
    try:
        name, _, rest = Path(f"/proc/{pid}/stat").read_text().partition("(")[2].rpartition(")")
    except OSError:
        return False
    return name == program and int(rest.split()[3]) == session


def end(process: subprocess.Popen[bytes]) -> None:
    """End a head and all processes that it has started."""
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        pass
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def free_ports(count: int) -> list[int]:
    """Return ports that nothing listens on."""
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in listeners:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in listeners]


def _clean() -> dict[str, str]:
    """Return this environment without the variables of Ray and of Python's imports."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("RAY_") and name not in ("PYTHONPATH", "RAYGENOME_JOB")
    }
