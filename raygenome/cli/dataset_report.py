"""The text of `raygenome data show`: the facts of a dataset as tables."""

from collections.abc import Sequence
from statistics import median
from typing import Any

from raygenome.cli.tables import make_table, terminal_width
from raygenome.genome.intervals import OPEN_END, Interval

#: Number of targets with few positives that are listed; `--json` has every target.
_FEWEST = 10
#: Number of source files that are listed.
_SOURCES = 6


def render(facts: dict[str, Any]) -> str:
    """Return the result of `datasets.show.describe` as text."""
    splits = {name: split for name, split in facts["splits"].items() if split["rows"]}
    rows = [
        (
            name,
            s["rows"],
            s["negatives"],
            s["with_n"],
            "known" if s["coordinates"] else "not known",
        )
        for name, s in splits.items()
    ]
    parts = [
        _header(facts),
        _table(["split", "rows", "negatives", "with N", "coordinates"], rows),
        f"leakage    {_leakage(facts['leakage'])}",
        "positives per target, by category (least / median / most)\n"
        + _by_category(facts["targets"], list(splits)),
        "targets with the fewest positives\n" + _fewest(facts["targets"], list(splits)),
    ]
    return "\n\n".join(parts)


def _table(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    formats = dict.fromkeys(names, ",d")
    return make_table(names, rows, width=terminal_width(), formats=formats).text


def _header(facts: dict[str, Any]) -> str:
    lines = [
        f"dataset    {facts['path']}",
        f"recipe     {facts['recipe']}, {len(facts['targets']):,} targets, "
        f"windows of {facts['window']:,} bp",
        f"digest     {facts['digest']}",
    ]
    sources = [str(source["path"]) for source in facts["sources"]]
    more = [f"and {len(sources) - _SOURCES:,} more"] if len(sources) > _SOURCES else []
    lines += _labelled("made from", sources[:_SOURCES] + more)
    lines += _labelled("options", _flat(facts["options"]))
    lines += _labelled("counts", _flat(facts["counts"]))
    return "\n".join(lines)


def _labelled(label: str, values: Sequence[str]) -> list[str]:
    """Return one line per value, the label in front of the first."""
    return [f"{'' if i else label:<10} {value}" for i, value in enumerate(values)]


def _flat(values: dict[str, Any], prefix: str = "") -> list[str]:
    """Return "key value" for every value of nested dicts, "outer inner value" where nested."""
    lines: list[str] = []
    for key, value in values.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, dict):
            lines += _flat(value, f"{name} ")
        else:
            lines.append(f"{name} {_text(value)}")
    return lines


def _text(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return ", ".join(_region(v) if isinstance(v, list) else str(v) for v in value) or "none"
    return str(value)


def _region(value: Sequence[Any]) -> str:
    """Return (contig, start, end or None), 0-based half-open, or (contig,), as text, 1-based."""
    contig, start, end = value if len(value) > 1 else (*value, 0, None)
    return str(Interval(contig, start, OPEN_END if end is None else end))


def _leakage(found: dict[str, int | None]) -> str:
    """Return one line: the overlaps, and the pairs of splits that cannot be compared."""
    if not found:
        return "none: there is one split"
    lines = [f"{count:,} windows of {pair}" for pair, count in found.items() if count]
    if not lines and any(count is not None for count in found.values()):
        known = sorted({tuple(sorted(p.split(" in "))) for p, n in found.items() if n is not None})
        lines = [f"no window of {' and '.join(pair)} overlaps" for pair in known]
    unknown = {
        " and ".join(sorted(pair.split(" in "))) for pair, count in found.items() if count is None
    }
    if unknown:
        lines.append(f"not known between {', '.join(sorted(unknown))}: coordinates are missing")
    return "; ".join(lines)


def _by_category(targets: Sequence[dict[str, Any]], splits: Sequence[str]) -> str:
    categories: dict[str, list[dict[str, Any]]] = {}
    for target in targets:
        categories.setdefault(target["category"] or "none", []).append(target["positives"])
    rows: list[list[Any]] = []
    for category, members in categories.items():
        spread = [sorted(positives[split] for positives in members) for split in splits]
        cells = [f"{s[0]:,} / {median(s):,.10g} / {s[-1]:,}" for s in spread]
        rows.append([category, len(members), *cells])
    return _table(["category", "targets", *splits], rows)


def _fewest(targets: Sequence[dict[str, Any]], splits: Sequence[str]) -> str:
    """Return a table of the targets with the fewest positives in any split."""

    def least(target: dict[str, Any]) -> tuple[int, int]:
        return min((target["positives"][split] for split in splits), default=0), target["target"]

    rows = [
        [
            target["name"],
            target["category"] or "none",
            *(target["positives"][split] for split in splits),
        ]
        for target in sorted(targets, key=least)[:_FEWEST]
    ]
    return _table(["target", "category", *splits], rows)
