"""Continuing an earlier run: it must have the same inputs and options, and be undamaged."""

import json
from typing import Any

from raygenome.errors import DataError
from raygenome.genome.contigs import ContigMap
from raygenome.results.run_dir import RunDir, read_run
from raygenome.scoring.inputs import Inputs, run_identity
from raygenome.scoring.plan import IDENTITY, Plan, load_plan, run_key, vcf_version
from raygenome.storage.bucket import is_remote
from raygenome.vcf.reader import digest_input, digest_ranges


def earlier_plan(run: RunDir, inputs: Inputs) -> tuple[Plan, dict[str, Any]] | None:
    """Return the plan and the identity of an interrupted run; None if it has committed no plan.

    Raises:
        DataError: the run is damaged, or has other inputs or options.
    """
    plan = load_plan(run)
    if plan is None:
        return None
    sha256 = _vcf_sha256(inputs, plan.vcf_version, known=plan.vcf_sha256, ranged=plan.vcf_ranged)
    identity = run_identity(inputs, sha256)
    try:
        earlier = json.loads(run.store.read(IDENTITY))
    except (FileNotFoundError, ValueError):
        raise DataError(
            f"{run.store.shown(IDENTITY)} is missing or damaged", "use --overwrite"
        ) from None
    _refuse_difference(run, earlier, identity)
    run.key = run_key(identity)
    run.began = True
    return plan, identity


def check_finished(run: RunDir, inputs: Inputs) -> dict[str, Any]:
    """Return the run.json of a finished run.

    Raises:
        DataError: the run is damaged, or has other inputs or options.
    """
    document = read_run(run.store)
    vcf = document["inputs"]["vcf"]
    sha256 = _vcf_sha256(
        inputs, vcf.get("version"), known=vcf["sha256"], ranged=vcf.get("ranged", False)
    )
    _refuse_difference(run, document.get("identity", {}), run_identity(inputs, sha256))
    sizes = run.store.sizes()
    for file in [*document["parts"], *document["files"]]:
        if not run.store.is_whole(file, sizes):
            raise DataError(
                f"{run.store.shown(file['path'])} is missing or differs from run.json",
                "`raygenome verify` lists what is damaged, --overwrite scores again",
            )
    return document


def _refuse_difference(run: RunDir, earlier: dict[str, Any], now: dict[str, Any]) -> None:
    for name, value in now.items():
        if earlier.get(name) != value:
            raise DataError(
                f"{run.place} was started with {name} {earlier.get(name)}, this is {name} {value}",
                "resume with the same, or use --overwrite or another --out",
            )


def _vcf_sha256(inputs: Inputs, version: str | None, *, known: str, ranged: bool) -> str:
    """Return the digest of the VCF as it is now.

    Args:
        inputs: of this run.
        version: the `vcf_version` that the VCF had when it was planned.
        known: the digest that it had then, and still has if its version is the same: so hundreds
            of gigabytes are not read again to resume a run.
        ranged: whether only the regions of a remote VCF were read, which the digest then covers.
    """
    vcf, regions = inputs.vcf, inputs.regions
    if version is not None and vcf_version(vcf) == version:
        return known
    if ranged and regions is not None and is_remote(vcf):
        digest = digest_ranges(vcf, regions, ContigMap(list(inputs.reference.contigs)).resolve)
        if digest is not None:
            return digest
    return digest_input(vcf)[0]
