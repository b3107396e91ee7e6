"""Versions of installed packages; versions with a known security hole are a problem."""

import importlib
import platform
import sys
from collections.abc import Callable
from importlib import metadata
from typing import NamedTuple

from packaging.version import InvalidVersion, Version

import raygenome
from raygenome.doctor.finding import Finding


class Floor(NamedTuple):
    """The first version of a package without a known security hole.

    Attributes:
        package: its name.
        version: that version.
        holes: the holes of older versions, by CVE.
        install: the command that installs a newer version.
    """

    package: str
    version: str
    holes: str
    install: str


FLOORS = (
    Floor(
        "torch",
        "2.10",
        "CVE-2025-32434 and CVE-2026-24747: loading weights can run code",
        "pip install 'torch>=2.10'",
    ),
    Floor(
        "ray",
        "2.54",
        "CVE-2025-62593 and CVE-2026-27482: a web page or anyone nearby can use a cluster",
        "pip install 'ray[default,train]>=2.54'",
    ),
    Floor(
        "htslib",
        "1.23.1",
        "CVE-2026-31970: a crafted .gzi index overflows the heap",
        "pip install 'pysam>=0.24'",
    ),
)

#: The oldest Python that raygenome runs on.
_PYTHON = (3, 11)


def installed(package: str) -> str | None:
    """Return the version of a package, None if it is not installed; torch is not imported."""
    try:
        if package == "htslib":  # part of pysam
            return str(importlib.import_module("pysam.version").__htslib_version__)
        return metadata.version(package)
    except (ImportError, AttributeError):  # metadata's PackageNotFoundError is an ImportError
        return None


def check_versions(version_of: Callable[[str], str | None] = installed) -> list[Finding]:
    """Return the versions of raygenome, Python and the packages that have a floor.

    Args:
        version_of: returns the version of a package, None if it is not installed.
    """
    return [
        Finding("raygenome", "ok", raygenome.__version__),
        _python(),
        *(_judge(floor, version_of(floor.package)) for floor in FLOORS),
    ]


def is_older(version: str, floor: str) -> bool:
    """Return whether a release is older than `floor`; False if `version` is not a version."""
    try:
        return Version(Version(version).base_version) < Version(floor)
    except InvalidVersion:
        return False


def _python() -> Finding:
    found = platform.python_version()
    if sys.version_info[:2] >= _PYTHON:
        return Finding("Python", "ok", found)
    return Finding("Python", "problem", found, "3.11 or newer is needed")


def _judge(floor: Floor, version: str | None) -> Finding:
    if version is None:
        return Finding(floor.package, "problem", "not installed", f"it is needed: {floor.install}")
    if is_older(version, floor.version):
        return Finding(
            floor.package,
            "problem",
            f"{version}, which has {floor.holes}",
            f"{floor.version} or newer is needed: {floor.install}",
        )
    return Finding(floor.package, "ok", version)
