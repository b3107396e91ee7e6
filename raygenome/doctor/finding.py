"""What a check reports."""

import math
from dataclasses import dataclass
from typing import Literal

from raygenome.errors import RaygenomeError

Level = Literal["ok", "note", "problem", "skipped"]


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        check: the subject, a word or two.
        level: a "problem" makes a run fail or unsafe; a "note" is worth knowing.
        found: what there is.
        do: what was needed and what to do; "" if there is nothing to do.
    """

    check: str
    level: Level
    found: str
    do: str = ""


def failed(check: str, error: Exception, do: str) -> Finding:
    """Return an error as a problem.

    Args:
        check: the subject.
        error: the exception.
        do: advice, used if the error gives none.
    """
    if isinstance(error, RaygenomeError):
        return Finding(check, "problem", error.found, error.do or do)
    return Finding(check, "problem", str(error), do)


def size(count: float) -> str:
    """Return a number of bytes for people, such as "1.2 GB"; "no limit" for infinity."""
    if math.isinf(count):
        return "no limit"
    for unit, bytes_ in (("TB", 1e12), ("GB", 1e9)):
        if count >= bytes_:
            return f"{count / bytes_:,.1f} {unit}"
    return f"{count / 1e6:,.0f} MB"
