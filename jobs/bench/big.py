"""Makes inputs of millions of alleles in seconds: a genome with a VCF, or the input of ranking.

The input of ranking is random but realistic. No model computes it.
"""

import argparse
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pysam

from bench.inputs import BASES, MARGIN, write_fasta
from raygenome.genome.alleles import KEYS, Shard, select
from raygenome.genome.targets import Target
from raygenome.ranking import sort_keys
from raygenome.ranking.per_target import write_top_effects
from raygenome.ranking.variants import summarise, write_summary

#: Number of variants in the genomes of gnomAD v4.1. All figures are extrapolated to it.
GNOMAD = 759_302_267
#: Rows per part of a large run.
ROWS = 65_536
#: Records written to a VCF at a time.
_BLOCK = 500_000
#: Number of different INFO texts.
_INFOS = 1_000
_HEADER = b"""##fileformat=VCFv4.3
##INFO=<ID=AC,Number=A,Type=Integer,Description="Allele count">
#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO
"""


def count(text: str) -> int:
    """Return `text`, such as 10000000, 10_000_000 or 1e7, as an integer."""
    number = float(text.replace("_", ""))
    if number != int(number) or number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number of alleles")
    return int(number)


def write_big_vcf(folder: Path, alleles: int, info_bytes: int = 1) -> tuple[Path, Path]:
    """Write a random genome and a bgzipped VCF of SNVs on it, one per four bases on average.

    Args:
        folder: folder to write to.
        alleles: number of SNVs, one per record; several may be at one site.
        info_bytes: length of each record's INFO; 1 is an empty INFO (".").

    Returns:
        The paths of the FASTA and the VCF.
    """
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 4, 4 * alleles + 2 * MARGIN, dtype=np.uint8)
    fasta = write_fasta(folder / "genome.fa", codes)
    vcf = folder / "variants.vcf.gz"
    infos = _infos(rng, info_bytes)
    with pysam.BGZFile(str(vcf), "wb") as out:
        out.write(_HEADER)
        for first in range(0, alleles, _BLOCK):
            size = min(_BLOCK, alleles - first)
            start = np.sort(rng.integers(4 * first, 4 * (first + size), size)) + MARGIN
            alt = (codes[start] + rng.integers(1, 4, size, dtype=np.uint8)) % 4
            info = infos.take(pa.array(rng.integers(0, len(infos), size)))
            out.write(_records(start, codes[start], alt, info))
    return fasta, vcf


def _infos(rng: np.random.Generator, length: int) -> pa.Array:
    """Return INFO texts of `length` bytes, with fields like those of gnomAD."""
    if length == 1:
        return pa.array([".\n"])
    texts = []
    for _ in range(_INFOS):
        text = ""
        while len(text) < length:
            n = len(text)
            text += f";AC_{n}={rng.integers(10**5)};AN_{n}=152312;AF_{n}={rng.random() / 50:.6g}"
        texts.append(text[1 : length + 1] + "\n")
    return pa.array(texts)


def _records(start: np.ndarray, ref: np.ndarray, alt: np.ndarray, info: pa.Array) -> bytes:
    letters = pa.array([chr(base) for base in BASES])
    lines = pc.binary_join_element_wise(
        "chr1",
        pa.array(start + 1).cast(pa.string()),
        ".",
        letters.take(pa.array(ref)),
        letters.take(pa.array(alt)),
        ".",
        "PASS",
        info,
        "\t",
    )
    _, _, data = lines.buffers()
    return data.to_pybytes()


def target_table(targets: int) -> list[Target]:
    """Return made-up targets."""
    return [Target(i, f"Cell{i}_Factor", f"Cell{i}", "Factor", "", "TF") for i in range(targets)]


def make_summaries(folder: Path, alleles: int, *, targets: int) -> tuple[list[Shard], list[Path]]:
    """Write summaries of random alleles, ROWS per shard; return the shards and their paths."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    shards, summaries = [], []
    for index, begin in enumerate(range(0, alleles, ROWS)):
        end = min(begin + ROWS, alleles)
        shards.append(Shard(index, "chr1", "chr1", begin, end))
        keys = random_keys(rng, begin, end)
        # Scores are log-normal: most are small and a few near 1.
        diff = np.minimum(np.exp(rng.normal(-4, 1.5, end - begin)), 1).astype(np.float32)
        diff *= rng.choice(np.array([-1, 1], dtype=np.float32), len(diff))
        strongest = sort_keys.encode(diff, rng.integers(0, targets, len(diff)))
        summaries.append(folder / f"part-{index:05d}.parquet")
        write_summary(summaries[-1], summarise(keys, strongest, begin))
    return shards, summaries


def random_keys(rng: np.random.Generator, begin: int, end: int) -> pa.Table:
    """Return the key columns of rows [begin, end): four in five have an rs number, all are SNVs."""
    size = end - begin
    letters = pa.array([chr(base) for base in BASES])
    ref = rng.integers(0, 4, size)
    numbers = pa.array(rng.integers(10**6, 2 * 10**9, size)).cast(pa.string())
    named = pc.binary_join_element_wise("rs", numbers, "")
    columns = {
        "chrom": pa.array(["chr1"]).take(pa.array(np.zeros(size, dtype=np.int32))),
        "pos": pa.array((4 * begin + np.sort(rng.integers(0, 4 * size, size))).astype(np.int32)),
        "id": pc.if_else(pa.array(rng.random(size) < 0.8), named, "."),
        "ref": letters.take(pa.array(ref)),
        "alt": letters.take(pa.array((ref + rng.integers(1, 4, size)) % 4)),
        "record": pa.array(np.arange(begin, end)),
        "allele": pa.array(np.ones(size, dtype=np.int16)),
    }
    return select(KEYS, columns)


def random_tops(
    rng: np.random.Generator, shard: int, *, workers: int, targets: int, top_n: int
) -> bytes:
    """Return the top effects file of one shard, as a run with `workers` workers writes it.

    Each shard has ROWS alleles. A worker leaves out rows below the `top_n`-th best of its earlier
    shards, so later shards keep fewer rows.
    """
    left = min(-(-top_n // max(shard // workers, 1)), top_n)
    # |diff| has a Pareto distribution. The worker's threshold keeps about `left` rows of its tail.
    uniform = rng.random((targets, left), dtype=np.float32) * np.float32(left / ROWS)
    rows = shard * ROWS + rng.choice(ROWS, left, replace=False)
    keys = sort_keys.encode((1e-4 * (uniform + 1e-9) ** -0.5).astype(np.float32), rows)
    file = BytesIO()
    write_top_effects(file, keys)
    return file.getvalue()
