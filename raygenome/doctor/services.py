"""The Ray heads and dashboards that listen on this machine, as Linux's /proc tells of them.

Command lines and open ports are everybody's to see; which port is a process's own, and its
environment, only its owner's. Nothing is sent to any port.
"""

import contextlib
import ipaddress
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

_LISTEN = "0A"
_PORT_OPTION = re.compile(r"--(?:gcs_server_port|port)=(\d+)")
_SOCKET = re.compile(r"socket:\[(\d+)\]")


class Service(NamedTuple):
    """What listens.

    Attributes:
        program: a cluster's head (Ray's GCS), or its dashboard.
        host: address that it listens on; 0.0.0.0 or :: for all.
        port: on which.
        token_mode: whether it was started to ask for a token; None where that cannot be read.
    """

    program: Literal["head", "dashboard"]
    host: str
    port: int
    token_mode: bool | None


def ray_services(proc: Path = Path("/proc")) -> list[Service] | None:
    """Return what of Ray listens on this machine; None where there is no /proc to tell."""
    if not (proc / "net" / "tcp").exists():
        return None
    listening = dict(_listening(proc))
    found = []
    for folder in sorted(proc.iterdir()):
        if not folder.name.isdigit():
            continue
        words = _words(folder / "cmdline")
        program = _program(words)
        if program is None:
            continue
        mode = _token_mode(folder)
        for host, port in _ports(folder, words, listening):
            found.append(Service(program, host, port, mode))
    return list(dict.fromkeys(found))


def addresses_of(port: int, proc: Path = Path("/proc")) -> list[str]:
    """Return the addresses of this machine at which something listens on a port."""
    return [host for _, (host, number) in _listening(proc) if number == port]


def _listening(proc: Path) -> Iterator[tuple[int, tuple[str, int]]]:
    """Yield (inode, (address, port)) of each TCP socket that listens."""
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in (proc / "net" / name).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTEN:
                    address, _, port = fields[1].partition(":")
                    yield int(fields[9]), (_address(address), int(port, 16))


def _address(text: str) -> str:
    """Return an address of /proc/net/tcp as it is written: words of 4 bytes, the least first."""
    raw = bytes.fromhex(text)
    swapped = b"".join(raw[at : at + 4][::-1] for at in range(0, len(raw), 4))
    return str(ipaddress.ip_address(swapped))


def _words(file: Path) -> list[str]:
    """Return what is in a list of /proc that NULs part; nothing where it may not be read."""
    with contextlib.suppress(OSError):
        return file.read_bytes().decode("utf-8", "replace").split("\0")
    return []


def _program(words: list[str]) -> Literal["head", "dashboard"] | None:
    if words and Path(words[0]).name == "gcs_server":
        return "head"
    if any(word.endswith("ray/dashboard/dashboard.py") for word in words[:4]):
        return "dashboard"
    return None


def _token_mode(folder: Path) -> bool | None:
    """Return whether a process runs with RAY_AUTH_MODE=token; None where it is another user's."""
    variables = _words(folder / "environ")
    if not any(variables):
        return None
    return any(word.lower() == "ray_auth_mode=token" for word in variables)


def _ports(
    folder: Path, words: list[str], listening: dict[int, tuple[str, int]]
) -> list[tuple[str, int]]:
    """Return where a process listens.

    A head also listens for metrics, on a port of its own choice; where its command line names the
    port that matters, the others are left out.
    """
    named = {int(match[1]) for word in words if (match := _PORT_OPTION.fullmatch(word))} - {0}
    if named:
        return [place for place in listening.values() if place[1] in named]
    inodes = set()
    with contextlib.suppress(OSError):
        for link in (folder / "fd").iterdir():
            with contextlib.suppress(OSError):
                if match := _SOCKET.fullmatch(str(link.readlink())):
                    inodes.add(int(match[1]))
    return [place for inode, place in listening.items() if inode in inodes]
