"""The outputs of a model: one row per target, with a name that can be a column of a table.

DeepSEA's published labels repeat (K562 CTCF five times), so names are made here: cell_assay, or
cell_assay_treatment if there was a treatment, and _2, _3 ... at the end of repeated names.
"""

import csv
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from raygenome.errors import DataError, NoInput


class Target(NamedTuple):
    """One output of a model; `target` is its 0-based index, `treatment` is empty for none."""

    target: int
    name: str
    cell: str
    assay: str
    treatment: str
    category: str


def unique_names(labels: Sequence[tuple[str, str, str]]) -> list[str]:
    """Return a unique name for each (cell, assay, treatment), in order.

    Names differ in more than case, since SQL identifiers ignore case, and none is a fixed column.
    The first of several equal names stays as it is, the next ones get _2, _3 ...; a name that
    really ends in such a number stays too, and the count skips that number.
    """
    bare = ["_".join(part for part in label if part) or "target" for label in labels]
    natural = {name.casefold() for name in bare}
    taken = set(_reserved_names())
    names = []
    for name in bare:
        unique, copy = name, 2
        while unique.casefold() in taken or (unique != name and unique.casefold() in natural):
            unique, copy = f"{name}_{copy}", copy + 1
        taken.add(unique.casefold())
        names.append(unique)
    return names


def write_targets(path: Path, targets: Iterable[Target]) -> None:
    """Write the table that `read_targets` reads: tab-separated, UTF-8, a header line."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, dialect="excel-tab", lineterminator="\n")
        writer.writerow(Target._fields)
        writer.writerows(targets)


def read_targets(path: Path) -> list[Target]:
    """Return the targets of a table, checked: numbered from 0, with names that can be columns.

    Raises:
        NoInput: there is no such file.
        DataError: a wrong header, a row of wrong length or number, or a name that is empty,
            repeated or a fixed column.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file, dialect="excel-tab")
    except OSError as error:
        raise NoInput(f"cannot read the target table {path}: {error.strerror}") from None
    except (ValueError, csv.Error) as error:  # an empty file, bytes that are not UTF-8
        raise DataError(f"{path} is not a target table ({error})") from None
    if tuple(header) != Target._fields:
        raise DataError(
            f"{path} has the columns {' '.join(header)}; it needs {' '.join(Target._fields)}"
        )
    targets = []
    for number, row in enumerate(rows):
        if len(row) != len(Target._fields) or row[0] != str(number):
            raise DataError(
                f"{path}: row {number} is {row}; it needs target number {number} "
                f"and {len(Target._fields)} columns"
            )
        targets.append(Target(number, *row[1:]))
    check_names([target.name for target in targets], source=str(path))
    return targets


def check_names(names: Sequence[str], *, source: str) -> None:
    """Refuse names that cannot be the columns of one table; the message names `source`.

    Raises:
        DataError: a name is empty, a fixed column, or differs from another name only in case.
    """
    taken: dict[str, str] = {}
    reserved = _reserved_names()
    for name in names:
        folded = name.casefold()
        if not name or folded in reserved:
            raise DataError(f"{source}: a target cannot be called {name!r}", "rename it")
        if folded in taken:
            raise DataError(
                f"{source}: targets {taken[folded]!r} and {name!r} need names that differ "
                "in more than case",
                "rename one",
            )
        taken[folded] = name


def _reserved_names() -> Collection[str]:
    # Imported here because it brings pyarrow, for which `--help` must not wait.
    from raygenome.genome.alleles import reserved_names

    return reserved_names()
