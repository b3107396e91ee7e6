"""What a packed dataset holds, as plain values and as text."""

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

from raygenome.datasets.packed import Dataset, leakage

#: The poorest targets that the text lists; `describe` has all.
_FEWEST = 10
#: Source files that the text lists.
_SOURCES = 6


def describe(dataset: Dataset) -> dict[str, Any]:
    """Return what there is to know of a dataset but its windows, as plain JSON values.

    Returns:
        path, recipe, window, digest, version, sources, options, counts; `splits` by name, each
        {rows, negatives, with_n, coordinates}; `targets`, each {target, name, cell, assay,
        treatment, category, positives by split}; `leakage`, windows of one split that overlap
        another's by "test in train", null where coordinates are not known.
    """
    manifest = dataset.manifest
    splits = {
        name: {
            "rows": entry.rows,
            "negatives": entry.negatives,
            "with_n": entry.with_n,
            "coordinates": any(file.endswith(".parquet") for file in entry.files),
        }
        for name, entry in manifest.splits.items()
    }
    positives = {name: dataset.split(name).positives().tolist() for name in splits}
    targets = [
        {
            **target._asdict(),
            "positives": {name: positives[name][target.target] for name in splits},
        }
        for target in dataset.targets
    ]
    return {
        "path": dataset.place,
        "recipe": manifest.recipe,
        "window": dataset.window_size,
        "digest": dataset.digest,
        "version": manifest.version,
        "sources": manifest.sources,
        "options": manifest.options,
        "counts": manifest.counts,
        "splits": splits,
        "leakage": leakage(dataset),
        "targets": targets,
    }


def render(facts: dict[str, Any]) -> str:
    """Return what `describe` found as text: tables for people."""
    splits = {name: split for name, split in facts["splits"].items() if split["rows"]}
    parts = [
        _header(facts),
        _table(
            ["split", "rows", "negatives", "with N", "coordinates"],
            [
                [
                    name,
                    f"{split['rows']:,}",
                    f"{split['negatives']:,}",
                    f"{split['with_n']:,}",
                    "known" if split["coordinates"] else "not known",
                ]
                for name, split in splits.items()
            ],
        ),
        f"leakage    {_leakage(facts['leakage'])}",
        "positives per target, by category (least / median / most)\n"
        + _by_category(facts["targets"], list(splits)),
        "targets with the fewest positives\n" + _fewest(facts["targets"], list(splits)),
    ]
    return "\n\n".join(parts)


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
    """Return a line a value, the label before the first."""
    return [f"{'' if i else label:<10} {value}" for i, value in enumerate(values)]


def _flat(values: dict[str, Any], prefix: str = "") -> list[str]:
    """Return "key value" for every value of nested dicts, "outer inner value" where nested."""
    lines: list[str] = []
    for key, value in values.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, dict):
            lines += _flat(value, f"{name} ")
        else:
            lines.append(f"{name} {_said(value)}")
    return lines


def _said(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return ", ".join(_region(v) if isinstance(v, list) else str(v) for v in value) or "none"
    return str(value)


def _region(value: Sequence[Any]) -> str:
    """Return (contig, start, end or None), 0-based half-open, or (contig,), as people write it."""
    contig, start, end = value if len(value) > 1 else (*value, 0, None)
    if end is None:
        return str(contig) if start == 0 else f"{contig}:{start + 1:,}-"
    return f"{contig}:{start + 1:,}-{end:,}"


def _leakage(found: dict[str, int | None]) -> str:
    """Return one line: overlaps found, and pairs of splits that cannot be compared."""
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
    rows = []
    for category, members in categories.items():
        spread = [sorted(positives[split] for positives in members) for split in splits]
        cells = [f"{s[0]:,} / {median(s):,.10g} / {s[-1]:,}" for s in spread]
        rows.append([category, f"{len(members):,}", *cells])
    return _table(["category", "targets", *splits], rows)


def _fewest(targets: Sequence[dict[str, Any]], splits: Sequence[str]) -> str:
    """Return the targets that are poorest in the split where they have least."""

    def least(target: dict[str, Any]) -> tuple[int, int]:
        return min((target["positives"][split] for split in splits), default=0), target["target"]

    rows = [
        [
            target["name"],
            target["category"] or "none",
            *(f"{target['positives'][split]:,}" for split in splits),
        ]
        for target in sorted(targets, key=least)[:_FEWEST]
    ]
    return _table(["target", "category", *splits], rows)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return aligned columns; the first is flush left, as are columns without digits."""
    lines = [list(header), *map(list, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    left = [not any(line[i][:1].isdigit() for line in lines[1:]) for i in range(len(header))]
    left[0] = True
    return "\n".join(
        "  ".join(
            f"{cell:<{width}}" if flush else f"{cell:>{width}}"
            for cell, width, flush in zip(line, widths, left, strict=True)
        ).rstrip()
        for line in lines
    )
