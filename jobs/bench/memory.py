"""`python jobs/bench memory` and `engine-memory`: peak memory, each step in a separate process."""

import argparse
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from bench.engine import density, sample
from bench.inputs import (
    MODELS,
    make_model,
    memory_now,
    own_process,
    peak_mib,
    print_table,
    spaced_snvs,
    write_inputs,
)
from raygenome.cluster.compute import Compute, Precision
from raygenome.engines.incremental.planner import plan_chain
from raygenome.results.run_dir import RunDir
from raygenome.scoring import run as story
from raygenome.scoring.inputs import Inputs, open_inputs
from raygenome.scoring.options import ScoreOptions
from raygenome.scoring.plan import Plan, commit_plan, load_plan, make_plan, run_key
from raygenome.scoring.shard import Scorer, ScorerConfig, scorer_config

_DENSITIES = ["saturation", "1/4", "isolated"]


def add_memory_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `memory`."""
    parser.add_argument(
        "--records",
        type=int,
        nargs="+",
        default=[10_000, 100_000, 1_000_000],
        help="numbers of VCF records",
    )


def memory_figures(folder: Path, options: argparse.Namespace) -> dict[str, object]:
    """Score inputs of growing size with a tiny net; print the peak memory of each step."""
    make_model("stub")
    rows: list[list[str]] = []
    figures: dict[str, object] = {}
    for records in options.records:
        fasta, vcf = write_inputs(folder, *spaced_snvs(records, 20), str(records))
        began = time.perf_counter()
        job = _Job("stub", str(fasta), str(vcf), str(folder / f"run-{records}"), 8192)
        peaks = [_peak_in_new_process(step, job) for step in (_plan, _work, _rank)]
        seconds = time.perf_counter() - began
        figures[str(records)] = dict(zip(("plan", "worker", "rank"), peaks, strict=True))
        rows.append([f"{records:,}", *(f"{peak:,.0f}" for peak in peaks), f"{seconds:,.1f}"])
    print_table(["records", "plan MiB", "worker MiB", "rank MiB", "seconds"], rows)
    return figures


def add_engine_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `engine-memory`."""
    parser.add_argument("--model", choices=list(MODELS), default="deepsea")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--densities", nargs="+", type=density, default=_DENSITIES)
    parser.add_argument("--alleles", type=int, help="alleles per density; default: two full chunks")


def engine_memory_figures(folder: Path, options: argparse.Namespace) -> dict[str, object]:
    """Score a shard in two processes that share weights; print the peak memory of each."""
    model = make_model(options.model)
    os.environ["TMPDIR"] = str(folder)  # new processes share weights there
    rows: list[list[str]] = []
    figures: dict[str, object] = {}
    for wanted in options.densities:
        contig, alleles, _ = sample(wanted, plan_chain(model.net), "cpu", options.alleles)
        name = wanted.replace("/", "-")
        fasta, vcf = write_inputs(folder, contig, alleles, name)
        count = len(alleles.alt)
        out = folder / f"memory-{name}"
        job = _Job(options.model, str(fasta), str(vcf), str(out), count, options.precision)
        _peak_in_new_process(_plan, job)
        with own_process() as first, own_process() as second:
            one = first.apply(_score_and_hold, (job,))
            two = second.apply(_score_and_hold, (job,))
            shared = sum(path.stat().st_size for path in folder.glob("*/*.weights")) / 2**20
        figures[wanted] = {"alleles": count, "first": one, "second": two, "shared": shared}
        peaks = [one["peak"], two["peak"], two["own"], shared]
        rows.append([wanted, f"{count:,}", *(f"{peak:,.0f}" for peak in peaks)])
    print(f"{options.model}, {options.precision}: peak memory, MiB")
    heads = ["density", "alleles", "worker that creates weights", "worker that reuses them"]
    print_table([*heads, "private memory of the second", "shared files"], rows)
    return figures


# --------------------------------------------------------------------------------------------
# steps, each run in a new process


class _Job(NamedTuple):
    """The arguments of a step, as plain values."""

    model: str
    fasta: str
    vcf: str
    out: str
    shard_size: int
    precision: Precision = "fp32"

    def inputs(self) -> Inputs:
        options = ScoreOptions(shard_size=self.shard_size, top_n=100, precision=self.precision)
        with open_inputs(self.vcf, self.model, self.fasta, Compute(0, "cpu"), options) as inputs:
            return inputs

    def scorer_config(self, *, shared: bool = False) -> ScorerConfig:
        return scorer_config(self.run(), self.inputs(), {}, shared=shared)

    def run(self) -> RunDir:
        return RunDir(Path(self.out), run_key({}))

    def plan(self) -> Plan:
        plan = load_plan(self.run())
        assert plan is not None
        return plan


def _peak_in_new_process(step: Callable[[_Job], None], job: _Job) -> float:
    """Run `step` in a new process; return its peak memory in MiB."""
    with own_process() as process:
        return process.apply(_peak, (step, job))


def _peak(step: Callable[[_Job], None], job: _Job) -> float:
    step(job)
    return peak_mib()


def _plan(job: _Job) -> None:
    inputs, run = job.inputs(), job.run()
    make_plan(job.vcf, inputs.reference, run, inputs.options, window=inputs.model.spec.window)
    commit_plan(run, {})


def _work(job: _Job) -> None:
    scorer = Scorer(job.scorer_config())
    for shard in job.plan().shards:
        scorer.score_shard(shard)


def _rank(job: _Job) -> None:
    run = job.run()
    receipts = [receipt for _, receipt in sorted(run.committed().items())]
    story._rank(run, job.plan(), job.inputs(), receipts)


#: Scorers that live as long as their process; they hold the weights that other processes reuse.
_held: list[Scorer] = []


def _score_and_hold(job: _Job) -> dict[str, float]:
    """Return the peak memory in MiB: in total, and without memory-mapped files."""
    own, done = [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            own[0] = max(own[0], memory_now("RssAnon"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        scorer = Scorer(job.scorer_config(shared=True))
        _held.append(scorer)
        for shard in job.plan().shards:
            scorer.score_shard(shard)
    finally:
        done.set()
        watcher.join()
    return {"peak": peak_mib(), "own": own[0]}
