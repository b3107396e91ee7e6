"""What a run will take: bytes on disk, and for `--dry-run` also the time, from a timed sample."""

import contextlib
import math
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

import pyarrow as pa

from raygenome.cluster.compute import Compute, Device
from raygenome.cluster.hardware import cores
from raygenome.genome.alleles import Shard
from raygenome.results.run_dir import RunDir
from raygenome.scoring.allele_file import read_rows
from raygenome.scoring.inputs import Inputs, open_inputs
from raygenome.scoring.options import ScoreOptions, ScoreOptionsDict, make_options
from raygenome.scoring.plan import ALLELES_FILE, Plan, make_plan
from raygenome.scoring.run_json import plan_counts
from raygenome.scoring.shard import Scorer, scorer_config

#: Bytes that a Parquet file spends on each column, with statistics and page index: measured.
_FOOTER_BYTES = 400
#: Alleles of the first timing, per thread, and seconds that the timing that counts should take.
_SAMPLE = {"cpu": 64, "cuda": 2048}
_SAMPLE_SECONDS = 1.5


def bytes_aside(shards: Sequence[Shard]) -> int:
    """Return about how many bytes the working files that stay on local disk take: measured."""
    return 100 * sum(shard.rows for shard in shards)


def bytes_needed(options: ScoreOptions, targets: int, shards: Sequence[Shard]) -> int:
    """Return about how many bytes scoring `shards` takes on disk, at its largest.

    Measured: zstd hardly shortens effects. Keys, score and top take some 90 bytes per allele (110
    with names such as dbSNP's), a summary 16, ranking 56 while it sorts and 18 at its end.

    Args:
        options: how they are scored.
        targets: number of targets.
        shards: the shards.
    """
    datasets = (options.effects == "full") + options.log_odds  # those with a column per target
    width = 2 if options.effect_dtype == "float16" else 4
    row = 220 + targets * width * datasets
    most = max((min(options.top_n, shard.rows) for shard in shards), default=0)
    tops = 8 * targets * most * _full_tops(len(shards))
    footers = len(shards) * (_FOOTER_BYTES * targets * datasets + 10_000)
    return sum(shard.rows for shard in shards) * row + int(tops) + footers


def _full_tops(shards: int) -> float:
    """Return how many full lists of top effects `shards` leave at most.

    The i-th shard of a worker leaves 1/i of such a list (`ranking.per_target`); for 64 workers.
    """
    return min(shards, 64 * (1 + math.log(max(shards / 64, 1))))


def dry_run(
    vcf: str | Path,
    *,
    model: str | Path,
    fasta: str | Path,
    workers: int | str | None = None,
    device: Device = "auto",
    worker_gpus: float | None = None,
    address: str | None = None,
    insecure: bool = False,
    **options: Unpack[ScoreOptionsDict],
) -> dict[str, Any]:
    """Return an estimate of the work of scoring; no files are left.

    The input is read to its end, so the counts are exact. The time is that of one worker on this
    machine for a few alleles, divided by the number of workers that would have work. It is unknown
    (0) if only the nodes of a cluster have the GPU.

    Raises:
        RaygenomeError: the error that `raygenome.score` would raise for the same input.
    """
    checked = make_options(options)
    compute = Compute(workers, device, worker_gpus, address, insecure)
    with (
        open_inputs(vcf, model, fasta, compute, checked) as inputs,
        tempfile.TemporaryDirectory(prefix="raygenome-") as folder,
    ):
        run = RunDir(Path(folder))
        plan = make_plan(
            inputs.vcf,
            inputs.reference,
            run,
            inputs.options,
            window=inputs.model.spec.window,
            regions=inputs.regions,
        )
        actors = inputs.workers.count(plan.shards)
        rate, forms = 0.0, ""
        if plan.shards and not _only_elsewhere(inputs):
            rate, forms = _sample(run, plan, inputs, threads=1 if actors else cores())
    rate *= max(min(actors, len(plan.shards)), 1)
    return {
        "counts": plan_counts(plan),
        "shards": len(plan.shards),
        "bytes": bytes_needed(inputs.options, inputs.model.spec.targets, plan.shards),
        "engine": inputs.options.engine,
        "forms": forms,
        "device": inputs.workers.compute.device,
        "workers": actors,
        "variants_per_second": round(rate, 2),
        "seconds": round(plan.scorable / rate, 3) if rate else 0.0,
    }


def _only_elsewhere(inputs: Inputs) -> bool:
    """Return whether the device is one that this machine lacks."""
    import torch

    return inputs.workers.compute.device == "cuda" and not torch.cuda.is_available()


def _sample(run: RunDir, plan: Plan, inputs: Inputs, *, threads: int) -> tuple[float, str]:
    """Return the variants/s of one worker, timed on part of a shard, and how it computes.

    The first pass only allocates. Then more and more alleles are timed until it takes long enough:
    a larger part is nearer to a whole shard, where neighbours share more.
    """
    config = scorer_config(run, inputs, {}, threads=threads)
    shard = plan.shards[len(plan.shards) // 2]
    rows = min(_SAMPLE[config.device] * threads, shard.rows)
    alleles = read_rows(run.draft / ALLELES_FILE, shard.begin, shard.end)
    with contextlib.closing(Scorer(config)) as scorer:
        _timed_rate(scorer, shard, alleles.slice(0, rows))
        while True:
            rate = _timed_rate(scorer, shard, alleles.slice(0, rows))
            if rows == shard.rows or rows >= rate * _SAMPLE_SECONDS / 2:
                return rate, scorer.engine.algorithms()
            rows = min(max(2 * rows, int(rate * _SAMPLE_SECONDS)), shard.rows)


def _timed_rate(scorer: Scorer, shard: Shard, alleles: pa.Table) -> float:
    start = time.perf_counter()
    for _ in scorer.effects(shard, alleles):
        pass
    return alleles.num_rows / (time.perf_counter() - start)
