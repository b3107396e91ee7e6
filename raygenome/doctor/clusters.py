"""Whether the Ray clusters that this machine has, or is to use, ask for a token."""

import os
import socket
import stat
from pathlib import Path
from urllib.parse import urlsplit

from raygenome.cluster import auth
from raygenome.doctor.finding import Finding
from raygenome.doctor.services import Service, addresses_of, ray_services

#: Ray's own default of its dashboard, and of the head.
_DASHBOARD = "http://127.0.0.1:8265"
_HEAD_PORT = 6379
_ASK_S = 3.0

_START_CLOSED = "restart it with RAY_AUTH_MODE=token and a token (ray get-auth-token --generate)"


def check_token() -> list[Finding]:
    """Return whether a token is at hand, and whether its file is closed to others.

    The token itself is not looked at.
    """
    findings = [_token()]
    file = _token_file()
    try:
        mode = stat.S_IMODE(file.stat().st_mode)
    except OSError:
        return findings
    if mode & 0o077:
        return [
            *findings,
            Finding(
                "token file",
                "problem",
                f"{file} has mode {mode:04o}: others on this machine can read or replace the token",
                f"chmod 600 {file}",
            ),
        ]
    return [*findings, Finding("token file", "ok", f"{file}, mode {mode:04o}")]


def check_clusters(address: str | None) -> list[Finding]:
    """Return whether clusters ask for a token: of this machine, and the one to be used.

    Args:
        address: as typed: URL of a dashboard, or HOST:PORT of one or of a head; where None,
            RAY_API_SERVER_ADDRESS and RAY_ADDRESS say it.
    """
    findings = []
    services = ray_services()
    here = {_url(service): service for service in services or [] if service.program == "dashboard"}
    asked = _dashboard_of(address)
    for url in dict.fromkeys([*here, _DASHBOARD, *([asked] if asked else [])]):
        finding = _dashboard(url, here.get(url), wanted=url == asked)
        if finding is not None:
            findings.append(finding)
    if services is None:
        findings.append(Finding("clusters here", "skipped", "only Linux says which ports are open"))
    findings += [_head(service) for service in services or [] if service.program == "head"]
    return findings or [Finding("clusters", "ok", "no Ray cluster answers on this machine")]


def _token() -> Finding:
    if auth.has_token():
        return Finding("token", "ok", "RAY_AUTH_MODE=token, and there is one")
    mode = os.environ.get("RAY_AUTH_MODE", "")
    if mode.lower() == "token":
        return Finding(
            "token",
            "problem",
            "RAY_AUTH_MODE=token, and there is no token",
            "set RAY_AUTH_TOKEN_PATH, or make one with `ray get-auth-token --generate`",
        )
    if mode:
        return Finding(
            "token",
            "problem",
            f"RAY_AUTH_MODE={mode}: clusters started here can be used by anybody who reaches them",
            "unset it, or set RAY_AUTH_MODE=token",
        )
    return Finding(
        "token",
        "note",
        "none is set here",
        "to use or start a cluster on a network, " + auth.SET_TOKEN,
    )


def _token_file() -> Path:
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    return Path(named) if named else Path.home() / ".ray" / "auth_token"


def _dashboard_of(address: str | None) -> str | None:
    """Return the URL of the dashboard at an address; None where it says nothing of one."""
    found = (
        address or os.environ.get("RAY_API_SERVER_ADDRESS") or os.environ.get("RAY_ADDRESS") or ""
    )
    if found in ("", "auto", "local") or found.startswith("ray://"):
        return None
    url = found if "://" in found else f"http://{found}"
    try:
        parts = urlsplit(url)
        if parts.port == _HEAD_PORT:  # the head's own port speaks no HTTP; its dashboard does
            host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
            return f"http://{host}:{urlsplit(_DASHBOARD).port}"
    except ValueError:
        pass  # no port: it will not answer, and that is said
    return url.rstrip("/")


def _url(service: Service) -> str:
    """Return where a dashboard of this machine is asked."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(service.host, service.host)
    return f"http://[{host}]:{service.port}" if ":" in host else f"http://{host}:{service.port}"


def _dashboard(url: str, service: Service | None, *, wanted: bool) -> Finding | None:
    """Return what is to be said of a dashboard, None of one that nobody expected and is not."""
    check = f"dashboard {url}"
    try:
        asks = auth.requires_token(url, _ASK_S)
    except ValueError:
        asks = None
    if asks:
        return _guarded(check, url, wanted=wanted)
    if asks is None:
        return _silence(check, url) if wanted else None
    listens = service.host if service else _listens_at(url)
    if auth.is_loopback(listens):
        return Finding(
            check,
            "note",
            "asks for no token; it listens on this machine only",
            f"whoever has an account here can run programs with it: {_START_CLOSED}",
        )
    return Finding(
        check,
        "problem",
        f"asks for no token and listens on {listens}: whoever reaches it can run programs "
        "(CVE-2023-48022)",
        _START_CLOSED,
    )


def _guarded(check: str, url: str, *, wanted: bool) -> Finding:
    """Return what is to be said of a dashboard that asks for a token.

    Only the one to be used is shown the token: what listens here may be somebody else's.
    """
    if not wanted:
        return Finding(check, "ok", "asks for a token")
    if not auth.has_token():
        return Finding(check, "problem", "asks for a token, and none is set here", auth.SET_TOKEN)
    try:
        refuses = auth.refuses(url, _ASK_S, sent=auth.token())
    except ValueError:  # its text has the token
        refuses = True
    except (OSError, auth.NotRay):
        return _silence(check, url)
    if refuses:
        return Finding(check, "problem", "refuses the token that is set here", auth.SET_TOKEN)
    return Finding(check, "ok", "asks for a token, and takes the one that is set here")


def _silence(check: str, url: str) -> Finding:
    """Return what is to be said where no dashboard answers at the address to be used."""
    do = "give the URL of the cluster's dashboard in --address (http://HOST:8265 unless changed)"
    try:
        parts = urlsplit(url)
        socket.create_connection((parts.hostname or "", parts.port or 80), _ASK_S).close()
    except (OSError, ValueError):
        return Finding(check, "problem", "nothing answers; is the cluster up?", do)
    return Finding(check, "note", "what answers is no Ray dashboard: a head's own port?", do)


def _listens_at(url: str) -> str:
    """Return the address at which what answers at `url` listens: here it may be more than asked."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if not auth.is_loopback(host):
        return host
    others = [at for at in addresses_of(parts.port or 80) if not auth.is_loopback(at)]
    return others[0] if others else host


def _head(service: Service) -> Finding:
    """Return what is to be said of a head; it speaks no HTTP, so its own settings are read."""
    host = f"[{service.host}]" if ":" in service.host else service.host
    check = f"head {host}:{service.port}"
    if service.token_mode:
        return Finding(check, "ok", "asks for a token")
    if auth.is_loopback(service.host):
        return Finding(check, "note", "listens on this machine only, without a token")
    if service.token_mode is None:
        return Finding(
            check,
            "note",
            "another user's; whether it asks for a token cannot be seen",
            "ask its owner, or run this as that user",
        )
    return Finding(
        check,
        "problem",
        "asks for no token and listens beyond this machine: whoever reaches it can run programs "
        "(CVE-2023-48022)",
        _START_CLOSED,
    )
