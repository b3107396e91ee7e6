"""Scoring a VCF, told from end to end: plan, score, rank, and say what became of every allele.

    VCF ──plan──► shards ──score_shard (in-process or on Ray actors)──► parts ──rank──► run.json

Everything is committed by rename, in that order; what a killed run leaves is what `resume` goes on
from. The result is the same, byte for byte, whatever number of workers took part.
"""

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raygenome.errors import DataError, RaygenomeError, StorageError, UsageError
from raygenome.genome.contigs import ContigMap
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
    Shard,
    claim,
    read_run,
)
from raygenome.scoring.compute import Request, join_host, wanted_actors
from raygenome.scoring.dispatch import Dispatch
from raygenome.scoring.ingest import SKIPPED_FILE
from raygenome.scoring.inputs import Inputs, open_inputs
from raygenome.scoring.options import make_options
from raygenome.scoring.plan import (
    Plan,
    check_counts,
    check_files,
    commit_plan,
    load_identity,
    load_plan,
    make_plan,
    run_key,
)
from raygenome.scoring.run_json import ScoreRun, part_entries, publish_targets, run_document
from raygenome.storage.bucket import is_remote
from raygenome.storage.store import LocalStore
from raygenome.vcf.reader import digest_input, digest_ranges, input_version

log = logging.getLogger(__name__)


def score(
    vcf: str | Path,
    *,
    model: str | Path,
    fasta: str | Path,
    out: str | Path,
    workers: int | str | None = None,
    worker_gpus: float | None = None,
    address: str | None = None,
    insecure: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> ScoreRun:
    """Score every allele of a VCF and leave a run directory.

    Args:
        vcf: VCF, bgzipped or gzipped VCF, or BCF; "-" is standard input. This, and the next three,
            may be URLs in an object store, s3:// or gs://.
        model: the name of a model, or a model directory.
        fasta: the genome, plain or bgzipped.
        out: the run directory to make.
        workers: Ray actors; 0 scores in this process without Ray; None or "auto" takes
            one a GPU, or a core.
        worker_gpus: share of a GPU that an actor takes: 0.5 packs two on one. None is a whole GPU
            for device "cuda", and none for "cpu".
        address: a Ray cluster to use; None takes the one of RAY_ADDRESS, as within a Ray job, and
            else starts a private one where workers are needed.
        insecure: use a cluster also where no token guards it.
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
    checked = make_options(options)
    request = Request(wanted_actors(workers), address, worker_gpus, insecure)
    with join_host(request) as host:
        inputs = open_inputs(vcf, model, fasta, checked, host)
        run = claim(out, resume=resume, overwrite=overwrite)
        try:
            with run.lock():
                if run.finished and not overwrite:
                    return _finished(run, inputs)
                return _score(run, inputs, progress, clock, overwrite=overwrite)
        except RaygenomeError:
            raise
        except OSError as error:
            # What --overwrite has not replaced yet is another run, which cannot be resumed.
            ours = run.began or (not overwrite and run.finished)
            begun = "what is committed stays: " if ours else ""
            again = " with --resume" if ours else ""
            raise StorageError(f"{error}; {begun}mend the cause and run again{again}") from error
        finally:
            run.store.close()


def _score(
    run: RunDir, inputs: Inputs, progress: Progress | None, clock: "_Clock", *, overwrite: bool
) -> ScoreRun:
    """Go through the stages; each leaves what the next needs in the run directory."""
    file = _progress_file(run)
    with file.told(keep=lambda: run.began):
        file.state("planning")
        plan, identity = _plan(run, inputs, overwrite=overwrite)
        clock.lap("plan")
        told = BothProgress(progress or NoProgress(), file)
        dispatch = Dispatch(run, plan, inputs, identity, told)
        file.shards = dispatch.shards
        _require_space(run, inputs, dispatch.todo)  # a resumed run's disk may be full
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
    run.finish({part["path"] for part in [*document["parts"], *document["files"]]})
    return ScoreRun(_named(run), document)


def _progress_file(run: RunDir) -> ProgressFile:
    return ProgressFile("score", lambda data: run.store.note(data, PROGRESS))


def _named(run: RunDir) -> Path | str:
    """Return the place of a run as its Python user gets it."""
    return run.store.path if isinstance(run.store, LocalStore) else run.store.source


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
        identity = inputs.identity(
            _vcf_sha256(inputs, plan.vcf_version, plan.vcf_sha256, ranged=plan.vcf_ranged)
        )
        _refuse_difference(run, load_identity(run), identity)
        check_counts(plan, run)
        check_files(plan, run)
        run.key = run_key(identity)
        run.began = True
        return plan, identity
    try:
        plan = make_plan(inputs.vcf, inputs.reference, inputs.plan_options(), run)
        check_counts(plan, run)
        _require_space(run, inputs, plan.shards)
    except BaseException:
        run.abandon()  # nothing was committed, so nothing is left in the way of a second try
        raise
    identity = inputs.identity(plan.vcf_sha256)
    run.clear()  # what --overwrite replaces stays until here
    commit_plan(run, identity)
    _warn(inputs, plan)
    return plan, identity


def _require_space(run: RunDir, inputs: Inputs, shards: Sequence[Shard]) -> None:
    run.store.require_space(inputs.bytes_needed(shards), inputs.bytes_aside(shards))


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
                f"{run.place} was begun with {name} {earlier.get(name)}, this is {name} {value}; "
                "resume with the same, or use --overwrite or another --out"
            )


def _finished(run: RunDir, inputs: Inputs) -> ScoreRun:
    """Return the run that is already whole, after checking that it is the one asked for."""
    document = read_run(run.store)
    vcf = document["inputs"]["vcf"]
    vcf_sha256 = _vcf_sha256(
        inputs, vcf.get("version"), vcf["sha256"], ranged=vcf.get("ranged", False)
    )
    _refuse_difference(run, document.get("identity", {}), inputs.identity(vcf_sha256))
    files = [*document["parts"], *document["files"]]
    sizes = run.store.sizes()
    for file in files:
        if not run.store.is_whole(file, sizes):
            raise DataError(
                f"{run.store.shown(file['path'])} is missing or not what run.json says",
                "`raygenome verify` tells more, --overwrite scores again",
            )
    log.info("%s is complete already", run.place)
    file = _progress_file(run)  # what is there may tell of a stop right behind the end
    parts, scored = len(document["parts"]), document["counts"]["scored"]
    file.shards = lambda: (parts, parts)
    file.begin("done", scored, scored)
    run.finish({file["path"] for file in files})
    return ScoreRun(_named(run), document)


def _vcf_sha256(inputs: Inputs, version: str | None, known: str, *, ranged: bool) -> str:
    """Return the digest of the VCF, which is `known` for an object of that version.

    An object that was written again has another version; so the terabyte is not fetched for it.
    Of one of which only the regions were read (`ranged`), the digest is of no more than these.
    """
    if version is not None and input_version(inputs.vcf) == version:
        return known
    if ranged and inputs.regions is not None and is_remote(inputs.vcf):
        resolve = ContigMap(list(inputs.reference.contigs)).resolve
        if (digest := digest_ranges(inputs.vcf, inputs.regions, resolve)) is not None:
            return digest
    return digest_input(inputs.vcf)[0]


def _rank(
    run: RunDir, plan: Plan, inputs: Inputs, receipts: list[dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Publish the ranked tables and the two small ones beside them; return {bytes, sha256} each."""
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
