"""A small run that several test files use: its inputs, and the comparable part of its output."""

import hashlib
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from support.builders import random_genome, random_records, write_fasta, write_model, write_vcf

from raygenome.results.run_dir import read_run

CONTIGS = ("chr1", "chr2", "chrX")
GENOME = random_genome(3, chr1=5000, chr2=3000, chrX=1000)
RECORDS = random_records(GENOME, 600)


def make_inputs(folder: Path) -> dict[str, Any]:
    """Return the inputs of a small run (a VCF, a model and a genome) as arguments of `score`."""
    return {
        "vcf": write_vcf(folder / "v.vcf", RECORDS),
        "model": write_model(folder / "stub"),
        "fasta": write_fasta(folder / "genome.fa", GENOME),
    }


def contents(run: Path) -> dict[str, str]:
    """Return the digest of every file that must be the same in two equal runs."""
    return {
        str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(run.rglob("*.parquet"))
    }


def parts(run: Path) -> list[dict[str, Any]]:
    return [
        row
        for part in read_run(run)["parts"]
        for row in pq.read_table(run / part["path"]).to_pylist()
    ]
