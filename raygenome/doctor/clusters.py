"""Whether the Ray clusters on this machine, and the one to be used, require a token."""

import os
import socket
import stat
from collections.abc import Callable
from urllib.parse import urlsplit

from raygenome.cluster import auth
from raygenome.cluster.address import DASHBOARD, find_dashboard
from raygenome.doctor import services
from raygenome.doctor.finding import Finding, failed
from raygenome.doctor.services import Service
from raygenome.errors import UsageError

_TIMEOUT_S = 3.0

_RESTART = "restart it with RAY_AUTH_MODE=token and a token (ray get-auth-token --generate)"


def check_token() -> list[Finding]:
    """Return whether there is a token, and whether other users can read its file.

    The token itself is not reported.
    """
    findings = [_token()]
    file = auth.token_file()
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


def check_clusters(
    address: str | None,
    *,
    list_services: Callable[[], list[Service] | None] = services.ray_services,
    default: str = DASHBOARD,
) -> list[Finding]:
    """Return whether clusters require a token: those of this machine, and the one to be used.

    Args:
        address: as typed: URL of a dashboard, or HOST:PORT of one or of a head; None takes it from
            RAY_API_SERVER_ADDRESS and RAY_ADDRESS.
        list_services: returns the services of Ray on this machine, None if it cannot see them.
        default: URL of a dashboard that is tried too.
    """
    findings = []
    wanted = None
    try:
        wanted = find_dashboard(address)
    except UsageError as error:
        findings.append(failed("clusters", error, ""))
    found = list_services()
    here = {_url(service): service for service in found or [] if service.program == "dashboard"}
    for url in dict.fromkeys([*here, default, *([wanted] if wanted else [])]):
        finding = _dashboard(url, here.get(url), wanted=url == wanted)
        if finding is not None:
            findings.append(finding)
    if found is None:
        findings.append(
            Finding("clusters here", "skipped", "this system does not show which ports are open")
        )
    findings += [_head(service) for service in found or [] if service.program == "head"]
    return findings or [Finding("clusters", "ok", "no Ray cluster answers on this machine")]


def _token() -> Finding:
    if auth.has_token():
        return Finding("token", "ok", "RAY_AUTH_MODE=token, and a token is set")
    mode = os.environ.get("RAY_AUTH_MODE", "")
    if mode.lower() == "token":
        return Finding(
            "token",
            "problem",
            "RAY_AUTH_MODE=token, but there is no token",
            "set RAY_AUTH_TOKEN_PATH, or create a token with `ray get-auth-token --generate`",
        )
    if mode:
        return Finding(
            "token",
            "problem",
            f"RAY_AUTH_MODE={mode}: anyone who can reach a cluster that is started here can use it",
            "unset it, or set RAY_AUTH_MODE=token",
        )
    do = f"to use or start a cluster on a network, {auth.SET_TOKEN}"
    return Finding("token", "note", "none is set here", do)


def _url(service: Service) -> str:
    """Return the URL at which a dashboard of this machine is asked."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(service.host, service.host)
    return f"http://[{host}]:{service.port}" if ":" in host else f"http://{host}:{service.port}"


def _dashboard(url: str, service: Service | None, *, wanted: bool) -> Finding | None:
    """Return the finding on a dashboard; None if it does not answer and was not asked for."""
    check = f"dashboard {url}"
    try:
        requires_token = auth.requires_token(url, _TIMEOUT_S)
    except ValueError:
        requires_token = None
    if requires_token:
        return _protected(check, url, wanted=wanted)
    if requires_token is None:
        return _no_dashboard(check, url) if wanted else None
    listens = service.host if service else _listens_at(url)
    if auth.is_loopback(listens):
        return Finding(
            check,
            "note",
            "requires no token; it listens on this machine only",
            f"every user of this machine can run programs with it: {_RESTART}",
        )
    return Finding(
        check,
        "problem",
        f"requires no token and listens on {listens}: anyone who can reach it can run programs "
        "(CVE-2023-48022)",
        _RESTART,
    )


def _protected(check: str, url: str, *, wanted: bool) -> Finding:
    """Return the finding on a dashboard that requires a token.

    The token is sent only to the cluster to be used: another one may belong to somebody else.
    """
    if not wanted:
        return Finding(check, "ok", "requires a token")
    if not auth.has_token():
        return Finding(check, "problem", "requires a token, but none is set here", auth.SET_TOKEN)
    try:
        refuses = auth.refuses(url, _TIMEOUT_S, sent=auth.token())
    except ValueError:  # its text contains the token
        refuses = True
    except (OSError, auth.NotRay):
        return _no_dashboard(check, url)
    if refuses:
        return Finding(check, "problem", "refuses the token that is set here", auth.SET_TOKEN)
    return Finding(check, "ok", "requires a token, and accepts the one that is set here")


def _no_dashboard(check: str, url: str) -> Finding:
    """Return the finding on an address to be used where no dashboard answers."""
    do = "give the URL of the cluster's dashboard in --address (http://HOST:8265 by default)"
    try:
        parts = urlsplit(url)
        socket.create_connection((parts.hostname or "", parts.port or 80), _TIMEOUT_S).close()
    except (OSError, ValueError):
        return Finding(check, "problem", "nothing answers; is the cluster running?", do)
    return Finding(check, "note", "what answers is not a Ray dashboard: a head's own port?", do)


def _listens_at(url: str) -> str:
    """Return the address on which a dashboard listens; on this machine it may be all addresses."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if not auth.is_loopback(host):
        return host
    others = [at for at in services.addresses_of(parts.port or 80) if not auth.is_loopback(at)]
    return others[0] if others else host


def _head(service: Service) -> Finding:
    """Return the finding on a head of this machine, from its settings; it speaks no HTTP."""
    host = f"[{service.host}]" if ":" in service.host else service.host
    check = f"head {host}:{service.port}"
    if service.token_mode:
        return Finding(check, "ok", "requires a token")
    if auth.is_loopback(service.host):
        return Finding(check, "note", "listens on this machine only, without a token")
    if service.token_mode is None:
        return Finding(
            check,
            "note",
            "belongs to another user; whether it requires a token cannot be seen",
            "ask its owner, or run raygenome doctor as that user",
        )
    return Finding(
        check,
        "problem",
        "requires no token and listens on the network: anyone who can reach it can run programs "
        "(CVE-2023-48022)",
        _RESTART,
    )
