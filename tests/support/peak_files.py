"""Functions that make peak files, and tables that name them."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

#: Contig, start and end: a line of a BED file.
Peak = tuple[str, int, int]


def write_peaks(path: Path, peaks: Iterable[Peak]) -> Path:
    """Write a narrowPeak file of ten columns with a made-up signal."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "".join(f"{name}\t{start}\t{end}\t.\t0\t.\t7.5\t-1\t-1\t40\n" for name, start, end in peaks)
    )
    return path


def write_table(folder: Path, sets: Mapping[str, Iterable[Peak]], **assays: str) -> Path:
    """Write peak files and their table; an assay is "TF1" unless `assays` has it by target."""
    lines = ["target\tpath\tcell\tassay\tnote\n"]
    for target, peaks in sets.items():
        write_peaks(folder / "peaks" / f"{target}.narrowPeak", peaks)
        assay = assays.get(target, "TF1")
        lines.append(f"{target}\tpeaks/{target}.narrowPeak\tcell\t{assay}\tnone\n")
    table = folder / "peaks.tsv"
    table.write_text("".join(lines))
    return table


def random_peaks(
    rng: np.random.Generator, lengths: Mapping[str, int], count: int, *, longest: int = 900
) -> list[Peak]:
    """Return unsorted peaks, some of one base, some hanging over a contig's end."""
    names = list(lengths)
    peaks = []
    for _ in range(count):
        name = names[int(rng.integers(len(names)))]
        start = int(rng.integers(lengths[name]))
        peaks.append((name, start, start + int(rng.integers(1, longest))))
    return peaks
