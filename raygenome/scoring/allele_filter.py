"""Which alleles of a VCF are scored: one decision per ALT, with its reason.

Every ALT of every record is either scored, or filtered (the user asked for other records), or
skipped for one of `SKIP_REASONS`. The first reason that applies, in the order of that table, is
the one that counts.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raygenome.errors import DataError
from raygenome.genome.alleles import LOCATED, PLANNED, SKIPPED, select
from raygenome.genome.contigs import ContigMap, display_name
from raygenome.genome.fasta import Reference
from raygenome.genome.intervals import Regions
from raygenome.genome.sequence import decode, encode
from raygenome.scoring.build_check import GenomeBuildCheck
from raygenome.scoring.options import ScoreOptions
from raygenome.vcf.reader import SiteBatch

#: Why an allele is not scored, in the order in which the reasons are tried.
SKIP_REASONS = {
    "no_alt": "ALT is missing: '.', or nothing",
    "spanning_del": "ALT is '*': the allele is missing because of a deletion further up",
    "symbolic": "ALT is symbolic, such as <DEL> or <NON_REF>",
    "breakend": "ALT is a breakend, such as G]17:198982] or a single breakend '.A'",
    "bad_allele": "REF or ALT holds something other than A, C, G, T: IUPAC codes, N, '-'",
    "too_many_alleles": "beyond the 32,767th ALT of its record",
    "too_long": "REF or ALT is longer than the model's window",
    "unknown_contig": "the FASTA has no such contig under any of its usual names",
    "bad_pos": "POS is not a number, is below 1, or REF does not lie within the contig",
    "ref_mismatch": "REF is not what the FASTA has there",
}
_CODE = {reason: code for code, reason in enumerate(SKIP_REASONS, start=1)}
_REF_MISMATCH = _CODE["ref_mismatch"]

_MAX_ALLELES = 32_767
_LONGEST_REF = 1_000_000
#: The genome is compared with REF in blocks of this many bases.
_BLOCK = 1 << 20
_INT32 = np.iinfo(np.int32)


class AlleleFilter:
    """Sorts the alleles of a VCF into scored, filtered and skipped ones, and counts them.

    Args:
        reference: the genome.
        options: how REF mismatches are treated, and which FILTER values are wanted.
        header_contigs: contig lengths that the VCF header states, for messages.
        window: bases in the model's window.
        regions: the alleles that overlap these are wanted; None for all.

    Attributes:
        read: alleles seen so far.
        filtered: alleles of other records than the user asked for.
        skipped: alleles by the reason why they were skipped.
        build: the check against a wrong genome build.
    """

    def __init__(
        self,
        reference: Reference,
        options: ScoreOptions,
        header_contigs: dict[str, int | None],
        *,
        window: int,
        regions: Regions | None,
    ) -> None:
        self._reference = reference
        self._keep_mismatches = options.ref_mismatch == "keep"
        self._filters = frozenset(options.apply_filters)
        self._window = window
        self._regions = regions
        self._contigs = ContigMap(list(reference.contigs))
        self._names = self._contigs.contigs
        self._lengths = np.array([reference.contigs[name] for name in self._names], dtype=np.int64)
        self.build = GenomeBuildCheck(
            options.ref_mismatch, header_contigs, reference, self._contigs
        )
        self.read = 0
        self.filtered = 0
        self.skipped: dict[str, int] = {}

    def split(self, sites: SiteBatch) -> tuple[pa.Table | None, pa.Table]:
        """Return the SKIPPED alleles of some records, None if there are none, and the PLANNED ones.

        Raises:
            DataError: the VCF most likely belongs to another genome build.
        """
        alleles = locate(sites, self._contigs)
        self.read += alleles.num_rows
        wanted = self._wanted(alleles)
        self.filtered += int((~wanted).sum())
        alleles = _rows(alleles, wanted)
        reasons = self._skip_reasons(alleles)
        skip = reasons > 0
        planned = _planned_table(_rows(alleles, ~skip))
        if not skip.any():
            return None, planned
        names = pa.array(["", *SKIP_REASONS]).take(pa.array(reasons[skip].astype(np.int64)))
        for entry in names.value_counts():
            reason = entry["values"].as_py()
            self.skipped[reason] = self.skipped.get(reason, 0) + entry["counts"].as_py()
        return _skipped_table(_rows(alleles, skip), names), planned

    def refuse_unusable_contigs(self, contigs: list[int]) -> None:
        """Refuse contigs that are too long, or that the output could not tell apart: 1 and chr1."""
        shown: dict[str, str] = {}
        for name in (self._names[contig] for contig in contigs):
            if self._reference.contigs[name] > _INT32.max:
                raise DataError(
                    f"{self._reference.path}: {name} is longer than {_INT32.max:,} bases"
                )
            twin = shown.setdefault(display_name(name), name)
            if twin != name:
                raise DataError(
                    f"{self._reference.path} has both {twin} and {name}, which are "
                    f"{display_name(name)} in the output",
                    "use a FASTA that has one of them",
                )

    def _wanted(self, alleles: pa.Table) -> np.ndarray:
        """Return which alleles the user asked for: bool (n,)."""
        wanted = np.ones(alleles.num_rows, dtype=bool)
        if self._filters:
            wanted &= _passes_filter(alleles["filter"], self._filters)
        if self._regions is not None:
            inside = np.zeros_like(wanted)
            contig, starts = alleles["contig"].to_numpy(), alleles["start"].to_numpy()
            ends = starts + _lengths(alleles["ref"])
            for index in np.unique(contig[contig >= 0]):
                rows = np.flatnonzero(contig == index)
                inside[rows] = self._regions.overlaps(
                    self._names[int(index)], starts[rows], ends[rows]
                )
            wanted &= inside
        return wanted

    def _skip_reasons(self, alleles: pa.Table) -> np.ndarray:
        """Return the skip reason of each allele as a code: uint8 (n,), 0 where it is scored."""
        reason = np.zeros(alleles.num_rows, dtype=np.uint8)
        for why, rows in self._reasons_without_genome(alleles):
            reason[rows & (reason == 0)] = _CODE[why]
        candidates = np.flatnonzero(reason == 0)
        agrees = self._agrees_with_genome(alleles, candidates)
        self.build.update(~agrees)
        differs = candidates[~agrees]
        if self.build.stops_at_first and len(differs):
            raise self._first_mismatch(alleles, int(differs[0]))
        if not self._keep_mismatches:
            reason[differs] = _REF_MISMATCH
        return reason

    def _reasons_without_genome(self, alleles: pa.Table) -> Iterator[tuple[str, np.ndarray]]:
        """Yield (reason, alleles it applies to: bool (n,)) in the order of SKIP_REASONS."""
        ref, alt = alleles["ref"], alleles["alt"]
        yield "no_alt", _mask(pc.is_in(alt, pa.array([".", ""])))
        yield "spanning_del", _mask(pc.equal(alt, "*"))
        # A '<' alone marks a symbolic allele, so that <*>, <DEL> and a broken "<DEL" are alike.
        yield "symbolic", _mask(pc.starts_with(alt, "<"))
        yield "breakend", _mask(pc.match_substring_regex(alt, r"[\[\]]|^\.|\.$"))
        plain = pc.and_(
            pc.match_substring_regex(alt, "^[ACGT]+$"), pc.match_substring_regex(ref, "^[ACGT]+$")
        )
        yield "bad_allele", ~_mask(plain)
        yield "too_many_alleles", alleles["allele"].to_numpy() > _MAX_ALLELES
        ref_length = _lengths(ref)
        yield "too_long", np.maximum(_lengths(alt), ref_length) > self._window
        contig, start = alleles["contig"].to_numpy(), alleles["start"].to_numpy()
        yield "unknown_contig", contig < 0
        contig_end = self._lengths[np.maximum(contig, 0)]
        yield "bad_pos", (start < 0) | (start + ref_length > contig_end)

    def _agrees_with_genome(self, alleles: pa.Table, rows: np.ndarray) -> np.ndarray:
        """Return, for the alleles `rows`, whether the genome has their REF: bool (len(rows),)."""
        agrees = np.zeros(len(rows), dtype=bool)
        contig, start = alleles["contig"].to_numpy()[rows], alleles["start"].to_numpy()[rows]
        refs = alleles["ref"].combine_chunks().take(pa.array(rows))
        first_base, length = _first_bases(refs), _lengths(refs)
        # One fetch serves all alleles of a block, whatever the order of the input.
        block = contig.astype(np.int64) << 40 | start // _BLOCK
        order = np.argsort(block, kind="stable")
        cuts = np.flatnonzero(np.diff(block[order])) + 1
        for group in np.split(order, cuts):
            if len(group) == 0:
                continue
            origin = int(start[group].min())
            end = int((start[group] + length[group]).max())
            bases = self._reference.fetch(self._names[int(contig[group[0]])], origin, end)
            agrees[group] = bases[start[group] - origin] == first_base[group]
            for row in group[agrees[group] & (length[group] > 1)]:
                codes = encode(refs[int(row)].as_py())
                at = start[row] - origin
                agrees[row] = np.array_equal(bases[at : at + len(codes)], codes)
        return agrees

    def _first_mismatch(self, alleles: pa.Table, row: int) -> DataError:
        """Return the error for an allele whose REF differs from the genome."""
        chrom, contig, start, ref = (
            alleles[name][row].as_py() for name in ("chrom", "contig", "start", "ref")
        )
        found = decode(self._reference.fetch(self._names[contig], start, start + len(ref)))
        return self.build.first(chrom, start + 1, ref, found)


def locate(sites: SiteBatch, contigs: ContigMap) -> pa.Table:
    """Return the alleles of some records as LOCATED rows, under the FASTA's contigs.

    There is one row for each ALT of each record; a missing ALT is one row too. A REF of more than
    a million letters, which is too long for any model, is cut to a million and one, because it is
    repeated for each ALT.
    """
    ref = sites.ref
    if (pc.max(pc.binary_length(ref)).as_py() or 0) > _LONGEST_REF:
        ref = pc.utf8_slice_codeunits(ref, 0, _LONGEST_REF + 1)
    alts = pc.split_pattern(sites.alt, ",")
    parent = pc.list_parent_indices(alts)  # for each ALT, the index of its record in `sites`
    index = parent.to_numpy(zero_copy_only=False).astype(np.int64)
    first = np.flatnonzero(np.diff(index, prepend=-1))
    allele = np.arange(len(index)) - np.repeat(first, np.diff(first, append=len(index))) + 1
    pos = pc.fill_null(sites.pos, 0).to_numpy(zero_copy_only=False)[index]
    ref, alt = ref.take(parent), pc.list_flatten(alts)
    columns = {
        "chrom": sites.chrom.take(parent),
        "pos": pa.array(pos),
        "id": sites.id.take(parent),
        "filter": sites.filter.take(parent),
        "record": pa.array(sites.first_record + index),
        "allele": pa.array(allele),
        "given_ref": ref,
        "given_alt": alt,
        "contig": _contig_indices(sites.chrom, contigs).take(parent),
        "start": pa.array(pos - 1),
        "ref": pc.ascii_upper(ref),
        "alt": pc.ascii_upper(alt),
    }
    return select(LOCATED, columns)


def _contig_indices(chrom: pa.StringArray, contigs: ContigMap) -> pa.Int32Array:
    """Return the index in the FASTA of each name, -1 where it has no such contig."""
    order = {name: index for index, name in enumerate(contigs.contigs)}
    encoded = pc.dictionary_encode(chrom)
    resolved = [contigs.resolve(name) for name in encoded.dictionary.to_pylist()]
    known = [-1 if name is None else order[name] for name in resolved]
    return pa.array(known, pa.int32()).take(encoded.indices)


def _rows(alleles: pa.Table, mask: np.ndarray) -> pa.Table:
    """Return the rows of `alleles` where `mask` is true."""
    return alleles if mask.all() else alleles.filter(pa.array(mask))


def _skipped_table(alleles: pa.Table, reasons: pa.Array) -> pa.Table:
    pos = np.clip(alleles["pos"].to_numpy(), _INT32.min, _INT32.max)
    names = alleles["chrom"].to_pylist()
    shown = {name: display_name(name) for name in set(names)}
    columns = {
        "chrom": pa.array([shown[name] for name in names], pa.string()),
        "pos": pa.array(pos.astype(np.int32)),
        "ref": alleles["given_ref"],
        "alt": alleles["given_alt"],
        "allele": alleles["allele"].cast(pa.int32()),
        "reason": reasons,
    }
    return select(SKIPPED, columns, alleles)


def _planned_table(alleles: pa.Table) -> pa.Table:
    # Not checked here: contigs too long for 32 bits are refused when the whole input is read.
    return alleles.select(PLANNED.names).cast(PLANNED, safe=False)


def _passes_filter(column: pa.ChunkedArray, wanted: frozenset[str]) -> np.ndarray:
    """Return whether FILTER holds any of `wanted`, as `bcftools -f` does ('.' is missing)."""
    encoded = pc.dictionary_encode(column.combine_chunks())
    passes = [not wanted.isdisjoint(value.split(";")) for value in encoded.dictionary.to_pylist()]
    return _mask(pa.array(passes, pa.bool_()).take(encoded.indices))


def _mask(values: pa.Array | pa.ChunkedArray) -> np.ndarray:
    return np.asarray(values, dtype=bool)


def _lengths(strings: pa.Array | pa.ChunkedArray) -> np.ndarray:
    return np.asarray(pc.binary_length(strings), dtype=np.int64)


def _first_bases(strings: pa.StringArray) -> np.ndarray:
    """Return the code of each string's first letter; the strings are not empty."""
    if len(strings) == 0:
        return np.empty(0, dtype=np.uint8)
    _, offsets, data = strings.buffers()
    starts = np.frombuffer(offsets, dtype=np.int32)[strings.offset : strings.offset + len(strings)]
    return encode(np.frombuffer(data, dtype=np.uint8)[starts].tobytes())
