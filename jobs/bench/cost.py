"""`python jobs/bench cost`: estimates hours, dollars and bytes to score gnomAD.

It prints Markdown tables. Each input figure is printed with its source: measured on this machine,
or given by the caller from the output of another benchmark.
"""

import argparse
import math
from collections import Counter
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq

import raygenome
from bench.big import GNOMAD, ROWS, count
from bench.engine import sample
from bench.inputs import (
    MODELS,
    make_alleles,
    make_model,
    one_core,
    seconds_of,
    use_device,
    write_inputs,
)
from bench.scale import plan_figures, rank_figures
from raygenome.engines.choice import make_engine
from raygenome.engines.incremental.planner import plan_chain

_DENSITY = "1/4"


class Figure(NamedTuple):
    """One input of the estimate: its name, value and unit, and where it comes from."""

    name: str
    value: float
    unit: str
    source: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--model", choices=list(MODELS), default="deepsea")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precision", choices=["fp32", "tf32", "bf16"], default="fp32")
    parser.add_argument("--alleles", type=count, default=GNOMAD, help="alleles to score")
    parser.add_argument(
        "--workers", type=count, nargs="+", default=[1, 8, 64], help="numbers of workers"
    )
    parser.add_argument(
        "--variants-per-second",
        type=float,
        help="rate of one worker, as printed by `engine`; default: measured here",
    )
    parser.add_argument(
        "--efficiency",
        type=float,
        default=0.95,
        help="efficiency of two or more workers, as printed by `scale`",
    )
    parser.add_argument(
        "--plan-seconds",
        type=float,
        help="seconds to plan a million alleles, as printed by `scale`; default: measured here",
    )
    parser.add_argument(
        "--rank-seconds",
        type=float,
        help="seconds to rank a million alleles, as printed by `scale`; default: measured here",
    )
    parser.add_argument("--dollars-per-hour", type=float, help="price of one worker")
    parser.add_argument(
        "--sample", type=count, default=4_096, help="alleles to score to measure file sizes"
    )
    parser.add_argument(
        "--million", type=count, default=10**6, help="alleles to plan and rank to measure seconds"
    )


def cost_figures(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Measure the rates that are not given, print the tables and return the figures."""
    use_device(options.device, options.precision)
    stored = _stored_bytes(folder, options)
    rate = _rate(options)
    stages = _stage_seconds(folder, options)
    figures = [rate, *stages, *stored.values()]
    figures.append(Figure("efficiency", options.efficiency, "fraction", "python jobs/bench scale"))
    rows = [_row(workers, rate, stages, options) for workers in options.workers]
    sizes = {effects: _run_bytes(stored, effects, options) for effects in ("full", "top")}
    _print(figures, rows, sizes, options)
    return {"inputs": [figure._asdict() for figure in figures], "rows": rows, "bytes": sizes}


# --------------------------------------------------------------------------------------------
# input figures


def _rate(options: argparse.Namespace) -> Figure:
    """Return the alleles per second of one worker."""
    unit = "GPU" if options.device == "cuda" else "core"
    if options.variants_per_second:
        return Figure("rate", options.variants_per_second, f"alleles/s per {unit}", "given")
    model = make_model(options.model)
    with one_core() if options.device == "cpu" else nullcontext():
        contig, alleles, _ = sample(_DENSITY, plan_chain(model.net), options.device, None)
        made = {"device": options.device, "precision": options.precision, **model.options}
        with closing(make_engine("incremental", model.net, **made)) as engine:

            def score() -> None:
                for _ in engine.effects(alleles, contig):
                    pass

            score()  # warm-up: the first call creates what later calls reuse
            rate = len(alleles.alt) / seconds_of(options.device, score)
    source = (
        f"measured: {options.model} at {_DENSITY}, {options.precision}, as python jobs/bench engine"
    )
    return Figure("rate", rate, f"alleles/s per {unit}", source)


def _stage_seconds(folder: Path, options: argparse.Namespace) -> list[Figure]:
    """Return the seconds per million alleles of planning and of ranking."""
    figures = []
    for name, given, measure in (
        ("plan", options.plan_seconds, plan_figures),
        ("rank", options.rank_seconds, rank_figures),
    ):
        seconds, source = given, "given"
        if given is None:
            seconds = measure(folder, options.million)["seconds"] * 1e6 / options.million
            source = f"measured: {options.million:,} alleles, as python jobs/bench scale"
        figures.append(Figure(name, seconds, "s per million alleles", source))
    return figures


def _stored_bytes(folder: Path, options: argparse.Namespace) -> dict[str, Figure]:
    """Return bytes per allele in parts and in the ranking, and the other bytes of each part."""
    make_model(options.model)
    fasta, vcf = write_inputs(folder, *make_alleles(_DENSITY, options.sample), "cost")
    found: dict[str, Figure] = {}
    source = f"measured: {options.sample:,} alleles, {options.model} of random weights"
    for effects in ("full", "top"):
        out = folder / f"run-{effects}"
        made = {"model": options.model, "fasta": fasta, "out": out, "workers": 0}
        run = raygenome.score(vcf, effects=effects, device=options.device, **made)
        paths = [out / part["path"] for part in run.document["parts"]]
        row, overhead = _part_bytes(paths)
        found[f"{effects} row"] = Figure(f"--effects {effects}", row, "bytes per allele", source)
        found[f"{effects} part"] = Figure(
            f"--effects {effects}, overhead", overhead, "bytes per part", source
        )
        ranked = (out / "ranked" / "variants.parquet").stat().st_size
        found["ranked"] = Figure("ranked", ranked / options.sample, "bytes per allele", source)
    return found


def _part_bytes(paths: list[Path]) -> tuple[float, float]:
    """Return the bytes per row of the columns of some parts, and the other bytes per part."""
    sizes: Counter[str] = Counter()
    for path in paths:
        metadata = pq.read_metadata(path)
        sizes["rows"] += metadata.num_rows
        columns = 0
        for group in range(metadata.num_row_groups):
            for index in range(metadata.num_columns):
                columns += metadata.row_group(group).column(index).total_compressed_size
        sizes["columns"] += columns
        sizes["overhead"] += path.stat().st_size - columns
    return sizes["columns"] / sizes["rows"], sizes["overhead"] / len(paths)


# --------------------------------------------------------------------------------------------
# the estimate


def _row(
    workers: int, rate: Figure, stages: list[Figure], options: argparse.Namespace
) -> dict[str, Any]:
    """Return hours and dollars. Planning and ranking are paid as one worker."""
    share = options.efficiency if workers > 1 else 1.0
    scoring = options.alleles / (rate.value * workers * share) / 3600
    other = sum(stage.value for stage in stages) * options.alleles / 1e6 / 3600
    price = options.dollars_per_hour
    return {
        "workers": workers,
        "score_hours": scoring,
        "plan_and_rank_hours": other,
        "hours": scoring + other,
        "dollars": None if price is None else price * (workers * scoring + other),
    }


def _run_bytes(stored: dict[str, Figure], effects: str, options: argparse.Namespace) -> float:
    """Return the bytes of a finished run."""
    shards = math.ceil(options.alleles / ROWS)
    rows = stored[f"{effects} row"].value + stored["ranked"].value
    return rows * options.alleles + stored[f"{effects} part"].value * shards


def _print(
    figures: list[Figure],
    rows: list[dict[str, Any]],
    sizes: dict[str, float],
    options: argparse.Namespace,
) -> None:
    unit = "GPUs" if options.device == "cuda" else "CPU cores (no GPU was measured)"
    print(f"{options.alleles:,} alleles, {options.model}, {math.ceil(options.alleles / ROWS):,} ")
    print(f"shards; workers are {unit}, unless the rate was given.\n")
    print("| input | value | unit | source |\n|---|---:|---|---|")
    for figure in figures:
        value = f"{figure.value:,.2f}" if figure.value < 100 else f"{figure.value:,.0f}"
        print(f"| {figure.name} | {value} | {figure.unit} | {figure.source} |")
    print("\n| workers | score, h | plan + rank, h | hours | dollars | full, TB | top, GB |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    for row in rows:
        dollars = "" if row["dollars"] is None else f"{row['dollars']:,.0f}"
        print(
            f"| {row['workers']} | {row['score_hours']:,.1f} | {row['plan_and_rank_hours']:.2f} "
            f"| {row['hours']:,.1f} | {dollars} | {sizes['full'] / 1e12:.2f} "
            f"| {sizes['top'] / 1e9:,.0f} |"
        )
