"""Whether a Ray process answers at an address, asked in milliseconds and without Ray.

Ray itself tries for many minutes, fills the terminal meanwhile, and may end the process at last.
"""

import os
import socket

from raygenome.errors import UsageError

#: How long the head of a cluster may take to answer a connection.
CONNECT_S = 10.0


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


def greets(address: str, timeout_s: float) -> bool:
    """Return whether what listens at HOST:PORT speaks HTTP/2, as every Ray process does.

    Behind TLS only the connection is tried.

    Raises:
        OSError: nothing listens there, or nothing came within `timeout_s`.
    """
    host, _, port = address.rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port)), timeout_s) as channel:
        if os.environ.get("RAY_USE_TLS", "0") not in ("", "0"):
            return True
        return _http2_greeting(channel)


def _http2_greeting(channel: socket.socket) -> bool:
    """Return whether the other end greets with an HTTP/2 SETTINGS frame (RFC 9113, section 3.4)."""
    settings = 4
    channel.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, settings, 0, 0, 0, 0, 0]))
    head = channel.recv(9, socket.MSG_WAITALL)
    return len(head) == 9 and head[3] == settings
