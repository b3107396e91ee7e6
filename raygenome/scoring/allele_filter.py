"""Alleles of VCF records: splitting records, and deciding which alleles can be scored.

Every ALT of every record gets exactly one fate: scored, filtered (the user asked for other
records), or skipped with one of the reasons in `SKIP_REASONS`. The first that applies, in the
order of that table, is the reason.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raygenome.genome.contigs import ContigMap
from raygenome.genome.fasta import Reference
from raygenome.genome.sequence import encode
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
MAX_ALLELES = 32_767

_LONGEST_REF = 1_000_000
#: The genome is compared with REF in stretches of this many bases.
_STRETCH = 1 << 20


class AlleleBatch(NamedTuple):
    """Alleles in input order, one entry each; arrays of equal length.

    `record` int64 is the 0-based number of the record, `allele` int64 the 1-based number of the
    ALT. `chrom`, `id`, `ref`, `alt` are Arrow strings as in the file. `pos` is int64 as in the
    file (1-based), 0 where it is no number. `filter` is the FILTER column.
    """

    record: np.ndarray
    allele: np.ndarray
    chrom: pa.StringArray
    pos: np.ndarray
    id: pa.StringArray
    ref: pa.StringArray
    alt: pa.StringArray
    filter: pa.StringArray


class Located(NamedTuple):
    """Alleles with their place in the genome.

    `contig` int32 is the contig's index in the FASTA, -1 if there is none; `start` int64 is the
    0-based position of the first REF base; `ref` and `alt` are upper case.
    """

    contig: np.ndarray
    start: np.ndarray
    ref: pa.StringArray
    alt: pa.StringArray


def split_records(sites: SiteBatch) -> AlleleBatch:
    """Return one entry for each ALT of each record; a missing ALT is one entry too.

    A REF of more than a million letters, which no model can be shown, is cut to a million and one:
    it is repeated for each ALT.
    """
    ref = sites.ref
    if (pc.max(pc.binary_length(ref)).as_py() or 0) > _LONGEST_REF:
        ref = pc.utf8_slice_codeunits(ref, 0, _LONGEST_REF + 1)
    lists = pc.split_pattern(sites.alt, ",")
    parent = pc.list_parent_indices(lists)
    index = parent.to_numpy(zero_copy_only=False).astype(np.int64)
    first = np.flatnonzero(np.diff(index, prepend=-1))
    allele = np.arange(len(index)) - np.repeat(first, np.diff(first, append=len(index))) + 1
    pos = pc.fill_null(sites.pos, 0).to_numpy(zero_copy_only=False)
    return AlleleBatch(
        record=sites.first_record + index,
        allele=allele,
        chrom=sites.chrom.take(parent),
        pos=pos[index],
        id=sites.id.take(parent),
        ref=ref.take(parent),
        alt=pc.list_flatten(lists),
        filter=sites.filter.take(parent),
    )


def locate(alleles: AlleleBatch, contigs: ContigMap) -> Located:
    """Return where `alleles` lie, under the FASTA's own names, with their bases in upper case."""
    order = {name: index for index, name in enumerate(contigs.contigs)}
    encoded = pc.dictionary_encode(alleles.chrom)
    resolved = [contigs.resolve(name) for name in encoded.dictionary.to_pylist()]
    known = np.array([-1 if name is None else order[name] for name in resolved], dtype=np.int32)
    indices = encoded.indices.to_numpy(zero_copy_only=False)
    return Located(
        contig=known[indices] if len(indices) else np.empty(0, np.int32),
        start=alleles.pos - 1,
        ref=pc.ascii_upper(alleles.ref),
        alt=pc.ascii_upper(alleles.alt),
    )


class Screen:
    """Decides which located alleles can be scored.

    Args:
        reference: the genome.
        contigs: its names.
        width: the model's window, in bases.
        check_reference: whether a REF that differs from the genome is a reason to skip.
    """

    def __init__(
        self, reference: Reference, contigs: ContigMap, *, width: int, check_reference: bool
    ) -> None:
        self._reference = reference
        self._names = contigs.contigs
        self._lengths = np.array(
            [reference.contigs[name] for name in contigs.contigs], dtype=np.int64
        )
        self._width = width
        self._check_reference = check_reference

    def reasons(
        self, alleles: AlleleBatch, located: Located, on_checked: Callable[[np.ndarray], None]
    ) -> np.ndarray:
        """Return each allele's skip reason as a code: uint8 (n,), 0 where it can be scored.

        `on_checked` is told, in input order, which of the alleles that were compared with the
        genome differ from it (bool array), also where such alleles are kept.
        """
        reason = np.zeros(len(alleles.record), dtype=np.uint8)

        def skip(rows: np.ndarray, why: str) -> None:
            reason[rows & (reason == 0)] = _CODE[why]

        for why, rows in self._unusable_bases(alleles, located):
            skip(rows, why)
        skip(located.contig < 0, "unknown_contig")
        ref_length = _lengths(located.ref)
        end_of_contig = self._lengths[np.maximum(located.contig, 0)]
        skip((located.start < 0) | (located.start + ref_length > end_of_contig), "bad_pos")

        candidates = np.flatnonzero(reason == 0)
        differs = ~self._agrees(located, candidates)
        on_checked(differs)
        if self._check_reference:
            reason[candidates[differs]] = _CODE["ref_mismatch"]
        return reason

    def _unusable_bases(
        self, alleles: AlleleBatch, located: Located
    ) -> Iterator[tuple[str, np.ndarray]]:
        alt = located.alt
        yield "no_alt", _mask(pc.is_in(alt, pa.array([".", ""])))
        yield "spanning_del", _mask(pc.equal(alt, "*"))
        # A '<' alone marks a symbolic allele, so that <*>, <DEL> and a broken "<DEL" are alike.
        yield "symbolic", _mask(pc.starts_with(alt, "<"))
        yield "breakend", _mask(pc.match_substring_regex(alt, r"[\[\]]|^\.|\.$"))
        plain = pc.and_(
            pc.match_substring_regex(alt, "^[ACGT]+$"),
            pc.match_substring_regex(located.ref, "^[ACGT]+$"),
        )
        yield "bad_allele", ~_mask(plain)
        yield "too_many_alleles", alleles.allele > MAX_ALLELES
        longest = np.maximum(_lengths(alt), _lengths(located.ref))
        yield "too_long", longest > self._width

    def _agrees(self, located: Located, rows: np.ndarray) -> np.ndarray:
        """Return, for the alleles `rows`, whether the genome has their REF: bool (len(rows),)."""
        agrees = np.zeros(len(rows), dtype=bool)
        contig, start = located.contig[rows], located.start[rows]
        refs = located.ref.take(pa.array(rows))
        first_base, length = _first_bases(refs), _lengths(refs)
        # One fetch serves all alleles of a stretch, whatever order the input is in.
        stretch = contig.astype(np.int64) << 40 | start // _STRETCH
        order = np.argsort(stretch, kind="stable")
        cuts = np.flatnonzero(np.diff(stretch[order])) + 1
        for group in np.split(order, cuts):
            if len(group) == 0:
                continue
            origin = int(start[group].min())
            end = int((start[group] + length[group]).max())
            name = self._names[int(contig[group[0]])]
            bases = self._reference.fetch(name, origin, end)
            offset = start[group] - origin
            agrees[group] = bases[offset] == first_base[group]
            for row in group[agrees[group] & (length[group] > 1)]:
                codes = encode(refs[int(row)].as_py())
                at = start[row] - origin
                agrees[row] = np.array_equal(bases[at : at + len(codes)], codes)
        return agrees


def reason_names(codes: np.ndarray) -> pa.Array:
    """Return the names of non-zero reason codes, as Arrow strings."""
    names = pa.array(["", *SKIP_REASONS])
    return names.take(pa.array(codes.astype(np.int64)))


def passes_filter(alleles: AlleleBatch, wanted: frozenset[str]) -> np.ndarray:
    """Return whether FILTER holds any of `wanted`, as `bcftools -f` does ('.' is missing)."""
    encoded = pc.dictionary_encode(alleles.filter)
    passes = np.array(
        [not wanted.isdisjoint(value.split(";")) for value in encoded.dictionary.to_pylist()],
        dtype=bool,
    )
    indices = encoded.indices.to_numpy(zero_copy_only=False)
    return passes[indices] if len(indices) else np.empty(0, dtype=bool)


def _mask(values: pa.BooleanArray) -> np.ndarray:
    return values.to_numpy(zero_copy_only=False)


def _lengths(strings: pa.StringArray) -> np.ndarray:
    return pc.binary_length(strings).to_numpy(zero_copy_only=False).astype(np.int64)


def _first_bases(strings: pa.StringArray) -> np.ndarray:
    """Return the code of each string's first letter; the strings are not empty."""
    if len(strings) == 0:
        return np.empty(0, dtype=np.uint8)
    _, offsets, data = strings.buffers()
    begins = np.frombuffer(offsets, dtype=np.int32)[strings.offset : strings.offset + len(strings)]
    return encode(np.frombuffer(data, dtype=np.uint8)[begins].tobytes())
