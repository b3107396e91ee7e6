"""Downloads from a real HTTP server on this machine."""

import gc
import hashlib
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from support.builders import load_model
from support.kipoi_nets import kipoi_basset

from raygenome.errors import DataError, NoInput, OutputError, UsageError
from raygenome.models import PUBLISHED
from raygenome.registry.published import pull


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> bytes:
    torch.manual_seed(6)
    path = tmp_path_factory.mktemp("published") / "basset.pth"
    torch.save(kipoi_basset().state_dict(), path)
    return path.read_bytes()


@pytest.fixture(scope="module")
def server(checkpoint) -> Iterator[str]:
    """Serve the checkpoint whole, truncated, and missing; yield the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if "missing" in self.path:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(checkpoint)))
            self.end_headers()
            self.wfile.write(checkpoint[: len(checkpoint) // (2 if "cut" in self.path else 1)])

        def log_message(self, *_args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


@pytest.fixture
def publish(monkeypatch, checkpoint):
    """Make `pull("basset")` fetch another URL, or expect another md5."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    def set_entry(url: str, md5: str | None = None) -> None:
        md5 = md5 or hashlib.md5(checkpoint).hexdigest()
        monkeypatch.setitem(PUBLISHED, "basset", PUBLISHED["basset"]._replace(url=url, md5=md5))

    return set_entry


@pytest.mark.slow
def test_pull(home, server, publish, checkpoint, caplog):
    publish(f"{server}/files/basset.pth?download=1")
    seen = []
    with caplog.at_level("INFO", logger="raygenome"):
        spec = pull("basset", progress=lambda done, total: seen.append((done, total)))
    assert (spec.name, spec.licence, spec.targets) == ("basset", "MIT", 164)
    assert spec.source.startswith(f"{server}/files/basset.pth?download=1 (md5 ")
    net, _ = load_model("basset")
    with torch.inference_mode():
        assert net(torch.rand(1, 4, 600)).shape == (1, 164)
    assert "17 MB, licence MIT, http" in caplog.text
    assert seen[-1] == (len(checkpoint), len(checkpoint))
    assert len(seen) > 3
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert [path.name for path in home.iterdir()] == ["models"]  # the download is gone


def test_pull_twice(home, server, publish):
    publish(f"{server}/basset.pth")
    pull("basset")
    with pytest.raises(OutputError, match="exists; choose another name"):
        pull("basset")
    pull("basset", overwrite=True)


def refused(server: str) -> str:
    """Return an address without a server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


# pooch leaves the response of a broken download to the garbage collector
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize(
    ("address", "path", "reason"),
    [
        (str, "/missing.pth", "HTTP status 404"),
        (str, "/cut.pth", "the connection broke off"),
        (refused, "/basset.pth", "no connection"),
    ],
)
def test_no_download(home, server, publish, address, path, reason):
    url = address(server) + path
    publish(url, md5="0123456789abcdef0123456789abcdef")
    with pytest.raises(NoInput) as caught:
        pull("basset")
    assert str(caught.value) == (
        f"cannot download basset ({reason}); get {url} (md5 0123456789abcdef0123456789abcdef) by "
        "hand, and run: raygenome models import basset FILE --architecture basset"
    )
    assert list(home.iterdir()) == []
    del caught
    gc.collect()


def test_wrong_file(home, server, publish):
    publish(f"{server}/basset.pth", md5="0" * 32)
    with pytest.raises(DataError, match="download of basset has another md5") as caught:
        pull("basset")
    assert "\n" not in str(caught.value)
    assert f"get {server}/basset.pth (md5 {'0' * 32}) by hand, and run: " in str(caught.value)
    assert list(home.iterdir()) == []


def test_unknown_name(home):
    with pytest.raises(UsageError, match="weights are called 'sei'; there are: basset, beluga"):
        pull("sei")
    assert not home.exists()
