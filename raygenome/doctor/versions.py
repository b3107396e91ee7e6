"""Versions of what is installed, against those with a known hole that a run would expose."""

import importlib
import platform
import re
import sys
from importlib import metadata
from typing import NamedTuple

import raygenome
from raygenome.doctor.finding import Finding


class Floor(NamedTuple):
    """The first version of a package without a hole.

    Attributes:
        package: its name.
        version: that version.
        holes: what older ones have, by CVE.
        mend: how to get a newer one.
    """

    package: str
    version: str
    holes: str
    mend: str


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
        "CVE-2025-62593 and CVE-2026-27482: a web page or anybody nearby can use a cluster",
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


def check_versions() -> list[Finding]:
    """Return the versions of raygenome, Python and the packages that have a floor."""
    return [
        Finding("raygenome", "ok", raygenome.__version__),
        _python(),
        *(_judge(floor, installed(floor.package)) for floor in FLOORS),
    ]


def installed(package: str) -> str | None:
    """Return the version of a package, None where it is not installed; torch is not imported."""
    try:
        if package == "htslib":  # comes inside pysam
            return str(importlib.import_module("pysam.version").__htslib_version__)
        return metadata.version(package)
    except (ImportError, AttributeError):  # metadata's PackageNotFoundError is an ImportError
        return None


def release(version: str) -> tuple[int, ...]:
    """Return the numbers that a version begins with: 2.13.0+cpu is (2, 13, 0)."""
    numbers = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, numbers[0].split("."))) if numbers else ()


def _python() -> Finding:
    found = platform.python_version()
    if sys.version_info[:2] >= _PYTHON:
        return Finding("Python", "ok", found)
    return Finding("Python", "problem", found, "3.11 or newer is needed")


def _judge(floor: Floor, version: str | None) -> Finding:
    if version is None:
        return Finding(floor.package, "problem", "not installed", f"it is needed: {floor.mend}")
    if _older(release(version), release(floor.version)):
        return Finding(
            floor.package,
            "problem",
            f"{version}, which has {floor.holes}",
            f"{floor.version} or newer is needed: {floor.mend}",
        )
    return Finding(floor.package, "ok", version)


def _older(found: tuple[int, ...], floor: tuple[int, ...]) -> bool:
    length = max(len(found), len(floor))
    return _filled(found, length) < _filled(floor, length)


def _filled(numbers: tuple[int, ...], length: int) -> tuple[int, ...]:
    return numbers + (0,) * (length - len(numbers))
