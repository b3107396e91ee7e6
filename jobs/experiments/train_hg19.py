"""Train a small Basset net on real peaks and test it on sequence that it has not seen.

    python jobs/experiments/train_hg19.py --data-home DIR/hg19 --out OUT --targets dnase
    python jobs/experiments/train_hg19.py --data-home DIR/hg19 --out OUT --targets wide \
        --negatives 5000

Basset's recipe (600 bases, peaks merged) on 11 Mb of hg19, with negatives (windows outside every
peak) added.

    test    chr20:9,995,001-11,095,000 and chr20:42,220,611-42,542,245: 1.42 Mb, 13 %
    valid   chr22:20,609,432-22,000,000: 1.39 Mb, 13 %; 100 kb of N separate it from the rest
    train   the rest: 8.1 Mb of chr1, chr17, chr20, chr21 and chr22

`dnase` is the 4 DNase-seq sets, Basset's own source files. `wide` is every set (DNase included)
with at least 100 peaks in train and 10 in test, except two kinds. FactorNet's sets leave out whole
chromosomes, which would wrongly become negatives. Histone marks with domains of kilobases are left
out because the 600 bases in the middle say little, and little is left outside for negatives. That
leaves 103 targets. Negatives lie outside every peak of the chosen sets, so `wide` has other
negatives than `dnase`: there is room for 5,240 and for 16,029 windows.

The net is tested against three kinds of negatives (see `raygenome evaluate --help`), and compared
with GC content and k-mer logistic regression on the same rows. OUT holds the filtered table of
peaks, the dataset, the run, one evaluation per kind of negatives, and the rows of the printed table
as results.json and results.parquet. The same command again continues; --fresh starts again.
"""

import argparse
import csv
import gzip
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import pyarrow as pa
import pyarrow.parquet as pq
from experiments import kmer_baseline

from raygenome.cli.dataset_report import render
from raygenome.cli.progress import make_progress
from raygenome.datasets.build import build
from raygenome.datasets.packed import Dataset
from raygenome.datasets.show import describe
from raygenome.evaluation.evaluate import AMONG, evaluate

ROOT = Path(__file__).parents[2]

#: 0-based half-open.
TEST = [("chr20", 9_995_000, 11_095_000), ("chr20", 42_220_610, 42_542_245)]
VALID = [("chr22", 20_609_431, 22_000_000)]

MIN_TRAIN, MIN_TEST = 100, 10
DOMAIN_MARKS = ("H3K27me3", "H3K9me3", "H3K36me3", "H3K79me2", "H4K20me1")
#: Windows outside every peak unless --negatives is given.
NEGATIVES = {"dnase": 15_000, "wide": 5_000}
_METHODS = ("gc", "kmer", "net")


def region(contig: str, start: int, end: int) -> str:
    """Return a 0-based half-open interval as a 1-based region string."""
    return f"{contig}:{start + 1:,}-{end:,}"


def select(data_home: Path, targets: str) -> list[dict[str, str]]:
    """Return the rows of the table of peaks for "dnase" or "wide", with absolute paths."""
    with (data_home / "peaks.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, dialect="excel-tab"))
    for row in rows:
        row["path"] = str((data_home / row["path"]).resolve())
    if targets == "dnase":
        return [row for row in rows if row["assay"] == "DNase-seq"]
    return [
        row
        for row in rows
        if "FactorNet" not in row["source_repo"]
        and row["assay"] not in DOMAIN_MARKS
        and _enough(Path(row["path"]))
    ]


def _enough(path: Path) -> bool:
    """Return whether a peak file has enough peaks, by their middles, in train and in test."""
    train = test = 0
    with gzip.open(path, "rt") as file:
        for line in file:
            contig, start, end = line.split("\t")[:3]
            middle = (int(start) + int(end)) // 2
            in_test, in_valid = (
                any(contig == name and low <= middle < high for name, low, high in regions)
                for regions in (TEST, VALID)
            )
            test += in_test
            train += not (in_test or in_valid)
    return train >= MIN_TRAIN and test >= MIN_TEST


def write_table(rows: Sequence[dict[str, str]], path: Path) -> Path:
    """Write a table of peaks."""
    with path.open("w", encoding="utf-8", newline="") as file:
        columns = ("target", "path", "cell", "assay")
        writer = csv.DictWriter(
            file, columns, dialect="excel-tab", lineterminator="\n", extrasaction="ignore"
        )
        writer.writeheader()
        writer.writerows(rows)
    return path


def compare(dataset: Dataset, model: Path, out: Path, *, k: int, device: str) -> list[dict]:
    """Return one row per kind of negatives and target: GC, k-mers and the net on the test split.

    The keys are those of `kmer_baseline.baseline`, plus net_auroc and net_auprc.
    """
    rows: list[dict[str, Any]] = kmer_baseline.baseline(
        dataset, split="test", k=k, among=AMONG, progress=make_progress()
    )
    by_key = {(row["among"], row["target"]): row for row in rows}
    for among in AMONG:
        found = evaluate(
            model=model,
            data=dataset.place,
            split="test",
            out=out / f"evaluation-{among}.parquet",
            among=among,
            device=device,
            overwrite=True,
        )
        for measured in found.table.to_pylist():
            by_key[among, measured["target"]] |= {
                "net_auroc": measured["auroc"],
                "net_auprc": measured["auprc"],
            }
    return rows


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-home", type=Path, required=True, help="folder with peaks.tsv")
    parser.add_argument("--out", type=Path, required=True, help="output folder")
    parser.add_argument("--targets", choices=("dnase", "wide"), default="dnase")
    parser.add_argument("--config", type=Path, default=ROOT / "configs/basset-small.yaml")
    parser.add_argument("--workers", type=int, default=0, help="0 trains in this process")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--negatives", type=int, help="windows outside every peak")
    parser.add_argument("--k", type=int, default=6, help="longest k-mer of the baseline")
    parser.add_argument(
        "--fresh", action="store_true", help="remove earlier results and start again"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Build the dataset, train, evaluate, and print the table."""
    from raygenome.training.run import train

    chosen = parse(arguments)
    out: Path = chosen.out
    out.mkdir(parents=True, exist_ok=True)
    negatives = NEGATIVES[chosen.targets] if chosen.negatives is None else chosen.negatives
    began = time.perf_counter()
    table = write_table(select(chosen.data_home, chosen.targets), out / "peaks.tsv")
    dataset = build(
        "basset",
        fasta=chosen.data_home / "genome" / "hg19_mini.fa.gz",
        peaks=table,
        out=out / "dataset",
        valid=[region(*place) for place in VALID],
        test=[region(*place) for place in TEST],
        negatives=negatives,
        resume=not chosen.fresh,
        overwrite=chosen.fresh,
        progress=make_progress(),
    )
    print(render(describe(dataset)))
    built = time.perf_counter()
    run = out / "run"
    train(
        chosen.config,
        data=dataset.place,
        out=run,
        workers=chosen.workers,
        device=chosen.device,
        resume=run.exists() and not chosen.fresh,
        fresh=chosen.fresh,
        progress=make_progress(),
    )
    trained = time.perf_counter()
    rows = compare(dataset, run / "model", out, k=chosen.k, device=chosen.device)
    (out / "results.json").write_text(json.dumps(rows, indent=1) + "\n")
    pq.write_table(pa.Table.from_pylist(rows), out / "results.parquet", compression="zstd")
    print(kmer_baseline.table(rows, _METHODS))
    print(
        f"\nbuilt in {built - began:.0f} s, trained in {trained - built:.0f} s, "
        f"measured in {time.perf_counter() - trained:.0f} s; rows in {out / 'results.json'}",
        file=sys.stderr,
    )


if __name__ == "__main__":
    main()
