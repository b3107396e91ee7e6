"""Reading a VCF for a plan: each allele judged once, spooled to be scored or listed as skipped."""

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raygenome.errors import DataError
from raygenome.genome.contigs import ContigMap, display_name
from raygenome.genome.fasta import Reference
from raygenome.genome.intervals import Regions
from raygenome.genome.sequence import decode
from raygenome.scoring.allele_file import Spool
from raygenome.scoring.allele_filter import (
    AlleleBatch,
    Located,
    Screen,
    locate,
    passes_filter,
    reason_names,
    split_records,
)
from raygenome.scoring.build_check import MismatchGuard
from raygenome.scoring.part_file import SKIPPED
from raygenome.vcf.reader import Selection, SiteBatch, open_vcf

#: The alleles to score, a spool.
ALLELES_FILE = "alleles.arrow"
#: The skipped alleles, as Parquet under a name that no glob takes for a finished table.
SKIPPED_FILE = "skipped.draft"

#: Positions and row numbers are 32-bit integers in the files of a run.
_INT32 = 2**31 - 1

_Columns = TypeVar("_Columns", AlleleBatch, Located)


@dataclass(frozen=True)
class PlanOptions:
    """What decides which alleles are scored and how they are cut."""

    width: int
    ref_mismatch: str = "skip"
    regions: Regions | None = None
    filters: frozenset[str] | None = None
    shard_size: int | None = None


@dataclass(frozen=True)
class Ingested:
    """What reading found; counts are in alleles, but for `records` and `blank_lines`.

    `vcf_version` is `rawinput.input_version`, as the input was opened. Where `vcf_ranged`, digest
    and bytes are of the text of the regions alone, read through an index.
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


def ingest(
    vcf: str, reference: Reference, options: PlanOptions, folder: Path
) -> tuple[Ingested, list[tuple[int, int, int]]]:
    """Read `vcf` to its end and leave ALLELES_FILE and SKIPPED_FILE in `folder`.

    Returns:
        What was found, and where each contig lies in ALLELES_FILE: (FASTA index, begin, end).

    Raises:
        DataError: the input is damaged, most likely belongs to another genome build, or has more
            than a run can hold.
        NoInput: there is none.
    """
    contigs = ContigMap(list(reference.contigs))
    only = None if options.regions is None else Selection(options.regions, contigs.resolve)
    with (
        open_vcf(vcf, only=only) as reader,
        Spool(folder / ALLELES_FILE, folder) as spool,
        pq.ParquetWriter(
            folder / SKIPPED_FILE, SKIPPED, compression="zstd", write_page_checksum=True
        ) as out,
    ):
        judge = _Judge(reference, options, reader.header.contigs)
        for sites in reader:
            skipped, kept = judge.sort_out(sites)
            if skipped is not None:
                out.write_table(skipped)
            spool.append(kept)
        judge.guard.finish()
        runs = spool.finish()
    judge.refuse_unfit([contig for contig, _, _ in runs])
    if runs and runs[-1][2] > _INT32:
        raise DataError(f"{runs[-1][2]:,} alleles to score; split the VCF: a run holds {_INT32:,}")
    found = Ingested(
        read=judge.read,
        filtered=judge.filtered,
        skipped=dict(sorted(judge.skipped.items())),
        mismatched=judge.guard.mismatched,
        records=reader.records,
        blank_lines=reader.blank_lines,
        vcf_sha256=reader.digest,
        vcf_bytes=reader.size,
        vcf_version=reader.version,
        vcf_ranged=reader.ranged,
    )
    return found, runs


class _Judge:
    """Decides each allele's fate, and counts."""

    def __init__(
        self, reference: Reference, options: PlanOptions, header_contigs: dict[str, int | None]
    ) -> None:
        self._reference = reference
        self._options = options
        self._contigs = ContigMap(list(reference.contigs))
        check = options.ref_mismatch != "keep"
        self._screen = Screen(reference, self._contigs, width=options.width, check_reference=check)
        self.guard = MismatchGuard(options.ref_mismatch, header_contigs, reference, self._contigs)
        self.read = 0
        self.filtered = 0
        self.skipped: dict[str, int] = {}

    def sort_out(self, sites: SiteBatch) -> tuple[pa.Table | None, pa.Table]:
        """Return the skipped alleles of some records, None where none is, and those to score."""
        alleles = split_records(sites)
        located = locate(alleles, self._contigs)
        self.read += len(alleles.record)
        wanted = self._wanted(alleles, located)
        self.filtered += int((~wanted).sum())
        alleles, located = _rows(alleles, wanted), _rows(located, wanted)
        reasons = self._screen.reasons(alleles, located, self.guard.update)
        if self.guard.stops_at_first:
            self._refuse_mismatch(alleles, located, reasons)
        skip = reasons > 0
        kept = _spool_table(_rows(alleles, ~skip), _rows(located, ~skip))
        if not skip.any():
            return None, kept
        names = reason_names(reasons[skip])
        for entry in names.value_counts():
            reason = entry["values"].as_py()
            self.skipped[reason] = self.skipped.get(reason, 0) + entry["counts"].as_py()
        return _skipped_table(_rows(alleles, skip), names), kept

    def _wanted(self, alleles: AlleleBatch, located: Located) -> np.ndarray:
        """Return which alleles the user asked for: bool (n,)."""
        wanted = np.ones(len(alleles.record), dtype=bool)
        if self._options.filters is not None:
            wanted &= passes_filter(alleles, self._options.filters)
        if self._options.regions is not None:
            inside = np.zeros_like(wanted)
            lengths = pc.binary_length(located.ref).to_numpy(zero_copy_only=False).astype(np.int64)
            for contig in np.unique(located.contig[located.contig >= 0]):
                rows = np.flatnonzero(located.contig == contig)
                start = located.start[rows]
                inside[rows] = self._options.regions.overlaps(
                    self._contigs.contigs[int(contig)], start, start + lengths[rows]
                )
            wanted &= inside
        return wanted

    def _refuse_mismatch(self, alleles: AlleleBatch, located: Located, reasons: np.ndarray) -> None:
        """Stop at the first allele whose REF differs from the genome."""
        names = reason_names(reasons).to_numpy(zero_copy_only=False)
        (rows,) = np.nonzero(names == "ref_mismatch")
        if len(rows):
            row = int(rows[0])
            ref = located.ref[row].as_py()
            start = int(located.start[row])
            name = self._contigs.contigs[int(located.contig[row])]
            found = decode(self._reference.fetch(name, start, start + len(ref)))
            raise self.guard.first(alleles.chrom[row].as_py(), start + 1, ref, found)

    def refuse_unfit(self, contigs: list[int]) -> None:
        """Refuse contigs that the output could not hold, or not tell apart, as `1` and `chr1`."""
        shown: dict[str, str] = {}
        for name in (self._contigs.contigs[contig] for contig in contigs):
            if self._reference.contigs[name] > _INT32:
                raise DataError(f"{self._reference.path}: {name} is longer than {_INT32:,} bases")
            twin = shown.setdefault(display_name(name), name)
            if twin != name:
                raise DataError(
                    f"{self._reference.path} has both {twin} and {name}, which are "
                    f"{display_name(name)} in the output; use a FASTA that has one of them"
                )


def _rows(columns: _Columns, mask: np.ndarray) -> _Columns:
    """Return the entries of `columns` where `mask` is true."""
    where = pa.array(mask)
    return type(columns)._make(
        column[mask] if isinstance(column, np.ndarray) else column.filter(where)
        for column in columns
    )


def _skipped_table(alleles: AlleleBatch, reasons: pa.Array) -> pa.Table:
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
            reasons,
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
