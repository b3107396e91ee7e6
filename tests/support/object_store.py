"""Local servers for the tests of object stores: one like S3, one like Google Cloud Storage."""

import contextlib
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyarrow import fs

#: The credentials for the server; it accepts any key.
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@contextlib.contextmanager
def s3_server() -> Iterator[str]:
    """Run an empty S3 server, and yield its URL."""
    code = "from moto.server import main; main(['-H', '127.0.0.1', '-p', '{port}'])"
    with _server(code, "moto-api/") as url:
        yield url


@contextlib.contextmanager
def gs_server(bucket: str) -> Iterator[str]:
    """Run a server like Google's with one bucket, and yield its HOST:PORT."""
    code = (
        "from http.server import ThreadingHTTPServer\n"
        "from gcp_storage_emulator import server as emulator\n"
        "emulator.server.HTTPServer = ThreadingHTTPServer\n"  # requests come at the same time
        f"server = emulator.create_server('127.0.0.1', {{port}}, True, default_bucket='{bucket}')\n"
        "server.run()"
    )
    with _server(code, "") as url:
        yield url.removeprefix("http://")


@contextlib.contextmanager
def _server(code: str, page: str) -> Iterator[str]:
    """Run a program that serves on {port}, wait until it answers, and yield its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = code.format(port=port)
    server = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        _await_server(f"{url}/{page}", server)
        yield url
    finally:
        server.kill()
        server.wait()


def _await_server(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert server.poll() is None, "the server ended"
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            urllib.request.urlopen(url, timeout=5).close()
            return
        time.sleep(0.05)
    raise AssertionError(f"no server answers at {url}")


def use(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Let s3:// URLs lead to the server at `url`."""
    for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": url}.items():
        monkeypatch.setenv(name, value)


def make_bucket(name: str) -> fs.FileSystem:
    """Make a bucket, and return its filesystem."""
    filesystem, _ = fs.FileSystem.from_uri(f"s3://{name}?allow_bucket_creation=true")
    filesystem.create_dir(name)
    return filesystem


def put(filesystem: fs.FileSystem, path: str, file: Path) -> str:
    """Upload a file, and return its URL."""
    with filesystem.open_output_stream(path, compression=None) as out:
        out.write(file.read_bytes())
    return f"s3://{path}"
