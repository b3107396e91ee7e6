"""Scoring a VCF, told from end to end: plan, score, rank, and say what became of every allele.

    VCF ──plan──► shards ──score_shard (in-process or on Ray actors)──► parts ──rank──► run.json

Everything is committed by rename, in that order; what a killed run leaves is what `resume` goes on
from. The result is the same, byte for byte, whatever number of workers took part.
"""

import logging
import shutil
import time
from pathlib import Path
from typing import Any, NamedTuple

from raygenome.disk import file_sha256
from raygenome.errors import (
    DataError,
    RaygenomeError,
    StorageError,
    UsageError,
)
from raygenome.progress import NoProgress, Progress
from raygenome.registry import registry
from raygenome.results import rank
from raygenome.results.rundir import (
    RunDir,
    claim,
    read_run,
    require_space,
)
from raygenome.scoring.dispatch import Dispatch, wanted_actors
from raygenome.scoring.document import ScoreRun, part_entries, publish_targets, run_document
from raygenome.scoring.ingest import SKIPPED_FILE
from raygenome.scoring.inputs import Inputs, open_inputs
from raygenome.scoring.options import make_options
from raygenome.scoring.plan import (
    Plan,
    check_plan,
    commit_plan,
    load_identity,
    load_plan,
    make_plan,
)
from raygenome.variants.vcf import digest_input

log = logging.getLogger(__name__)


def score(
    vcf: str | Path,
    *,
    model: str | Path,
    fasta: str | Path,
    out: str | Path,
    workers: int | str | None = None,
    address: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> ScoreRun:
    """Score every allele of a VCF and leave a run directory.

    Args:
        vcf: VCF, bgzipped or gzipped VCF, or BCF; "-" is standard input.
        model: the name of a model, or a model directory.
        fasta: the genome, plain or bgzipped.
        out: the run directory to make.
        workers: Ray actors; 0 scores in this process without Ray; None or "auto" takes
            one a GPU, or a core.
        address: a Ray cluster to use; None starts a private one where workers are needed.
        resume: go on with what an interrupted run left in `out`.
        overwrite: remove the run in `out` first.
        progress: told how far scoring is.
        **options: the fields of `raygenome.scoring.options.ScoreOptions`.

    Raises:
        RaygenomeError: what the user can mend; `exit_code` is the command line's.
    """
    if resume and overwrite:
        raise UsageError("--resume and --overwrite contradict each other; give one")
    clock = _Clock()
    inputs = open_inputs(vcf, model, fasta, make_options(options))
    actors = wanted_actors(workers)
    run = claim(Path(out), resume=resume, overwrite=overwrite)
    try:
        with run.lock():
            if run.success.exists() and not overwrite:
                return _finished(run, inputs)
            return _score(run, inputs, _Request(actors, address, overwrite), progress, clock)
    except RaygenomeError:
        raise
    except OSError as error:
        begun = "what is committed stays: " if run.plan.exists() else ""
        again = " with --resume" if begun else ""
        raise StorageError(f"{error}; {begun}mend the cause and run again{again}") from error


class _Request(NamedTuple):
    """What the caller asked of this run and not of its result."""

    actors: int | None
    address: str | None
    overwrite: bool


def _score(
    run: RunDir, inputs: Inputs, request: _Request, progress: Progress | None, clock: "_Clock"
) -> ScoreRun:
    """Go through the stages; each leaves what the next needs in the run directory."""
    plan, identity = _plan(run, inputs, overwrite=request.overwrite)
    clock.lap("plan")
    dispatch = Dispatch(run, plan, inputs, identity, progress or NoProgress())
    require_space(run.path, inputs.bytes_needed(dispatch.todo))  # a resumed run's disk may be full
    receipts = dispatch.run(request.actors, request.address)
    clock.lap("score")
    _rank(run, plan, inputs, receipts)
    clock.lap("rank")
    document = run_document(run, plan, inputs, identity, receipts)
    document["seconds"] = clock.seconds()
    entry = run.publish_json(document, run.run_json)
    run.publish_json({"run.json": entry, "counts": document["counts"]}, run.success)
    shutil.rmtree(run.work, ignore_errors=True)
    return ScoreRun(run.path, document)


class _Clock:
    """Seconds a stage, of this process's share of the run."""

    def __init__(self) -> None:
        self._began = self._last = time.perf_counter()
        self._laps: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self._laps[stage] = now - self._last
        self._last = now

    def seconds(self) -> dict[str, float]:
        laps = {"total": time.perf_counter() - self._began, **self._laps}
        return {stage: round(value, 3) for stage, value in laps.items()}


def _plan(run: RunDir, inputs: Inputs, *, overwrite: bool) -> tuple[Plan, dict[str, Any]]:
    """Return the plan and the identity of this run: an interrupted run's own, or new ones."""
    plan = None if overwrite else load_plan(run)
    if plan is not None:
        vcf_sha256, _ = digest_input(inputs.vcf)
        identity = inputs.identity(vcf_sha256)
        _refuse_difference(run, load_identity(run), identity)
        check_plan(plan, run.plan)
        return plan, identity
    try:
        plan = make_plan(inputs.vcf, inputs.reference, inputs.plan_options(), run)
        check_plan(plan, run.draft)
        require_space(run.path, inputs.bytes_needed(plan.shards))
    except BaseException:
        run.abandon()  # nothing was committed, so nothing is left in the way of a second try
        raise
    identity = inputs.identity(plan.vcf_sha256)
    run.clear()  # what --overwrite replaces stays until here
    commit_plan(run, identity)
    _warn(inputs, plan)
    return plan, identity


def _warn(inputs: Inputs, plan: Plan) -> None:
    """Say in the log what is no error but is most likely not what was meant."""
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
        log.warning("%s: blank lines passed over: %d", inputs.vcf, plan.blank_lines)


def _refuse_difference(run: RunDir, earlier: dict[str, Any], now: dict[str, Any]) -> None:
    for name, value in now.items():
        if earlier.get(name) != value:
            raise DataError(
                f"{run.path} was begun with {name} {earlier.get(name)}, this is {name} {value}; "
                "resume with the same, or use --overwrite or another --out"
            )


def _finished(run: RunDir, inputs: Inputs) -> ScoreRun:
    """Return the run that is already whole, after checking that it is the one asked for."""
    document = read_run(run.path)
    vcf_sha256, _ = digest_input(inputs.vcf)
    _refuse_difference(run, document.get("identity", {}), inputs.identity(vcf_sha256))
    for file in [*document["parts"], *document["files"]]:
        path = run.path / file["path"]
        if not path.is_file() or file_sha256(path) != file["sha256"]:
            raise DataError(
                f"{path} is missing or not what run.json says; "
                "`raygenome verify` tells more, --overwrite scores again"
            )
    log.info("%s is complete already", run.path)
    shutil.rmtree(run.work, ignore_errors=True)
    return ScoreRun(run.path, document)


def _rank(run: RunDir, plan: Plan, inputs: Inputs, receipts: list[dict[str, Any]]) -> None:
    """Publish the ranked tables and the two small ones beside them."""
    scored = sum(receipt["rows"] for receipt in receipts)
    if scored != plan.scorable:
        raise RuntimeError(f"{scored} alleles were scored of {plan.scorable} planned")
    targets = registry.load_targets(inputs.model)
    rank.rank_run(
        run,
        plan.shards,
        part_entries(receipts, "scores"),
        targets=targets,
        top_n=inputs.options.top_n,
    )
    publish_targets(run, targets)
    run.publish_copy(run.plan / SKIPPED_FILE, run.skipped)
