"""The plan: a VCF read once, its alleles checked, sorted and cut into shards.

Reading is strict and comes first: what is wrong with the input shows before any work is committed.
The alleles that can be scored are spooled to one Arrow file in the run directory, in the order of
the FASTA's contigs, then position, REF, ALT, record, allele; a shard is a range of its rows.
Workers read their rows from there and never parse the VCF again, whatever kind of input it was.

The plan is a pure function of the input and the options. It appears in one rename.
"""

import dataclasses
import itertools
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raygenome.errors import DataError
from raygenome.genome.contigs import ContigMap, display_name
from raygenome.genome.fasta import Reference
from raygenome.genome.sequence import decode
from raygenome.results.effects import SKIPPED
from raygenome.results.rundir import RunDir, Shard, file_sha256, sync_folder
from raygenome.scoring.spool import Spool
from raygenome.variants.alleles import (
    AlleleBatch,
    Located,
    Screen,
    locate,
    passes_filter,
    reason_names,
    split_records,
)
from raygenome.variants.mismatch import MismatchGuard
from raygenome.variants.regions import Regions
from raygenome.variants.vcf import open_vcf

#: The alleles to score, a spool.
ALLELES_FILE = "alleles.arrow"
#: The skipped alleles, as Parquet under a name that no glob takes for a finished table.
SKIPPED_FILE = "skipped.draft"

_Columns = TypeVar("_Columns", AlleleBatch, Located)

#: Bounds of the shard size that is chosen where none is asked for.
_SMALLEST_SHARD, _LARGEST_SHARD, _SHARDS = 1_024, 65_536, 256


@dataclass(frozen=True)
class Plan:
    """What a run will do, and what planning it found."""

    shards: list[Shard]
    read: int
    filtered: int
    skipped: dict[str, int]
    mismatched: int
    records: int
    blank_lines: int
    vcf_sha256: str
    vcf_bytes: int
    files: dict[str, str]

    @property
    def scorable(self) -> int:
        """How many alleles will be scored."""
        return sum(shard.rows for shard in self.shards)


@dataclass(frozen=True)
class PlanOptions:
    """What decides which alleles are scored and how they are cut."""

    width: int
    ref_mismatch: str = "skip"
    regions: Regions | None = None
    filters: frozenset[str] | None = None
    shard_size: int | None = None


def make_plan(vcf: str, reference: Reference, options: PlanOptions, run: RunDir) -> Plan:
    """Read `vcf` ("-" is standard input) and leave its plan in the run directory.

    Raises:
        DataError: the input is damaged, or most likely belongs to another genome build.
        NoInput: there is none.
    """
    draft = run.work / "plan.tmp"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    plan = _read(vcf, reference, options, draft)
    document = dataclasses.asdict(plan)
    (draft / "plan.json").write_text(json.dumps(document) + "\n")
    for file in draft.iterdir():
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
    sync_folder(draft)
    shutil.rmtree(run.plan, ignore_errors=True)
    os.replace(draft, run.plan)
    sync_folder(run.work)
    return plan


def load_plan(run: RunDir) -> Plan | None:
    """Return the plan that an earlier, interrupted run left, if it got so far."""
    path = run.plan / "plan.json"
    if not path.exists():
        return None
    document: dict[str, Any] = json.loads(path.read_text())
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


def _read(vcf: str, reference: Reference, options: PlanOptions, folder: Path) -> Plan:
    contigs = ContigMap(list(reference.contigs))
    screen = Screen(
        reference, contigs, width=options.width, check_reference=options.ref_mismatch != "keep"
    )
    tally = _Tally()
    skipped_path = folder / SKIPPED_FILE
    with (
        open_vcf(vcf) as reader,
        Spool(folder / ALLELES_FILE, folder) as spool,
        pq.ParquetWriter(
            skipped_path, SKIPPED, compression="zstd", write_page_checksum=True
        ) as out,
    ):
        guard = MismatchGuard(options.ref_mismatch, reader.header.contigs, reference, contigs)
        for sites in reader:
            alleles = split_records(sites)
            located = locate(alleles, contigs)
            tally.read += len(alleles.record)
            wanted = _wanted(alleles, located, contigs, options)
            tally.filtered += int((~wanted).sum())
            alleles, located = _rows(alleles, wanted), _rows(located, wanted)
            reasons = screen.reasons(alleles, located, guard.update)
            if guard.stops_at_first:
                _refuse_mismatch(alleles, located, reasons, guard, reference, contigs)
            skip = reasons > 0
            if skip.any():
                out.write_table(_skipped_table(_rows(alleles, skip), reasons[skip], tally))
            spool.append(_spool_table(_rows(alleles, ~skip), _rows(located, ~skip)))
        guard.finish()
        runs = spool.finish()
    _refuse_lookalikes([contigs.contigs[contig] for contig, _, _ in runs], reference)
    shards = [
        Shard(index, contigs.contigs[contig], display_name(contigs.contigs[contig]), begin, end)
        for index, (contig, begin, end) in enumerate(cut(runs, options.shard_size))
    ]
    return Plan(
        shards=shards,
        read=tally.read,
        filtered=tally.filtered,
        skipped=dict(sorted(tally.skipped.items())),
        mismatched=guard.mismatched,
        records=reader.records,
        blank_lines=reader.blank_lines,
        vcf_sha256=reader.digest,
        vcf_bytes=reader.size,
        files={name: file_sha256(folder / name) for name in (ALLELES_FILE, SKIPPED_FILE)},
    )


def _refuse_lookalikes(names: list[str], reference: Reference) -> None:
    """Refuse contigs that the output could not tell apart, such as `1` beside `chr1`."""
    shown: dict[str, str] = {}
    for name in names:
        twin = shown.setdefault(display_name(name), name)
        if twin != name:
            raise DataError(
                f"{reference.path} has both {twin} and {name}, which are {display_name(name)} "
                "in the output; use a FASTA that has one of them"
            )


def _refuse_mismatch(
    alleles: AlleleBatch,
    located: Located,
    reasons: np.ndarray,
    guard: MismatchGuard,
    reference: Reference,
    contigs: ContigMap,
) -> None:
    """Stop at the first allele whose REF differs from the genome."""
    (rows,) = np.nonzero(reason_names(reasons).to_numpy(zero_copy_only=False) == "ref_mismatch")
    if len(rows):
        row = int(rows[0])
        ref = located.ref[row].as_py()
        start = int(located.start[row])
        found = reference.fetch(contigs.contigs[int(located.contig[row])], start, start + len(ref))
        raise guard.first(alleles.chrom[row].as_py(), start + 1, ref, decode(found))


class _Tally:
    """Counts, in alleles."""

    def __init__(self) -> None:
        self.read = 0
        self.filtered = 0
        self.skipped: dict[str, int] = {}


def _wanted(
    alleles: AlleleBatch, located: Located, contigs: ContigMap, options: PlanOptions
) -> np.ndarray:
    """Return which alleles the user asked for: bool (n,)."""
    wanted = np.ones(len(alleles.record), dtype=bool)
    if options.filters is not None:
        wanted &= passes_filter(alleles, options.filters)
    if options.regions is not None:
        inside = np.zeros_like(wanted)
        lengths = np.array([len(ref) for ref in located.ref.to_pylist()], dtype=np.int64)
        for contig in np.unique(located.contig[located.contig >= 0]):
            rows = np.flatnonzero(located.contig == contig)
            start = located.start[rows]
            inside[rows] = options.regions.overlaps(
                contigs.contigs[int(contig)], start, start + lengths[rows]
            )
        wanted &= inside
    return wanted


def _rows(columns: _Columns, mask: np.ndarray) -> _Columns:
    """Return the entries of `columns` where `mask` is true."""
    where = pa.array(mask)
    return type(columns)._make(
        column[mask] if isinstance(column, np.ndarray) else column.filter(where)
        for column in columns
    )


def _skipped_table(alleles: AlleleBatch, reasons: np.ndarray, tally: _Tally) -> pa.Table:
    names = reason_names(reasons)
    for entry in names.value_counts():
        reason = entry["values"].as_py()
        tally.skipped[reason] = tally.skipped.get(reason, 0) + entry["counts"].as_py()
    in_int32 = np.clip(alleles.pos, np.iinfo(np.int32).min, np.iinfo(np.int32).max)
    shown = {name: display_name(name) for name in alleles.chrom.unique().to_pylist()}
    return pa.table(
        [
            pa.array([shown[name] for name in alleles.chrom.to_pylist()], pa.string()),
            pa.array(in_int32.astype(np.int32)),
            alleles.id,
            alleles.ref,
            alleles.alt,
            pa.array(alleles.record),
            pa.array(alleles.allele.astype(np.int32)),
            names,
        ],
        schema=SKIPPED,
    )


def _spool_table(alleles: AlleleBatch, located: Located) -> pa.Table:
    return pa.table(
        {
            "contig": pa.array(located.contig),
            "start": pa.array(located.start.astype(np.int32)),
            "id": alleles.id,
            "ref": located.ref,
            "alt": located.alt,
            "record": pa.array(alleles.record),
            "allele": pa.array(alleles.allele.astype(np.int16)),
        }
    )


def check_plan(plan: Plan, folder: Path) -> None:
    """Refuse a plan whose counts do not add up or whose files changed.

    Raises:
        DataError: they do not; the run directory was tampered with or the disk lies.
    """
    if plan.read != plan.scorable + plan.filtered + sum(plan.skipped.values()):
        raise DataError(
            f"{folder}: alleles read are not scored + skipped + filtered; use --overwrite"
        )
    for name, digest in plan.files.items():
        if file_sha256(folder / name) != digest:
            raise DataError(f"{folder / name} has changed since it was written; use --overwrite")
