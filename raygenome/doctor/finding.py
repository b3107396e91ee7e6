"""What a check says."""

import math
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "note", "problem", "skipped"]


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        check: the subject, a word or two.
        level: "problem" is what makes a run fail or unsafe; "note" what is worth knowing.
        found: what there is.
        do: what was needed and what to do; "" where nothing is to be done.
    """

    check: str
    level: Level
    found: str
    do: str = ""


def failed(check: str, error: Exception, do: str) -> Finding:
    """Return an error as a problem: our own say behind the last semicolon what to do.

    Args:
        check: the subject.
        error: what was raised.
        do: what is to be done where the error does not say.
    """
    found, _, said = str(error).rpartition("; ")
    return Finding(check, "problem", found, said) if found else Finding(check, "problem", said, do)


def size(count: float) -> str:
    """Return a number of bytes as people say it; "no limit" for infinity."""
    if math.isinf(count):
        return "no limit"
    for unit, bytes_ in (("TB", 1e12), ("GB", 1e9)):
        if count >= bytes_:
            return f"{count / bytes_:,.1f} {unit}"
    return f"{count / 1e6:,.0f} MB"
