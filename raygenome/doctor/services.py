"""The Ray heads and dashboards that listen on this machine.

Every user can see command lines and open ports; only the owner of a process can see which port is
its own, and its environment. Nothing is sent to any port.
"""

import contextlib
import re
from pathlib import Path
from typing import Literal, NamedTuple

import psutil

_PORT_OPTION = re.compile(r"--(?:gcs_server_port|port)=(\d+)")


class Service(NamedTuple):
    """A process of Ray that listens.

    Attributes:
        program: a cluster's head (Ray's GCS), or its dashboard.
        host: the address that it listens on; 0.0.0.0 or :: for all.
        port: the port that it listens on.
        token_mode: whether it was started to require a token; None if that cannot be read.
    """

    program: Literal["head", "dashboard"]
    host: str
    port: int
    token_mode: bool | None


class _Listener(NamedTuple):
    host: str
    port: int
    pid: int | None


def ray_services() -> list[Service] | None:
    """Return the services of Ray on this machine; None if the system does not show open ports."""
    try:
        listening = _listening()
    except (psutil.Error, OSError):
        return None
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        program = _program(words)
        if program is not None:
            mode = _token_mode(process)
            own = _own_listeners(process.pid, words, listening)
            found += [Service(program, each.host, each.port, mode) for each in own]
    return list(dict.fromkeys(found))


def addresses_of(port: int) -> list[str]:
    """Return the addresses of this machine at which something listens on a port."""
    with contextlib.suppress(psutil.Error, OSError):
        return [each.host for each in _listening() if each.port == port]
    return []


def _listening() -> list[_Listener]:
    found = psutil.net_connections("tcp")
    return [
        _Listener(each.laddr.ip, each.laddr.port, each.pid)
        for each in found
        if each.status == psutil.CONN_LISTEN
    ]


def _program(words: list[str]) -> Literal["head", "dashboard"] | None:
    if words and Path(words[0]).name == "gcs_server":
        return "head"
    if any(word.endswith("ray/dashboard/dashboard.py") for word in words[:4]):
        return "dashboard"
    return None


def _token_mode(process: psutil.Process) -> bool | None:
    """Return whether a process runs with RAY_AUTH_MODE=token; None for another user's process."""
    variables: dict[str, str] = {}
    with contextlib.suppress(psutil.Error, OSError):
        variables = process.environ()
    return variables.get("RAY_AUTH_MODE", "").lower() == "token" if variables else None


def _own_listeners(pid: int, words: list[str], listening: list[_Listener]) -> list[_Listener]:
    """Return where a process listens.

    A head also listens on a random port for metrics. If the command line names the port of the
    head, only this one counts.
    """
    named = {int(match[1]) for word in words if (match := _PORT_OPTION.fullmatch(word))} - {0}
    if named:
        return [each for each in listening if each.port in named]
    return [each for each in listening if each.pid == pid]
