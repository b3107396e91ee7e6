"""Whether a Ray process answers at an address, asked in milliseconds and without Ray.

Ray itself tries for many minutes, fills the terminal meanwhile, and may end the process at last.
"""

import os
import socket

from raygenome.cluster import auth
from raygenome.errors import UsageError

#: How long the head of a cluster may take to answer a connection.
CONNECT_S = 10.0

#: A method of every head that takes an empty request and changes nothing.
_METHOD = "/ray.rpc.NodeInfoGcsService/CheckAlive"


def require_head(address: str) -> None:
    """Raise a UsageError unless a gRPC server, as a head is, answers at `address` (HOST:PORT)."""
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not (port.isascii() and port.isdigit()):
        raise UsageError(
            f"address {address!r} is not one of a Ray head; give HOST:PORT (port 6379 unless "
            "changed), auto, or leave --address out to use this machine alone"
        )
    try:
        answer = greets(address, CONNECT_S)
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"no Ray cluster answers at address {address} ({error}); check that it is running and "
            "reachable from here, or leave --address out to use this machine alone"
        ) from None
    if not answer:
        raise UsageError(
            f"what answers at address {address} is not a Ray head; give the head's own port (6379 "
            "unless it was changed), not the one of its dashboard"
        )


def require_entry(address: str) -> None:
    """Raise a UsageError where the head at `address` refuses the token of this environment.

    What else it may answer, or that it does not, is left to Ray; and so is a head behind TLS.
    """
    if not _behind_tls() and _refuses(address, auth.token()):
        raise UsageError(f"the Ray cluster at {address} does not let this process in: {auth.HOW}")


def _refuses(address: str, token: str | None) -> bool:
    import grpc  # type: ignore[import-untyped]  # comes with Ray

    if token is not None and not (token.isascii() and token.isprintable()):
        return True  # no request can hold it
    bearer = [("authorization", f"Bearer {token}")] if token else None
    with grpc.insecure_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary(_METHOD)(b"", timeout=CONNECT_S, metadata=bearer)
        except grpc.RpcError as error:
            return bool(error.code() == grpc.StatusCode.UNAUTHENTICATED)
    return False


def greets(address: str, timeout_s: float) -> bool:
    """Return whether what listens at HOST:PORT speaks HTTP/2, as every Ray process does.

    Behind TLS only the connection is tried.

    Raises:
        OSError: nothing listens there, or nothing came within `timeout_s`.
    """
    host, _, port = address.rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port)), timeout_s) as channel:
        return _behind_tls() or _http2_greeting(channel)


def _behind_tls() -> bool:
    return os.environ.get("RAY_USE_TLS", "0") not in ("", "0")


def _http2_greeting(channel: socket.socket) -> bool:
    """Return whether the other end greets with an HTTP/2 SETTINGS frame (RFC 9113, section 3.4)."""
    settings = 4
    channel.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, settings, 0, 0, 0, 0, 0]))
    head = channel.recv(9, socket.MSG_WAITALL)
    return len(head) == 9 and head[3] == settings
