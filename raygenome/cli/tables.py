"""Every table that a command prints. Nothing is ever cut: no `…` in a name, number or position.

Elsewhere than on a terminal a table is as wide as it has to be. On a terminal that is too narrow
for it, in this order:

1. Columns that may wrap, such as long alleles and sentences, take several lines.
2. Columns that the caller can spare are left out.
3. A short table is turned: each record is a list of `name  value` lines.
4. A long table keeps the columns that fit, from the left.

What is left out is reported on stderr, with the option that prints it all.
"""

import json
import shutil
import sys
import textwrap
from collections.abc import Collection, Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import zip_longest
from typing import Any, NamedTuple

import typer

#: No column becomes narrower than this by wrapping.
_LEAST_WRAPPED = 12
#: A table with at most this many values is turned where it is too wide.
_TURNED_VALUES = 200
_GAP = "  "
_NUMBERS = (int, float, Decimal, type(None))


class Table(NamedTuple):
    """A table as text.

    Attributes:
        text: its lines, without a newline at the end.
        hidden: a note on the omitted columns, such as "without score", or "".
    """

    text: str
    hidden: str


def print_table(
    names: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    everything: str = "--json prints all of it",
    **options: Any,
) -> None:
    """Print a table, and on stderr a note on its omitted parts.

    Args:
        names: of the columns.
        rows: one sequence of values per line.
        everything: how a user gets the omitted parts.
        **options: further arguments of `make_table`.
    """
    table = make_table(names, rows, width=terminal_width(), **options)
    typer.echo(table.text)
    if table.hidden:
        typer.echo(f"({table.hidden}; {everything})", err=True)


def terminal_width() -> int | None:
    """Return the number of columns of the terminal; None where stdout is not a terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def make_table(
    names: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    width: int | None = None,
    formats: Mapping[str, str] | None = None,
    wrap: Collection[str] = (),
    spare: Sequence[str] = (),
    colours: Mapping[str, str] | None = None,
    header: bool = True,
) -> Table:
    """Return values in aligned columns, numbers to the right.

    Args:
        names: of the columns; a newline in one makes a header of two lines.
        rows: one sequence of values per line. None is shown as nothing, or as "-" where the column
            has a format.
        width: of the terminal; None for no limit.
        formats: how the numbers of a column are written, such as ",d"; without one, floats are
            rounded to 6 significant digits.
        wrap: columns that may take several lines.
        spare: columns that may be left out, in this order.
        colours: of the cells with these texts, where there is a terminal.
        header: whether the names are shown.
    """
    formats = formats or {}
    right = [all(isinstance(row[at], _NUMBERS) for row in rows) for at in range(len(names))]
    body = [
        [_cell(value, formats.get(name)) for name, value in zip(names, row, strict=True)]
        for row in rows
    ]
    lines = [_at_the_bottom(names), *body] if header else body
    widths = [max((_longest(line[at]) for line in lines), default=0) for at in range(len(names))]
    kept = list(range(len(names)))
    if width is not None:
        least = [
            min(wide, _LEAST_WRAPPED) if name in wrap else wide
            for name, wide in zip(names, widths, strict=True)
        ]
        for name in spare:
            if name in names and _needed(kept, least) > width:
                kept.remove(names.index(name))
        if _needed(kept, least) > width and len(rows) * len(names) <= _TURNED_VALUES:
            return Table(_turned(names, body), "")
        while len(kept) > 1 and _needed(kept, least) > width:
            kept.pop()
        widths = _share(kept, widths, least, width)
    text = "\n".join(
        line
        for row in lines
        for line in _draw(
            [row[at] for at in kept],
            [widths[at] for at in kept],
            [right[at] for at in kept],
            (colours or {}) if width is not None else {},
        )
    )
    return Table(text, _without([name for at, name in enumerate(names) if at not in kept], names))


def _at_the_bottom(names: Sequence[str]) -> list[str]:
    """Return the header, with the names of one line beside the last line of the others."""
    most = max(name.count("\n") for name in names)
    return ["\n" * (most - name.count("\n")) + name for name in names]


def _cell(value: Any, spec: str | None) -> str:
    if value is None:
        return "" if spec is None else "-"
    if isinstance(value, list | dict):
        return json.dumps(value, default=str)
    if spec is not None and not isinstance(value, str):
        return format(value, spec)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _longest(text: str) -> int:
    return max(map(len, text.split("\n")))


def _needed(kept: Sequence[int], widths: Sequence[int]) -> int:
    """Return the width of a table of the `kept` columns."""
    return sum(widths[at] for at in kept) + len(_GAP) * (len(kept) - 1)


def _share(
    kept: Sequence[int], widths: Sequence[int], least: Sequence[int], width: int
) -> list[int]:
    """Return the widths of the columns, those that may wrap as wide as there is room for."""
    shared = list(least)
    room = width - _needed(kept, least)
    for at in sorted(kept, key=lambda at: widths[at]):  # a short column needs little of it
        more = min(widths[at] - least[at], max(room, 0))
        shared[at] += more
        room -= more
    return shared


def _draw(
    cells: Sequence[str], widths: Sequence[int], right: Sequence[bool], colours: Mapping[str, str]
) -> Iterator[str]:
    """Yield the lines of one row."""
    wrapped = [_wrapped(cell, wide) for cell, wide in zip(cells, widths, strict=True)]
    for parts in zip_longest(*wrapped, fillvalue=""):
        padded = [
            _coloured(part.rjust(wide) if to_right else part.ljust(wide), colours.get(cell))
            for part, wide, to_right, cell in zip(parts, widths, right, cells, strict=True)
        ]
        yield _GAP.join(padded).rstrip()


def _wrapped(cell: str, width: int) -> list[str]:
    """Return a cell as lines that are no longer than `width`."""
    return [
        piece
        for line in cell.split("\n")
        for piece in (
            [line] if len(line) <= width else textwrap.wrap(line, width, break_on_hyphens=False)
        )
    ]


def _coloured(text: str, colour: str | None) -> str:
    return typer.style(text, fg=colour) if colour else text


def _turned(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return each record as lines of name and value, with an empty line between records."""
    labels = [name.replace("\n", " ") for name in names]
    longest = max(map(len, labels))
    return "\n\n".join(
        "\n".join(
            f"{label:<{longest}}  {cell}".rstrip() for label, cell in zip(labels, row, strict=True)
        )
        for row in rows
    )


def _without(hidden: Sequence[str], names: Sequence[str]) -> str:
    """Return which columns are left out; where they are many, how many are shown."""
    if not hidden:
        return ""
    if len(hidden) > 3:
        return f"the terminal has room for {len(names) - len(hidden)} of {len(names)} columns"
    return f"the terminal has no room for {', '.join(hidden)}"
