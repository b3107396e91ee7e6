"""What `--dry-run` says: counts and bytes from reading the input, time from a timed sample."""

import tempfile
import time
from pathlib import Path
from typing import Any

from raygenome.results.rundir import RunDir
from raygenome.scoring import spool
from raygenome.scoring.dispatch import actor_count
from raygenome.scoring.document import plan_counts
from raygenome.scoring.inputs import Inputs, open_inputs
from raygenome.scoring.options import make_options
from raygenome.scoring.plan import ALLELES_FILE, Plan, make_plan
from raygenome.scoring.scorer import Scorer

_SAMPLE = 64


def dry_run(
    vcf: str | Path,
    *,
    model: str | Path,
    fasta: str | Path,
    workers: int | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Return what scoring would do; nothing is left behind.

    The input is read to its end, so the counts are exact. The time is that of one worker on a few
    alleles, divided by the number of workers.

    Raises:
        RaygenomeError: what `raygenome.score` would raise for the same input.
    """
    inputs = open_inputs(vcf, model, fasta, make_options(options))
    with tempfile.TemporaryDirectory(prefix="raygenome-") as folder:
        run = RunDir(Path(folder))
        plan = make_plan(inputs.vcf, inputs.reference, inputs.plan_options(), run)
        rate = _sample_rate(run, plan, inputs) if plan.shards else 0.0
    actors = actor_count(workers, inputs.options.device, plan.shards)
    rate *= max(actors, 1)
    return {
        "counts": plan_counts(plan),
        "shards": len(plan.shards),
        "bytes": plan.scorable * inputs.bytes_per_row(),
        "engine": inputs.options.engine,
        "device": inputs.options.device,
        "workers": actors,
        "variants_per_second": round(rate, 2),
        "seconds": round(plan.scorable / rate, 3) if rate else 0.0,
    }


def _sample_rate(run: RunDir, plan: Plan, inputs: Inputs) -> float:
    """Return the variants/s of one worker, timed on a few alleles from the middle of the plan."""
    scorer = Scorer(inputs.scorer_config(run, {}, threads=1))
    shard = plan.shards[len(plan.shards) // 2]
    end = min(shard.begin + _SAMPLE, shard.end)
    alleles = spool.read_rows(run.plan / ALLELES_FILE, shard.begin, end)
    _drain(scorer, shard, alleles.slice(0, 8))  # the first pass allocates
    began = time.perf_counter()
    _drain(scorer, shard, alleles)
    return alleles.num_rows / (time.perf_counter() - began)


def _drain(scorer: Scorer, shard: Any, alleles: Any) -> None:
    for _ in scorer.effects(shard, alleles):
        pass
