"""Whether a Ray cluster is guarded by a token.

Whoever reaches a head that asks for no token can run any program on it, by design of Ray
(CVE-2023-48022). On the loopback interface that is only who is on the machine already.
"""

import ipaddress
import os
import urllib.error
import urllib.request
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO

from raygenome.errors import UsageError

#: How a client gets the token of a cluster, as it is told in every line that asks for one.
HOW = (
    "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN to what `ray get-auth-token` prints on the "
    "cluster's head"
)


class NotRay(Exception):  # noqa: N818 - a finding, which the caller puts in words
    """Something answers that is not the dashboard of a Ray head; the text says what it said."""


def is_loopback(host: str) -> bool:
    """Return whether `host`, a name or an address, is this machine's loopback interface."""
    host = host.strip("[]").rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def token() -> str | None:
    """Return the token that Ray would show to a cluster; None where this environment has none."""
    if os.environ.get("RAY_AUTH_MODE", "").lower() != "token":
        return None
    if given := os.environ.get("RAY_AUTH_TOKEN"):
        return given
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    file = Path(named) if named else Path.home() / ".ray" / "auth_token"
    try:
        return file.read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def has_token() -> bool:
    """Return whether this environment has a token that Ray would show to a cluster."""
    return token() is not None


def knock(url: str, timeout_s: float = 5.0, *, shown: str | None = None) -> bool:
    """Return whether the dashboard at `url` refuses a request that shows it this token, or none.

    Raises:
        OSError: nothing answers within `timeout_s`, or its certificate is not trusted.
        NotRay: what answers is not the dashboard of a Ray head.
        ValueError: no request can hold such a token.
    """
    opener = urllib.request.build_opener(_StayHere)
    request = urllib.request.Request(f"{url.rstrip('/')}/api/jobs/")
    if shown is not None:
        request.add_header("Authorization", f"Bearer {shown}")
    try:
        with opener.open(request, timeout=timeout_s) as answer:
            kind = answer.headers.get_content_type()
            if answer.status != 200 or kind != "application/json":
                raise NotRay(f"status {answer.status}, {kind}")
            return False
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in (401, 403):
            return True
        raise NotRay(f"status {error.code}") from None
    except HTTPException as error:  # also where the other end hangs up on a request of HTTP/1.1
        raise NotRay("no HTTP") from error


def asks_for_token(url: str, timeout_s: float = 5.0) -> bool | None:
    """Return whether a dashboard refuses who shows no token; None where none of Ray answers."""
    try:
        return knock(url, timeout_s)
    except (OSError, NotRay):
        return None


def require_guarded(host: str, *, insecure: bool) -> None:
    """Refuse a cluster on the network where no token is at hand to guard it.

    Args:
        host: name or address of the cluster's head.
        insecure: the user has typed --insecure.

    Raises:
        UsageError: it is not this machine, there is no token, and `insecure` is false.
    """
    if insecure or is_loopback(host) or has_token():
        return
    raise UsageError(
        f"the Ray cluster at {host} is on the network and no token is set for it here: whoever "
        "reaches a head without a token can run programs on it; start it with "
        f"RAY_AUTH_MODE=token and here {HOW}; or type --insecure"
    )


class _StayHere(urllib.request.HTTPRedirectHandler):
    """Takes a redirect for the answer: a login page elsewhere would pass for an open dashboard."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> None:
        """Follow none; urllib then raises HTTPError."""
