"""The content of a packed dataset as plain JSON values."""

from typing import Any

from raygenome.datasets.leakage import leakage
from raygenome.datasets.packed import Dataset


def describe(dataset: Dataset) -> dict[str, Any]:
    """Return everything about a dataset except its windows, as plain JSON values.

    Returns:
        path, recipe, window, digest, version, sources, options, counts; `splits` by name, each
        {rows, background, with_n, coordinates}; `targets`, each {target, name, cell, assay,
        treatment, category, positives by split}; `leakage`, windows of one split that overlap
        another's by "test in train", null where coordinates are not known.
    """
    manifest = dataset.manifest
    splits = {
        name: {
            "rows": entry.rows,
            "background": entry.background,
            "with_n": entry.with_n,
            "coordinates": f"{name}.sites.parquet" in entry.files,
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
        "path": str(dataset.path),
        "recipe": manifest.recipe,
        "window": dataset.window,
        "digest": dataset.digest,
        "version": manifest.version,
        "sources": manifest.sources,
        "options": manifest.options,
        "counts": manifest.counts,
        "splits": splits,
        "leakage": leakage(dataset),
        "targets": targets,
    }
