"""The content of a packed dataset as plain JSON values."""

from typing import Any

from raygenome.datasets.packed import Dataset, leakage


def describe(dataset: Dataset) -> dict[str, Any]:
    """Return everything about a dataset except its windows, as plain JSON values.

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
