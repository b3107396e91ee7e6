"""The plan: a VCF read once, its alleles checked, sorted and cut into shards.

Reading is strict and comes first, so that a bad input shows before any work is committed. The
alleles that can be scored are written to one Arrow file in the run directory, in the order of the
FASTA's contigs, then position, REF, ALT, record, allele. A shard is a range of its rows. Workers
read their rows from there and never parse the VCF again, whatever kind of input it was.

The plan is a pure function of the input and the options. It is committed in one step.
"""

import dataclasses
import hashlib
import itertools
import json
import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from raygenome.errors import DataError
from raygenome.genome.alleles import SKIPPED, Shard
from raygenome.genome.contigs import ContigMap, display_name
from raygenome.genome.fasta import Reference
from raygenome.genome.intervals import Regions
from raygenome.results.run_dir import PLAN, RunDir
from raygenome.scoring.allele_file import PlannedAllelesWriter
from raygenome.scoring.allele_filter import AlleleFilter
from raygenome.scoring.options import ScoreOptions
from raygenome.storage.bucket import is_remote
from raygenome.storage.files import file_sha256
from raygenome.vcf.reader import (
    Selection,
    VcfReader,
    input_version,
    open_vcf,
)

#: The planned alleles, see `allele_file`.
ALLELES_FILE = "alleles.arrow"
#: The skipped alleles, as Parquet under a name that no glob takes for a finished table.
SKIPPED_FILE = "skipped.draft"
_IDENTITY_FILE = "identity.json"
#: What the run is, see `inputs.run_identity`.
IDENTITY = f"{PLAN}/{_IDENTITY_FILE}"

#: Version of plan.json.
_FORMAT = 1
#: Bounds of the shard size that is chosen if none is asked for, and the number of shards wanted.
_SMALLEST_SHARD, _LARGEST_SHARD, _SHARDS = 4_096, 65_536, 256
#: Positions and row numbers are 32-bit integers in the files of a run.
_MOST_ALLELES = 2**31 - 1


@dataclass(frozen=True)
class Plan:
    """The plan of a run, and the counts of planning.

    Attributes:
        read: alleles in the input; so are `filtered`, `skipped` (by reason) and `mismatched`.
        records: VCF records.
        blank_lines: blank lines of the VCF, which are ignored.
        vcf_sha256: the digest of the input, or of the text of the regions if `vcf_ranged`.
        vcf_bytes: its size.
        vcf_version: `vcf_version` of the input as it was opened.
        vcf_ranged: whether only the regions of a remote VCF were read, through its index.
        files: the SHA-256 of the plan's files, by name.
    """

    read: int
    filtered: int
    skipped: dict[str, int]
    mismatched: int
    records: int
    blank_lines: int
    vcf_sha256: str
    vcf_bytes: int
    vcf_version: str | None
    vcf_ranged: bool
    shards: list[Shard]
    files: dict[str, str]

    @property
    def scorable(self) -> int:
        """How many alleles will be scored."""
        return sum(shard.rows for shard in self.shards)


def make_plan(
    vcf: str,
    reference: Reference,
    run: RunDir,
    options: ScoreOptions,
    *,
    window: int,
    regions: Regions | None = None,
) -> Plan:
    """Read `vcf` ("-" is standard input) and leave a draft of its plan in the run directory.

    Existing files are not touched; `commit_plan` makes the draft the plan.

    Args:
        vcf: a path, a URL, or "-".
        reference: the genome.
        run: the run directory.
        options: which alleles are scored, and the size of shards.
        window: bases in the model's window.
        regions: score only alleles that overlap these; None for all.

    Raises:
        DataError: the input is damaged, most likely belongs to another genome build, or has more
            alleles than a run can hold.
        NoInput: there is no such input.
    """
    draft = run.draft
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    names = list(reference.contigs)
    only = None if regions is None else Selection(regions, ContigMap(names).resolve)
    version = vcf_version(vcf)
    with open_vcf(vcf, only=only) as reader:
        alleles = AlleleFilter(
            reference, options, reader.header.contigs, window=window, regions=regions
        )
        ranges = _write_alleles(reader, alleles, draft)
    alleles.refuse_unusable_contigs([contig for contig, _, _ in ranges])
    if ranges and ranges[-1][2] > _MOST_ALLELES:
        raise DataError(
            f"{ranges[-1][2]:,} alleles to score; a run holds {_MOST_ALLELES:,}", "split the VCF"
        )
    plan = Plan(
        read=alleles.read,
        filtered=alleles.filtered,
        skipped=dict(sorted(alleles.skipped.items())),
        mismatched=alleles.build.mismatched,
        records=reader.records,
        blank_lines=reader.blank_lines,
        vcf_sha256=reader.digest,
        vcf_bytes=reader.size,
        vcf_version=reader.version or version,
        vcf_ranged=reader.ranged,
        shards=[
            Shard(index, names[contig], display_name(names[contig]), begin, end)
            for index, (contig, begin, end) in enumerate(cut(ranges, options.shard_size))
        ],
        files={name: file_sha256(draft / name) for name in (ALLELES_FILE, SKIPPED_FILE)},
    )
    _check_counts(plan, run)
    document = {"format": _FORMAT, **dataclasses.asdict(plan)}
    (draft / "plan.json").write_text(json.dumps(document) + "\n")
    return plan


def _write_alleles(
    reader: VcfReader, alleles: AlleleFilter, folder: Path
) -> list[tuple[int, int, int]]:
    """Write ALLELES_FILE and SKIPPED_FILE; return (contig, begin, end) of each contig's rows."""
    with (
        PlannedAllelesWriter(folder / ALLELES_FILE, folder) as planned_file,
        pq.ParquetWriter(
            folder / SKIPPED_FILE, SKIPPED, compression="zstd", write_page_checksum=True
        ) as skipped_file,
    ):
        for sites in reader:
            skipped, planned = alleles.split(sites)
            if skipped is not None:
                skipped_file.write_table(skipped)
            planned_file.append(planned)
        alleles.build.finish()
        return planned_file.finish()


def cut(
    ranges: list[tuple[int, int, int]], shard_size: int | None
) -> Iterator[tuple[int, int, int]]:
    """Yield (contig, begin, end) of shards: each contig's rows in pieces of about one size.

    Args:
        ranges: (contig, begin, end) of each contig's rows.
        shard_size: the most rows per shard. None chooses by the number of rows, so that a small
            input still has work for several workers and a large one has few files.
    """
    if shard_size is None:
        total = sum(end - begin for _, begin, end in ranges)
        shard_size = min(max(-(-total // _SHARDS), _SMALLEST_SHARD), _LARGEST_SHARD)
    for contig, begin, end in ranges:
        pieces = -(-(end - begin) // shard_size)
        edges = [begin + (end - begin) * piece // pieces for piece in range(pieces + 1)]
        for first, last in itertools.pairwise(edges):
            yield contig, first, last


def vcf_version(vcf: str) -> str | None:
    """Return a text that changes whenever the content of `vcf` does; None if nothing tells.

    For a local file it is made of what the file system keeps: any write to the file, or another
    file in its place, changes one of these numbers. So may a harmless `chmod`.
    """
    if is_remote(vcf):
        return input_version(vcf)
    try:
        found = os.stat(vcf)
    except OSError:
        return None
    if vcf == "-" or not stat.S_ISREG(found.st_mode):
        return None
    return (
        f"{found.st_size} bytes, inode {found.st_ino}, "
        f"modified {found.st_mtime_ns}, changed {found.st_ctime_ns}"
    )


def commit_plan(run: RunDir, identity: dict[str, Any]) -> None:
    """Make the draft the run's plan and store `identity` with it, in one step; set the run's key.

    Args:
        run: the run directory.
        identity: `inputs.run_identity`.
    """
    run.key = run_key(identity)
    (run.draft / _IDENTITY_FILE).write_text(json.dumps(identity) + "\n")
    run.commit_plan()


def run_key(identity: dict[str, Any]) -> str:
    """Return the key of a run; all runs with the same identity have the same key."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def load_plan(run: RunDir) -> Plan | None:
    """Return the plan that an earlier, interrupted run committed; None if there is none.

    Raises:
        DataError: it is damaged, its counts do not add up, or its files have changed.
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
            f"{run.store.shown(name)} is damaged or was written by another version of raygenome",
            "use --overwrite",
        )
    shards = [Shard(**shard) for shard in document.pop("shards")]
    plan = Plan(shards=shards, **document)
    _check_counts(plan, run)
    for file, digest in plan.files.items():
        path = f"{PLAN}/{file}"
        # An object store checks by itself that what it returns is what was written.
        if run.store.renames and run.store.digest(path) != digest:
            raise DataError(
                f"{run.store.shown(path)} has changed since it was written", "use --overwrite"
            )
    return plan


def _check_counts(plan: Plan, run: RunDir) -> None:
    if plan.read != plan.scorable + plan.filtered + sum(plan.skipped.values()):
        raise DataError(
            f"{run.place}: alleles read are not scored + skipped + filtered", "use --overwrite"
        )
