"""The plan: a VCF read once, its alleles checked, sorted and cut into shards.

Reading is strict and comes first: what is wrong with the input shows before any work is committed.
The alleles that can be scored are spooled to one Arrow file in the run directory, in the order of
the FASTA's contigs, then position, REF, ALT, record, allele; a shard is a range of its rows.
Workers read their rows from there and never parse the VCF again, whatever kind of input it was.

The plan is a pure function of the input and the options. It appears in one step.
"""

import dataclasses
import hashlib
import itertools
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from raygenome.errors import DataError
from raygenome.genome.contigs import display_name
from raygenome.genome.fasta import Reference
from raygenome.results.run_dir import PLAN, RunDir, Shard
from raygenome.scoring.ingest import ALLELES_FILE, SKIPPED_FILE, Ingested, PlanOptions, ingest
from raygenome.storage.files import file_sha256

_IDENTITY_FILE = "identity.json"
#: Version of plan.json.
_FORMAT = 1
#: Bounds of the shard size that is chosen where none is asked for.
_SMALLEST_SHARD, _LARGEST_SHARD, _SHARDS = 4_096, 65_536, 256


@dataclass(frozen=True)
class Plan(Ingested):
    """What a run will do, and what planning it found; `files` are its files' SHA-256 by name."""

    shards: list[Shard]
    files: dict[str, str]

    @property
    def scorable(self) -> int:
        """How many alleles will be scored."""
        return sum(shard.rows for shard in self.shards)


def make_plan(vcf: str, reference: Reference, options: PlanOptions, run: RunDir) -> Plan:
    """Read `vcf` ("-" is standard input) and leave a draft of its plan in the run directory.

    Nothing that is there already is touched; `commit_plan` makes the draft the plan.

    Raises:
        DataError: the input is damaged, or most likely belongs to another genome build.
        NoInput: there is none.
    """
    draft = run.draft
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    found, runs = ingest(vcf, reference, options, draft)
    names = list(reference.contigs)
    shards = [
        Shard(index, names[contig], display_name(names[contig]), begin, end)
        for index, (contig, begin, end) in enumerate(cut(runs, options.shard_size))
    ]
    files = {name: file_sha256(draft / name) for name in (ALLELES_FILE, SKIPPED_FILE)}
    plan = Plan(shards=shards, files=files, **dataclasses.asdict(found))
    document = {"format": _FORMAT, **dataclasses.asdict(plan)}
    (draft / "plan.json").write_text(json.dumps(document) + "\n")
    return plan


def commit_plan(run: RunDir, identity: dict[str, Any]) -> None:
    """Make the draft the run's plan, and `identity` what the run is, in one step.

    The run has its key from then on.
    """
    run.key = run_key(identity)
    (run.draft / _IDENTITY_FILE).write_text(json.dumps(identity) + "\n")
    run.commit_plan()


def run_key(identity: dict[str, Any]) -> str:
    """Return the key of a run, of which all runs of one identity have the same."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def load_identity(run: RunDir) -> dict[str, Any]:
    """Return the identity that was committed with the plan.

    Raises:
        DataError: it cannot be read.
    """
    name = f"{PLAN}/{_IDENTITY_FILE}"
    try:
        identity: dict[str, Any] = json.loads(run.store.read(name))
    except (FileNotFoundError, ValueError):
        raise DataError(f"{run.store.shown(name)} is missing or damaged; use --overwrite") from None
    return identity


def load_plan(run: RunDir) -> Plan | None:
    """Return the plan that an earlier, interrupted run left, if it got so far.

    Raises:
        DataError: it cannot be read.
    """
    name = f"{PLAN}/plan.json"
    try:
        document: dict[str, Any] = json.loads(run.store.read(name))
        known = document.pop("format") == _FORMAT
    except FileNotFoundError:
        return None
    except (ValueError, KeyError):
        known = False
    if not known:
        raise DataError(
            f"{run.store.shown(name)} is damaged or was written by another version of raygenome; "
            "use --overwrite"
        )
    shards = [Shard(**shard) for shard in document.pop("shards")]
    return Plan(shards=shards, **document)


def cut(runs: list[tuple[int, int, int]], shard_size: int | None) -> Iterator[tuple[int, int, int]]:
    """Yield (contig, begin, end) of shards: each contig's rows in pieces of about one size.

    Args:
        runs: (contig, begin, end) of each contig's rows.
        shard_size: the most rows a shard may have; chosen by the number of rows if None, so that
            a small input still has work for several workers and a large one few files.
    """
    if shard_size is None:
        total = sum(end - begin for _, begin, end in runs)
        shard_size = min(max(-(-total // _SHARDS), _SMALLEST_SHARD), _LARGEST_SHARD)
    for contig, begin, end in runs:
        pieces = -(-(end - begin) // shard_size)
        edges = [begin + (end - begin) * piece // pieces for piece in range(pieces + 1)]
        for first, last in itertools.pairwise(edges):
            yield contig, first, last


def check_counts(plan: Plan, run: RunDir) -> None:
    """Refuse a plan whose counts do not add up; DataError."""
    if plan.read != plan.scorable + plan.filtered + sum(plan.skipped.values()):
        raise DataError(
            f"{run.place}: alleles read are not scored + skipped + filtered; use --overwrite"
        )


def check_files(plan: Plan, run: RunDir) -> None:
    """Refuse an earlier plan whose files changed, where the store does not see to that itself.

    Raises:
        DataError: they did; the run directory was tampered with or the disk lies.
    """
    for name, digest in plan.files.items():
        file = f"{PLAN}/{name}"
        if run.store.renames and run.store.digest(file) != digest:
            raise DataError(
                f"{run.store.shown(file)} has changed since it was written; use --overwrite"
            )
