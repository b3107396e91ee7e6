"""Scoring a VCF from end to end, in three stages: plan, score the shards, rank.

    VCF ──plan──► shards ──score (in this process or on Ray actors)──► parts ──rank──► run.json

Each stage commits by rename, in that order, and `resume` continues with what a killed run has
committed. The result is the same, byte for byte, for any number of workers.
"""

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

from raygenome.cluster.compute import Compute, Device
from raygenome.errors import RaygenomeError, StorageError, UsageError
from raygenome.genome.alleles import Shard
from raygenome.progress.bars import BothProgress, NoProgress, Progress
from raygenome.progress.file import ProgressFile
from raygenome.ranking import rank
from raygenome.results.run_dir import (
    PLAN,
    PROGRESS,
    RUN_JSON,
    SKIPPED,
    SUCCESS,
    TARGETS,
    RunDir,
    claim,
)
from raygenome.scoring.dispatch import Dispatch
from raygenome.scoring.estimate import bytes_aside, bytes_needed
from raygenome.scoring.inputs import Inputs, open_inputs, run_identity
from raygenome.scoring.options import ScoreOptionsDict, make_options
from raygenome.scoring.plan import (
    SKIPPED_FILE,
    Plan,
    commit_plan,
    make_plan,
)
from raygenome.scoring.resume import check_finished, earlier_plan
from raygenome.scoring.run_json import ScoreRun, part_entries, publish_targets, run_document
from raygenome.storage.store import LocalStore

log = logging.getLogger(__name__)


def score(
    vcf: str | Path,
    *,
    model: str | Path,
    fasta: str | Path,
    out: str | Path,
    workers: int | str | None = None,
    device: Device = "auto",
    worker_gpus: float | None = None,
    address: str | None = None,
    insecure: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
    **options: Unpack[ScoreOptionsDict],
) -> ScoreRun:
    """Score every allele of a VCF and leave a run directory.

    Args:
        vcf: VCF, bgzipped or gzipped VCF, or BCF; "-" is standard input. This argument and the
            next three may be URLs in an object store, s3:// or gs://.
        model: the name of a model, or a model directory.
        fasta: the genome, plain or bgzipped.
        out: the run directory to make.
        workers: number of Ray actors; 0 scores in this process without Ray; None or "auto" takes
            one per GPU, or one per core.
        device: "auto", "cpu" or "cuda".
        worker_gpus: the share of a GPU per actor: 0.5 puts two actors on one GPU. None is a whole
            GPU for device "cuda", and none for "cpu".
        address: a Ray cluster to use. None uses the one that RAY_ADDRESS names, as inside a Ray
            job, or else starts a private one if workers are needed.
        insecure: also use a cluster that no token protects.
        resume: continue an interrupted run in `out`.
        overwrite: remove the run in `out` first.
        progress: receives how many alleles are scored.
        **options: the fields of `raygenome.scoring.options.ScoreOptions`.

    Raises:
        RaygenomeError: an error that the user can fix; `exit_code` is that of the command line.
    """
    if resume and overwrite:
        raise UsageError("--resume and --overwrite contradict each other", "give one of them")
    clock = _Clock()
    checked = make_options(options)
    compute = Compute(workers, device, worker_gpus, address, insecure)
    with open_inputs(vcf, model, fasta, compute, checked) as inputs:
        run = claim(out, resume=resume, overwrite=overwrite)
        try:
            with run.lock():
                if run.finished and not overwrite:
                    return _finished(run, inputs)
                return _run_stages(run, inputs, progress, clock, overwrite=overwrite)
        except RaygenomeError:
            raise
        except OSError as error:
            # Before --overwrite has replaced the earlier run, there is nothing to resume.
            resumable = run.began or (not overwrite and run.finished)
            kept = "; committed shards are kept" if resumable else ""
            again = " with --resume" if resumable else ""
            raise StorageError(f"{error}{kept}", f"fix the cause and run again{again}") from error
        finally:
            run.store.close()


def _run_stages(
    run: RunDir,
    inputs: Inputs,
    progress: Progress | None,
    clock: "_Clock",
    *,
    overwrite: bool,
) -> ScoreRun:
    """Plan, score, rank; each stage leaves in the run directory what the next one needs."""
    file = _progress_file(run)
    with file.record_end(keep=lambda: run.began):
        file.state("planning")
        plan, identity = _plan(run, inputs, overwrite=overwrite)
        clock.lap("plan")
        both = BothProgress(progress or NoProgress(), file)
        dispatch = Dispatch(run, plan, inputs, identity, both)
        file.shards = dispatch.shards
        _require_space(run, inputs, dispatch.todo)  # the disk of a resumed run may be full
        receipts = dispatch.run()
        clock.lap("score")
        file.state("ranking")
        tables = _rank(run, plan, inputs, receipts)
        clock.lap("rank")
        document = run_document(run, plan, inputs, identity, receipts, tables)
        document["seconds"] = clock.seconds()
        entry = run.store.publish_json(document, RUN_JSON)
        run.store.publish_json({"run.json": entry, "counts": document["counts"]}, SUCCESS)
        file.state("done")
    return _finish(run, document)


def _plan(run: RunDir, inputs: Inputs, *, overwrite: bool) -> tuple[Plan, dict[str, Any]]:
    """Return the plan and the identity of this run: an interrupted run's own, or new ones."""
    if not overwrite and (earlier := earlier_plan(run, inputs)) is not None:
        return earlier
    try:
        plan = make_plan(
            inputs.vcf,
            inputs.reference,
            run,
            inputs.options,
            window=inputs.model.spec.window,
            regions=inputs.regions,
        )
        _require_space(run, inputs, plan.shards)
    except BaseException:
        run.abandon()  # nothing was committed, so a second try finds the place as it was
        raise
    identity = run_identity(inputs, plan.vcf_sha256)
    run.clear()  # the run that --overwrite replaces is kept until here
    commit_plan(run, identity)
    _warn(inputs, plan)
    return plan, identity


def _rank(
    run: RunDir, plan: Plan, inputs: Inputs, receipts: list[dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Publish the ranked tables and the two small tables; return the {bytes, sha256} of each."""
    scored = sum(receipt["rows"] for receipt in receipts)
    if scored != plan.scorable:
        raise RuntimeError(f"{scored} alleles were scored of {plan.scorable} planned")
    targets = inputs.model.targets
    tables = rank.rank_run(
        run,
        plan.shards,
        {entry["shard"]: entry["path"] for entry in part_entries(receipts, "summaries")},
        [entry["path"] for entry in part_entries(receipts, "tops")],
        targets=targets,
        top_n=inputs.options.top_n,
    )
    tables[TARGETS] = publish_targets(run, targets)
    tables[SKIPPED] = run.store.publish_copy(f"{PLAN}/{SKIPPED_FILE}", SKIPPED)
    return tables


def _finished(run: RunDir, inputs: Inputs) -> ScoreRun:
    """Return the run that is complete already, if it is the requested one and undamaged."""
    document = check_finished(run, inputs)
    log.info("%s is complete already", run.place)
    progress = _progress_file(run)  # the file may still describe a stop just before the end
    parts, scored = len(document["parts"]), document["counts"]["scored"]
    progress.shards = lambda: (parts, parts)
    progress.begin("done", scored, scored)
    return _finish(run, document)


def _finish(run: RunDir, document: dict[str, Any]) -> ScoreRun:
    run.finish({file["path"] for file in [*document["parts"], *document["files"]]})
    place = run.store.path if isinstance(run.store, LocalStore) else run.store.source
    return ScoreRun(place, document)


def _require_space(run: RunDir, inputs: Inputs, shards: Sequence[Shard]) -> None:
    run.store.require_space(
        bytes_needed(inputs.options, inputs.model.spec.targets, shards), bytes_aside(shards)
    )


def _warn(inputs: Inputs, plan: Plan) -> None:
    """Log a warning about input that is valid, but probably not as the user intended."""
    if plan.records == 0:
        log.warning("%s holds no records; the run will be empty", inputs.vcf)
    elif plan.scorable == 0:
        why = {"filtered": plan.filtered, **plan.skipped}
        most = max(why, key=lambda reason: why[reason])
        log.warning(
            "none of the %d alleles of %s can be scored; most are: %s", plan.read, inputs.vcf, most
        )
    elif plan.mismatched > plan.read // 20:
        log.warning(
            "%d of %d alleles have a REF that differs from %s: wrong genome build?",
            plan.mismatched,
            plan.read,
            inputs.reference.path,
        )
    if plan.blank_lines:
        log.warning("%s: ignored blank lines: %d", inputs.vcf, plan.blank_lines)


def _progress_file(run: RunDir) -> ProgressFile:
    return ProgressFile("score", lambda data: run.store.note(data, PROGRESS))


class _Clock:
    """Seconds that this process spent in each stage."""

    def __init__(self) -> None:
        self._start = self._last = time.perf_counter()
        self._laps: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self._laps[stage] = now - self._last
        self._last = now

    def seconds(self) -> dict[str, float]:
        laps = {"total": time.perf_counter() - self._start, **self._laps}
        return {stage: round(value, 3) for stage, value in laps.items()}
