"""Whether a token protects a Ray cluster, and which token this environment has.

Anyone who can reach a head without token authentication can run any program on it; Ray is made
that way (CVE-2023-48022). On the loopback interface, only users of this machine can reach it.
"""

import ipaddress
import os
import urllib.error
import urllib.request
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO

from raygenome.errors import UsageError

#: How to get the token of a cluster; part of every message that asks for one.
SET_TOKEN = (
    "set RAY_AUTH_MODE=token, and set RAY_AUTH_TOKEN to what `ray get-auth-token` prints on the "
    "cluster's head"
)


class NotRay(Exception):  # noqa: N818 - a finding, which the caller puts into words
    """Something else than the dashboard of a Ray head answers; the text says how."""


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


def token_file() -> Path:
    """Return the file in which Ray looks for the token; it may not exist."""
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    return Path(named) if named else Path.home() / ".ray" / "auth_token"


def token() -> str | None:
    """Return the token that Ray would send to a cluster; None if this environment has none."""
    if os.environ.get("RAY_AUTH_MODE", "").lower() != "token":
        return None
    if given := os.environ.get("RAY_AUTH_TOKEN"):
        return given
    try:
        return token_file().read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def has_token() -> bool:
    """Return whether this environment has a token that Ray would send to a cluster."""
    return token() is not None


def refuses(url: str, timeout_s: float = 5.0, *, sent: str | None = None) -> bool:
    """Return whether the dashboard at `url` refuses a request with the token `sent`, or with none.

    Raises:
        OSError: nothing answers within `timeout_s`, or its certificate is not trusted.
        NotRay: the server is not the dashboard of a Ray head.
        ValueError: such a token cannot be part of a request.
    """
    opener = urllib.request.build_opener(_NoRedirects)
    request = urllib.request.Request(f"{url.rstrip('/')}/api/jobs/")
    if sent is not None:
        request.add_header("Authorization", f"Bearer {sent}")
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
    except HTTPException as error:  # also if the other end closes the connection at once
        raise NotRay("no HTTP") from error


def requires_token(url: str, timeout_s: float = 5.0) -> bool | None:
    """Return whether a dashboard refuses requests without a token; None if no Ray answers."""
    try:
        return refuses(url, timeout_s)
    except (OSError, NotRay):
        return None


def require_protected(host: str, *, insecure: bool) -> None:
    """Refuse a cluster on the network if this environment has no token for it.

    Args:
        host: name or address of the cluster's head.
        insecure: the user has typed --insecure.

    Raises:
        UsageError: it is not this machine, there is no token, and `insecure` is false.
    """
    if insecure or is_loopback(host) or has_token():
        return
    raise UsageError(
        f"the Ray cluster at {host} is on the network and no token is set for it here: anyone who "
        "can reach a head without a token can run programs on it",
        f"start it with RAY_AUTH_MODE=token, and here {SET_TOKEN}; or type --insecure",
    )


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: a login page elsewhere would look like an open dashboard."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> None:
        """Return None; urllib then raises HTTPError."""
