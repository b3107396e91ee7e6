"""Checks whether a token protects a cluster: the meaning of each answer, and what is allowed."""

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from raygenome.cluster import auth
from raygenome.errors import UsageError


class Answers(BaseHTTPRequestHandler):
    """Answers any GET with the server's `answer`: status, content type, further headers."""

    def do_GET(self) -> None:
        self.server.asked.append((self.path, dict(self.headers)))  # type: ignore[attr-defined]
        status, kind, headers = self.server.answer  # type: ignore[attr-defined]
        self.send_response(status)
        self.send_header("Content-Type", kind)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(b"[]")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        server.answer, server.asked = (200, "application/json", {}), []  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def url(server: HTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_port}"


@pytest.mark.parametrize(
    ("status", "kind", "headers", "asks"),
    [
        (200, "application/json", {}, False),
        (401, "text/plain", {}, True),
        (403, "text/plain", {}, True),
        (404, "text/html", {}, None),
        (500, "application/json", {}, None),
        (200, "text/html", {}, None),
        (302, "text/html", {"Location": "/login"}, None),
    ],
)
def test_each_answer_has_its_meaning(
    server: HTTPServer, status: int, kind: str, headers: dict[str, str], asks: bool | None
) -> None:
    server.answer = status, kind, headers  # type: ignore[attr-defined]
    assert auth.requires_token(url(server) + "/") is asks
    (path, sent), *more = server.asked  # type: ignore[attr-defined]
    assert path == "/api/jobs/"
    assert not more, "a redirect was followed"
    assert "Authorization" not in sent


def test_requires_token_sends_no_token(server: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "s" * 32)
    assert auth.requires_token(url(server)) is False
    assert "s" * 32 not in str(server.asked)  # type: ignore[attr-defined]


def test_refuses_sends_the_token_that_it_is_given(
    server: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "s" * 32)
    assert auth.refuses(url(server), sent=auth.token()) is False
    ((_, sent),) = server.asked  # type: ignore[attr-defined]
    assert sent["Authorization"] == f"Bearer {'s' * 32}"
    with pytest.raises(ValueError, match="header"):
        auth.refuses(url(server), sent="a\nb")


def test_a_closed_port_and_silence_are_no_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        place = f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert auth.requires_token(place, timeout_s=0.1) is None
        with pytest.raises(OSError, match="timed out"):
            auth.refuses(place, 0.1)
    assert auth.requires_token(place) is None


def test_what_speaks_no_http_is_not_ray() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            channel, _ = listener.accept()
            with channel:
                channel.recv(4096)
                channel.sendall(
                    bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
                )  # the start of a gRPC connection

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(auth.NotRay, match="no HTTP"):
            auth.refuses(f"http://127.0.0.1:{listener.getsockname()[1]}")
        thread.join()


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True),
        ("LOCALHOST.", True),
        ("a.localhost", True),
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("[::1]", True),
        ("::ffff:127.0.0.1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("127.0.0.1.example.org", False),
        ("localhost.example.org", False),
        ("head", False),
        ("", False),
    ],
)
def test_loopback(host: str, loopback: bool) -> None:
    assert auth.is_loopback(host) is loopback


def test_a_token_needs_its_mode(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "t" * 32)
    assert not auth.has_token()
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    assert auth.has_token()
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    assert not auth.has_token()
    kept = tmp_path / ".ray" / "auth_token"
    kept.parent.mkdir()
    kept.write_text("\n")
    assert not auth.has_token()
    kept.write_text("t" * 32)
    assert auth.has_token()
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "elsewhere"))
    assert not auth.has_token()
    (tmp_path / "elsewhere").write_text("t" * 32)
    assert auth.has_token()


def test_only_a_cluster_on_the_network_needs_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    auth.require_protected("127.0.0.1", insecure=False)
    auth.require_protected("head", insecure=True)
    with pytest.raises(UsageError, match="the Ray cluster at head is on the network") as found:
        auth.require_protected("head", insecure=False)
    message = str(found.value)
    assert "start it with RAY_AUTH_MODE=token, and here set RAY_AUTH_MODE=token, and" in message
    assert message.endswith("or type --insecure")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "t" * 32)
    auth.require_protected("head", insecure=False)
