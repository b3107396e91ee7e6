"""What `--dry-run` says: counts and bytes from reading the input, time from a timed sample."""

import contextlib
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa

from raygenome.cluster.hardware import cores
from raygenome.results.run_dir import RunDir, Shard
from raygenome.scoring import allele_file
from raygenome.scoring.compute import Request, join_host, wanted_actors
from raygenome.scoring.ingest import ALLELES_FILE
from raygenome.scoring.inputs import Inputs, open_inputs
from raygenome.scoring.options import make_options
from raygenome.scoring.plan import Plan, make_plan
from raygenome.scoring.run_json import plan_counts
from raygenome.scoring.scorer import Scorer

#: Alleles timed first, for each thread, and how long the timing that counts is to take.
_SAMPLE = {"cpu": 64, "cuda": 2048}
_SAMPLE_SECONDS = 1.5


def dry_run(
    vcf: str | Path,
    *,
    model: str | Path,
    fasta: str | Path,
    workers: int | str | None = None,
    worker_gpus: float | None = None,
    address: str | None = None,
    insecure: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Return what scoring would do; nothing is left behind.

    The input is read to its end, so the counts are exact. The time is that of one worker, here, on
    a few alleles, divided by the number of workers that have something to do; it is not known (0)
    where only a cluster's nodes have the GPU.

    Raises:
        RaygenomeError: what `raygenome.score` would raise for the same input.
    """
    request = Request(wanted_actors(workers), address, worker_gpus, insecure)
    with (
        join_host(request) as host,
        tempfile.TemporaryDirectory(prefix="raygenome-") as folder,
    ):
        inputs = open_inputs(vcf, model, fasta, make_options(options), host)
        run = RunDir(Path(folder))
        plan = make_plan(inputs.vcf, inputs.reference, inputs.plan_options(), run)
        actors = host.actors(inputs.options.device, plan.shards)
        rate, forms = 0.0, ""
        if plan.shards and not _only_elsewhere(inputs):
            rate, forms = _sample(run, plan, inputs, 1 if actors else cores())
    rate *= max(min(actors, len(plan.shards)), 1)
    return {
        "counts": plan_counts(plan),
        "shards": len(plan.shards),
        "bytes": inputs.bytes_needed(plan.shards),
        "engine": inputs.options.engine,
        "forms": forms,
        "device": inputs.options.device,
        "workers": actors,
        "variants_per_second": round(rate, 2),
        "seconds": round(plan.scorable / rate, 3) if rate else 0.0,
    }


def _only_elsewhere(inputs: Inputs) -> bool:
    """Return whether the device is one that this machine has not."""
    import torch

    return inputs.options.device == "cuda" and not torch.cuda.is_available()


def _sample(run: RunDir, plan: Plan, inputs: Inputs, threads: int) -> tuple[float, str]:
    """Return the variants/s of one worker, timed on part of a shard, and how it computes.

    The first pass allocates. Then more and more alleles are timed until it takes long enough: more
    are nearer to a whole shard, where neighbours share more.
    """
    config = inputs.scorer_config(run, {}, threads)
    shard = plan.shards[len(plan.shards) // 2]
    rows = min(_SAMPLE[config.device] * threads, shard.rows)
    alleles = allele_file.read_rows(run.draft / ALLELES_FILE, shard.begin, shard.end)
    with contextlib.closing(Scorer(config)) as scorer:
        _timed_rate(scorer, shard, alleles.slice(0, rows))
        while True:
            rate = _timed_rate(scorer, shard, alleles.slice(0, rows))
            if rows == shard.rows or rows >= rate * _SAMPLE_SECONDS / 2:
                return rate, scorer.engine.algorithms()
            rows = min(max(2 * rows, int(rate * _SAMPLE_SECONDS)), shard.rows)


def _timed_rate(scorer: Scorer, shard: Shard, alleles: pa.Table) -> float:
    began = time.perf_counter()
    for _ in scorer.effects(shard, alleles):
        pass
    return alleles.num_rows / (time.perf_counter() - began)
