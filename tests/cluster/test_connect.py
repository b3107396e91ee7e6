"""Connecting to Ray: addresses that are refused before Ray could hang, and joining a cluster."""

import http.server
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import ray
from support.paths import python_environment
from support.pool_runs import Run, tasks
from support.ray_head import ray_head
from support.small_cluster import environment

from raygenome.cluster import connect, local_ray, probe
from raygenome.cluster.address import find_address
from raygenome.cluster.resources import joined_machines
from raygenome.errors import UsageError


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture
def web_port() -> Iterator[int]:
    """Yield the port of a web server, which a dashboard also is."""
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def try_to_join(address: str) -> None:
    with connect.joined(address):
        raise AssertionError("joined")


@pytest.mark.parametrize(
    "address", ["nonsense", "http://head:8265", "ray://head:10001", "head:", "head:port", ":6379"]
)
def test_an_invalid_address_is_refused(address: str) -> None:
    with pytest.raises(
        UsageError, match=f"{address!r} is not the address of a Ray head; give HOST:PORT"
    ):
        try_to_join(address)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_closed_port_is_reported_at_once(closed_port: int, host: str) -> None:
    with pytest.raises(UsageError, match=f"no Ray cluster answers at address {host}:{closed_port}"):
        try_to_join(f"{host}:{closed_port}")


def test_an_impossible_port_is_refused() -> None:
    with pytest.raises(UsageError, match=r"no Ray cluster answers at address 127\.0\.0\.1:99999"):
        try_to_join("127.0.0.1:99999")


def test_a_web_server_is_not_a_head(web_port: int) -> None:
    with pytest.raises(UsageError, match="is not a Ray head; give the head's own port"):
        try_to_join(f"127.0.0.1:{web_port}")


def test_a_silent_server_is_not_a_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "CONNECT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(UsageError, match=f"no Ray cluster answers at address {address}"):
            try_to_join(address)


def test_import_paths_are_those_that_other_interpreters_lack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    paths = local_ray.import_paths()
    assert paths[0] == str(tmp_path)
    assert not [path for path in paths if "site-packages" in path]


def test_a_cluster_on_the_network_is_not_joined_without_a_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is refused before Ray is asked; 192.0.2.7 is reserved for documentation."""
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.setattr(connect, "require_head", lambda _: None)
    with pytest.raises(UsageError, match=r"cluster at 192\.0\.2\.7 .*no token.*--insecure"):
        try_to_join("192.0.2.7:6379")


class OpenDashboard(http.server.BaseHTTPRequestHandler):
    """Returns jobs to anyone, as a head without a token does."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(b"[]")

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.slow
def test_an_open_dashboard_is_refused_where_others_reach_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), OpenDashboard) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        dashboard = f"127.0.0.1:{server.server_port}"
        connect._require_protected_dashboard(dashboard)  # this machine's own address
        monkeypatch.setattr(connect.auth, "is_loopback", lambda _: False)
        with pytest.raises(
            UsageError, match=f"with the dashboard {dashboard} accepts jobs from anyone"
        ):
            connect._require_protected_dashboard(dashboard)
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("hosts", "beyond"),
    [
        (["127.0.0.1", "localhost"], None),
        (["127.0.0.1", "192.0.2.7"], "192.0.2.7"),
        (["fd00::2", "fd00::2"], "fd00::2"),
    ],
)
def test_nodes_on_the_network_without_a_token_are_refused(
    monkeypatch: pytest.MonkeyPatch, hosts: list[str], beyond: str | None
) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    if beyond is None:
        connect._require_protected_nodes(hosts)
    else:
        with pytest.raises(UsageError, match=rf"network, at {beyond}, .*no token .*--insecure$"):
            connect._require_protected_nodes(hosts)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    connect._require_protected_nodes(hosts)


@pytest.mark.parametrize(
    ("address", "variable", "found"),
    [
        (None, None, None),
        ("local", None, None),
        ("local", "head:6379", None),
        (None, "head:6379", "head:6379"),
        (None, "local", None),
        ("auto", "head:6379", "auto"),
        ("", "", None),
    ],
)
def test_the_cluster_that_a_run_would_join(
    monkeypatch: pytest.MonkeyPatch, address: str | None, variable: str | None, found: str | None
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if variable is not None:
        monkeypatch.setenv("RAY_ADDRESS", variable)
    assert find_address(address) == found


@pytest.mark.parametrize("variable", ["local", "127.0.0.1:1"])
def test_workers_without_a_cluster_get_a_private_ray_whatever_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """A run with --address local would otherwise join the cluster of RAY_ADDRESS."""
    monkeypatch.setenv("RAY_ADDRESS", variable)
    monkeypatch.setattr(connect, "private_ray", lambda *_: nullcontext())
    with joined_machines("local") as machines, connect.connected(workers=1, device="cpu") as own:
        assert not machines.cluster
        assert own


@pytest.mark.ray
@pytest.mark.slow
def test_a_private_ray_without_a_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with (
        pytest.raises(UsageError, match="this machine has none; use --device cpu"),
        connect.connected(workers=1, device="cuda"),
    ):
        raise AssertionError("connected")
    assert not ray.is_initialized()


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("worker_gpus", [None, 0.5])
def test_workers_with_a_gpu_are_refused_before_a_private_ray_starts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, worker_gpus: float | None
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(local_ray, "_start", lambda *_: pytest.fail("Ray was started"))
    device = "cuda" if worker_gpus is None else "cpu"
    with pytest.raises(UsageError, match=r"or --worker-gpus\), and this machine has none"):
        Run(tmp_path)(tasks(1), device=device, worker_gpus=worker_gpus)


@pytest.mark.ray
@pytest.mark.slow
def test_a_wrong_token_is_reported_at_once(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with ray_head() as head:
        refused = f"the Ray cluster at {head.gcs} refuses this process; set RAY_AUTH_MODE"
        tries = {"no": {}, "wrong": {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}}
        tries["impossible"] = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "\u00e9\n"}
        for variables in tries.values():
            for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
                monkeypatch.delenv(name, raising=False)
            for name, value in variables.items():
                monkeypatch.setenv(name, value)
            began = time.monotonic()
            with pytest.raises(UsageError, match=refused) as hit:
                try_to_join(head.gcs)
            assert time.monotonic() - began < 5
            assert "\n" not in str(hit.value)
        with environment(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=head.token):
            monkeypatch.delenv("PYTHONBREAKPOINT", raising=False)
            with connect.joined(head.gcs):
                assert "PYTHONBREAKPOINT" not in os.environ
    assert capfd.readouterr() == ("", ""), "Ray's own lines"


CLUSTER = """
import logging, os, secrets, sys
os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
from functools import partial
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
from support.pool_scorers import FileScorer, Task
from raygenome.cluster.connect import joined
from raygenome.pool import PoolOptions, run_shards

logging.basicConfig(level=logging.WARNING, stream=sys.stdout)
memory = 80 * 2**20
cluster = Cluster(
    initialize_head=True,
    shutdown_at_exit=False,
    head_node_args={"num_cpus": 0, "num_gpus": 2, "object_store_memory": memory},
)
receipts = []
with joined(cluster.address):
    failures = run_shards(
        [Task(index, "slow") for index in range(8)],
        partial(FileScorer, Path(sys.argv[1])),
        PoolOptions(workers=3, device="cuda"),
        on_receipt=receipts.append,
    )
assert not ray.is_initialized()
assert failures == []
assert sorted(receipt["shard"] for receipt in receipts) == list(range(8))
print("devices", sorted({receipt["devices"] for receipt in receipts}))
cluster.shutdown()
"""


@pytest.mark.ray
@pytest.mark.slow
def test_an_existing_cluster_is_joined_and_each_actor_has_a_gpu(tmp_path: Path) -> None:
    """The GPUs are only declared; a third actor stays pending and delays nothing."""
    done = subprocess.run(
        [sys.executable, "-c", CLUSTER, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=100,
        env={**python_environment(), "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert "devices ['0', '1']" in done.stdout
    assert "WARNING" not in done.stdout
