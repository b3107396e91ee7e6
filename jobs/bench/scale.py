"""`python jobs/bench scale`: how time and memory grow with shards, workers and alleles.

The driver and the scheduling are measured on real Ray actors with stub scorers. Planning and
ranking are measured on synthetic inputs of millions of alleles. Each runs in a new process, so that
its peak memory can be measured.
"""

import argparse
import contextlib
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bench.big import (
    GNOMAD,
    ROWS,
    count,
    make_summaries,
    random_tops,
    target_table,
    write_big_vcf,
)
from bench.inputs import own_process, peak_mib, print_table
from bench.pool import driver_row, efficiency_row
from raygenome.cluster.connect import connected
from raygenome.genome.alleles import Shard
from raygenome.genome.fasta import Reference
from raygenome.ranking.per_target import merge_top_effects
from raygenome.ranking.variants import rank_variants
from raygenome.results.run_dir import RunDir
from raygenome.scoring.options import ScoreOptions
from raygenome.scoring.plan import make_plan

#: DeepSEA's number of targets and window, and a run's default --top-n.
_TARGETS, _WINDOW, _TOP_N = 919, 1_000, 1_000
#: Alleles with --quick.
_QUICK = 1_000_000
#: Workers whose top effects are merged: with more workers there are more rows to merge.
_WORKERS = 64
#: Disk space per allele (input, summaries, sorting and result together), and a constant part.
_BYTES_EACH, _BYTES_FIXED = 250, 200_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "--alleles", type=count, default=10_000_000, help="alleles to plan and rank"
    )
    parser.add_argument("--quick", action="store_true", help="1 million alleles, shorter sleeps")
    parser.add_argument(
        "--shards", type=count, nargs="*", default=[5_000, 20_000], help="shards for the driver"
    )
    parser.add_argument(
        "--workers", type=count, nargs="*", default=[1, 2, 4, 8], help="numbers of workers"
    )
    parser.add_argument(
        "--seconds", type=float, default=30.0, help="seconds that each worker sleeps"
    )
    parser.add_argument("--info-bytes", type=count, default=1, help="bytes of INFO per record")


def scale_figures(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Measure, print the tables and return the figures."""
    if options.quick:
        options.alleles = min(options.alleles, _QUICK)
        options.seconds = min(options.seconds, 10.0)
    _require_space(folder, options)
    figures: dict[str, Any] = {"driver": [], "efficiency": []}
    if options.shards or options.workers:
        with connected(workers=max([2, *options.workers]), device="cpu"):
            figures["driver"] = [driver_row(shards, 2)._asdict() for shards in options.shards]
            _print_driver(figures["driver"])
            for workers in options.workers:
                figures["efficiency"].append(efficiency_row(workers, options.seconds)._asdict())
            _print_efficiency(figures["efficiency"])
    figures["stages"] = [
        measured
        for alleles in (options.alleles // 10, options.alleles)
        for measured in (
            plan_figures(folder, alleles, options.info_bytes),
            rank_figures(folder, alleles),
        )
    ]
    shards = -(-(10 * options.alleles if options.quick else GNOMAD) // ROWS)
    figures["stages"].append(tops_figures(shards))
    _print_stages(figures["stages"])
    return figures


def _require_space(folder: Path, options: argparse.Namespace) -> None:
    """Exit with a one-line message if the disk has too little space."""
    needed = options.alleles * (_BYTES_EACH + options.info_bytes) + _BYTES_FIXED
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise SystemExit(
            f"bench: {folder} has {free / 1e9:.1f} GB free and {needed / 1e9:.1f} GB are needed; "
            "set TMPDIR to a folder on a larger disk, or lower --alleles"
        )


# --------------------------------------------------------------------------------------------
# planning and ranking


def plan_figures(folder: Path, alleles: int, info_bytes: int = 1) -> dict[str, Any]:
    """Measure planning: from a bgzipped VCF to a file of the alleles to score."""
    inputs = folder / "inputs"
    inputs.mkdir()
    fasta, vcf = write_big_vcf(inputs, alleles, info_bytes)
    with own_process() as process:
        found = process.apply(_plan, (fasta, vcf, folder / "plan"))
    shutil.rmtree(inputs)
    return {"stage": "plan", "alleles": alleles, "input_bytes": found.pop("read"), **found}


def rank_figures(folder: Path, alleles: int) -> dict[str, Any]:
    """Measure the ranking of all alleles by their score."""
    shards, summaries = make_summaries(folder / "run", alleles, targets=_TARGETS)
    read = sum(path.stat().st_size for path in summaries)
    with own_process() as process:
        found = process.apply(_rank, (folder / "ranked", shards, summaries))
    shutil.rmtree(folder / "run")
    return {"stage": "rank", "alleles": alleles, "input_bytes": read, **found}


def tops_figures(shards: int) -> dict[str, Any]:
    """Measure merging the top effects of each target from `shards` shards of _WORKERS workers."""
    with own_process() as process:
        found = process.apply(_merge, (shards,))
    return {"stage": "rank targets", "alleles": shards * ROWS, **found}


def _plan(fasta: Path, vcf: Path, folder: Path) -> dict[str, Any]:
    run = RunDir(folder)
    reference = Reference.open(fasta)
    before = _bytes_read()
    with _watched(folder) as found:
        plan = make_plan(str(vcf), reference, run, ScoreOptions(), window=_WINDOW)
    found["read"] = _bytes_read() - before
    found["output_bytes"] = sum(file.stat().st_size for file in run.draft.iterdir())
    found["shards"] = len(plan.shards)
    shutil.rmtree(folder)
    return found


def _rank(folder: Path, shards: list[Shard], summaries: list[Path]) -> dict[str, Any]:
    folder.mkdir()
    out = folder / "variants.parquet"
    targets = target_table(_TARGETS)
    with _watched(folder) as found:
        rank_variants(
            shards, lambda shard: summaries[shard.index], targets, out, folder / "scratch"
        )
    found["output_bytes"] = out.stat().st_size
    shutil.rmtree(folder)
    return {**found, "shards": len(shards)}


def _merge(shards: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    made: dict[str, float] = {"bytes": 0, "seconds": 0.0}

    def files() -> Iterator[bytes]:
        for shard in range(shards):
            began = time.process_time()
            tops = random_tops(rng, shard, workers=_WORKERS, targets=_TARGETS, top_n=_TOP_N)
            made["seconds"] += time.process_time() - began
            made["bytes"] += len(tops)
            yield tops

    began = time.process_time()
    keys = merge_top_effects(files(), _TARGETS, _TOP_N)
    seconds = time.process_time() - began - made["seconds"]
    return {
        "input_bytes": made["bytes"],
        "disk_bytes": made["bytes"],
        "seconds": seconds,
        "cpu_seconds": seconds,
        "peak_mib": peak_mib(),
        "output_bytes": keys.nbytes,
        "shards": shards,
    }


@contextlib.contextmanager
def _watched(folder: Path) -> Iterator[dict[str, Any]]:
    """Record the seconds, the peak memory in MiB and the peak bytes in `folder` of the block."""
    found: dict[str, Any] = {"disk_bytes": 0}
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.1):
            found["disk_bytes"] = max(found["disk_bytes"], _size(folder))

    watcher = threading.Thread(target=look)
    watcher.start()
    began, cpu = time.perf_counter(), time.process_time()
    try:
        yield found
    finally:
        found["seconds"] = time.perf_counter() - began
        found["cpu_seconds"] = time.process_time() - cpu
        found["peak_mib"] = peak_mib()
        ended.set()
        watcher.join()
        found["disk_bytes"] = max(found["disk_bytes"], _size(folder))


def _size(folder: Path) -> int:
    """Return the bytes of the files in a folder; files may vanish during the call."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.stat().st_size if path.is_file() else 0
    return total


def _bytes_read() -> int:
    """Return the bytes that this process has read from files; 0 if the system does not count."""
    counts = Path("/proc/self/io")
    lines = counts.read_text().splitlines() if counts.exists() else []
    return next((int(line.split()[1]) for line in lines if line.startswith("rchar:")), 0)


# --------------------------------------------------------------------------------------------
# printing


def _print_driver(rows: list[dict[str, Any]]) -> None:
    print("the driver's cost per shard, on 2 actors whose scorer does nothing:")
    heads = ["shards", "wall ms", "CPU ms", "bytes", "bytes, receipts kept"]
    formats = ["{:,}", "{:.2f}", "{:.2f}", "{:,.0f}", "{:,.0f}"]
    print_table(heads, [_cells(row, formats) for row in rows])


def _print_efficiency(rows: list[dict[str, Any]]) -> None:
    print("\nworkers that sleep as long as a shard takes; seconds: from the first shard's start to")
    print("the last receipt; start s: until every worker has started a shard:")
    heads = ["workers", "shards", "seconds", "start s", "efficiency"]
    formats = ["{:,}", "{:,}", "{:.1f}", "{:.2f}", "{:.1%}"]
    print_table(heads, [_cells(row, formats) for row in rows])


def _cells(row: dict[str, Any], formats: list[str]) -> list[str]:
    return [form.format(value) for form, value in zip(formats, row.values(), strict=True)]


def _print_stages(rows: list[dict[str, Any]]) -> None:
    print(f"\nplanning and ranking, extrapolated to gnomAD's {GNOMAD:,} alleles:")
    heads = ["", "alleles", "seconds", "CPU s", "peak MiB", "read MB", "disk MB"]
    heads += ["gnomAD: hours", "read GB", "disk GB"]
    print_table(heads, map(_stage_cells, rows))
    print(
        "disk: the peak of result and temporary sort files;\n"
        f"rank targets: the top effects of {_WORKERS} workers, without making the input.\n"
        "Bottlenecks:"
    )
    for row in rows[-3:]:
        bound = "the CPU" if row["cpu_seconds"] > 0.7 * row["seconds"] else "the disk"
        print(f"  {row['stage']}: {bound}, {row['cpu_seconds'] / row['seconds']:.1f} cores busy")


def _stage_cells(row: dict[str, Any]) -> list[str]:
    times = GNOMAD / row["alleles"]
    return [
        row["stage"],
        f"{row['alleles']:,}",
        f"{row['seconds']:.1f}",
        f"{row['cpu_seconds']:.1f}",
        f"{row['peak_mib']:,.0f}",
        f"{row['input_bytes'] / 1e6:,.0f}",
        f"{row['disk_bytes'] / 1e6:,.0f}",
        f"{times * row['seconds'] / 3600:.2f}",
        f"{times * row['input_bytes'] / 1e9:,.1f}",
        f"{times * row['disk_bytes'] / 1e9:,.1f}",
    ]
