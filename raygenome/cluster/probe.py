"""Checks whether a Ray process answers at an address, in milliseconds and without Ray.

Ray itself tries for many minutes, fills the terminal meanwhile, and may end the process at last.
"""

import os
import socket

from raygenome.cluster import auth
from raygenome.cluster.address import HEAD_PORT
from raygenome.errors import UsageError

#: How long the head of a cluster may take to answer a connection.
CONNECT_S = 10.0

#: A method that every head has; it takes an empty request and changes nothing.
_METHOD = "/ray.rpc.NodeInfoGcsService/CheckAlive"


def require_head(address: str) -> None:
    """Raise a UsageError unless a gRPC server, as a head is, answers at `address` (HOST:PORT)."""
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not (port.isascii() and port.isdigit()):
        raise UsageError(
            f"address {address!r} is not the address of a Ray head",
            f"give HOST:PORT (port {HEAD_PORT} by default) or auto, or leave --address out to use "
            "only this machine",
        )
    try:
        answers = is_reachable(address, CONNECT_S)
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"no Ray cluster answers at address {address} ({error})",
            "check that it is running and can be reached from here, or leave --address out to use "
            "only this machine",
        ) from None
    if not answers:
        raise UsageError(
            f"what answers at address {address} is not a Ray head",
            f"give the head's own port ({HEAD_PORT} by default), not the port of its dashboard",
        )


def require_entry(address: str) -> None:
    """Raise a UsageError if the head at `address` refuses the token of this environment.

    Every other answer, silence, and a head that uses TLS are left to Ray.
    """
    if not _uses_tls() and _refuses(address, auth.token()):
        raise UsageError(f"the Ray cluster at {address} refuses this process", auth.SET_TOKEN)


def _refuses(address: str, token: str | None) -> bool:
    import grpc  # type: ignore[import-untyped]  # comes with Ray

    if token is not None and not (token.isascii() and token.isprintable()):
        return True  # no request can contain it
    bearer = [("authorization", f"Bearer {token}")] if token else None
    with grpc.insecure_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary(_METHOD)(b"", timeout=CONNECT_S, metadata=bearer)
        except grpc.RpcError as error:
            return bool(error.code() == grpc.StatusCode.UNAUTHENTICATED)
    return False


def is_reachable(address: str, timeout_s: float) -> bool:
    """Return whether the server at HOST:PORT speaks HTTP/2, as every Ray process does.

    With TLS only the connection is tried.

    Raises:
        OSError: nothing listens there, or nothing came within `timeout_s`.
    """
    host, _, port = address.rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port)), timeout_s) as channel:
        return _uses_tls() or _speaks_http2(channel)


def _uses_tls() -> bool:
    return os.environ.get("RAY_USE_TLS", "0") not in ("", "0")


def _speaks_http2(channel: socket.socket) -> bool:
    """Return whether the other end sends an HTTP/2 SETTINGS frame first (RFC 9113, section 3.4)."""
    settings = 4
    channel.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, settings, 0, 0, 0, 0, 0]))
    head = channel.recv(9, socket.MSG_WAITALL)
    return len(head) == 9 and head[3] == settings
