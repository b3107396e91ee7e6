"""Functions that make small inputs: genomes without repeats, VCFs, model directories."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

BASES = "ACGT"


def random_bases(rng: np.random.Generator, length: int) -> str:
    return "".join(rng.choice(list(BASES), length))


def random_genome(seed: int = 0, **lengths: int) -> dict[str, str]:
    rng = np.random.default_rng(seed)
    return {name: random_bases(rng, length) for name, length in lengths.items()}


def write_fasta(path: Path, genome: dict[str, str], width: int = 60) -> Path:
    with path.open("w") as handle:
        for name, bases in genome.items():
            handle.write(f">{name}\n")
            for begin in range(0, len(bases), width):
                handle.write(bases[begin : begin + width] + "\n")
    return path


def write_vcf(
    path: Path, records: Iterable[tuple[str, int | str, str, str, str]], *, header: str = ""
) -> Path:
    """Write records (chrom, pos from 1, id, ref, alt) as a VCF without other fields."""
    lines = "".join(
        f"{chrom}\t{pos}\t{name}\t{ref}\t{alt}\t.\tPASS\t.\n"
        for chrom, pos, name, ref, alt in records
    )
    path.write_text(
        f"##fileformat=VCFv4.3\n{header}#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n{lines}"
    )
    return path


def random_records(
    genome: dict[str, str], n: int, seed: int = 1, *, longest: int = 12
) -> list[tuple[str, int, str, str, str]]:
    """Return sorted records whose REF fits the genome: SNVs, MNVs, indels, multi-allelic ones."""
    rng = np.random.default_rng(seed)
    records = []
    for name, bases in genome.items():
        for start in np.sort(rng.integers(0, len(bases), n // len(genome))).tolist():
            ref_length = 1 if rng.random() < 0.8 else int(rng.integers(1, longest))
            ref = bases[start : start + ref_length]
            alts = {
                random_bases(rng, 1 if rng.random() < 0.7 else int(rng.integers(1, longest)))
                for _ in range(2 if rng.random() < 0.2 else 1)
            }
            alts.discard(ref.upper())
            if alts and set(ref.upper()) <= set(BASES):
                alt = ",".join(sorted(alts, key=lambda a: (a[::-1], a)))
                records.append((name, start + 1, f"id{len(records)}", ref, alt))
    return records


#: A tiny net. Tests score with it unless the net itself is the subject.
STUB = {
    "window": 40,
    "targets": 5,
    "channels": [4, 4],
    "kernels": [5, 3],
    "pools": [3, 2],
    "hidden": [6],
}


def write_model(
    directory: Path, seed: int = 0, architecture: str = "basset", **config: object
) -> Path:
    """Write a model directory of random weights; a tiny Basset by default."""
    from raygenome.registry.registry import init_model

    init_model(directory.name, architecture, seed, config=config or STUB, directory=directory)
    return directory


def load_model(name_or_dir: str | Path) -> tuple[Any, Any]:
    """Return a model's net, with its weights, and its spec."""
    from raygenome.registry.model import Model

    model = Model.open(name_or_dir)
    return model.net(), model.spec
