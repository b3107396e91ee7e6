"""The columns of an allele at every stage of scoring, in one place; and the shard, a range of rows.

    SITES      one row per VCF record, as in the file
    LOCATED    one row per ALT allele, with its place in the genome     (in memory, while planning)
    PLANNED    the alleles that are scored, sorted                      .work/plan/alleles.arrow
    SKIPPED    the other alleles, with a reason                         skipped.parquet
    KEYS, SCORE, then one column per target                             scores/
    SUMMARY    the input of ranking, per allele                         .work/summaries/
    RANKED_VARIANTS, RANKED_TARGETS                                     ranked/

`start` is the 0-based position of the first REF base. `pos` is 1-based, as in a VCF.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

_TYPES = {
    "chrom": pa.string(),
    "pos": pa.int32(),
    "id": pa.string(),
    "ref": pa.string(),
    "alt": pa.string(),
    "filter": pa.string(),
    "record": pa.int64(),
    "allele": pa.int16(),
    "contig": pa.int32(),
    "start": pa.int32(),
    "reason": pa.string(),
    "score": pa.float32(),
    "top": pa.list_(pa.struct([("target", pa.int16()), ("diff", pa.float32())])),
    "key": pa.uint64(),
    "rank": pa.int64(),
    "target": pa.int16(),
    "name": pa.string(),
    "diff": pa.float32(),
}


def _schema(names: str, **other: pa.DataType) -> pa.Schema:
    """Return the columns `names`; `other` gives the types that differ from the usual ones."""
    return pa.schema([(name, other.get(name, _TYPES[name])) for name in names.split()])


#: `pos` is null where POS is not a number.
SITES = _schema("chrom pos id ref alt filter", pos=pa.int64())

#: One row per ALT, in input order. `record` is the 0-based number of the VCF record, `allele` the
#: 1-based number of the ALT. `chrom`, `pos`, `id`, `given_ref` and `given_alt` are as in the file,
#: with 0 for a `pos` that is not a number. `contig` is the index of the contig in the FASTA, -1 if
#: there is none; `ref` and `alt` are in upper case.
LOCATED = pa.schema(
    [
        *_schema("chrom pos id filter record", pos=pa.int64()),
        ("allele", pa.int64()),
        ("given_ref", pa.string()),
        ("given_alt", pa.string()),
        *_schema("contig start ref alt", start=pa.int64()),
    ]
)
PLANNED = _schema("contig start id ref alt record allele")
#: The order of planned alleles, of the rows of each part, and of equal scores in a ranking.
PLAN_ORDER = ("contig", "start", "ref", "alt", "record", "allele")
SKIPPED = _schema("chrom pos id ref alt record allele reason", allele=pa.int32())

KEYS = _schema("chrom pos id ref alt record allele")
SCORE = _schema("score top")

#: Ranking sorts by `key` alone, the largest first. `target` is the one with the strongest effect.
SUMMARY = _schema("key chrom pos id ref alt target")
RANKED_VARIANTS = _schema("rank score chrom pos id ref alt target name diff")
RANKED_TARGETS = _schema("target rank chrom pos id ref alt diff", rank=pa.int32())

#: What a comparison with background variants adds to the score tables.
_SIGNIFICANCE = ("class", "e_min", "e_target", "mle", "significance", "z_max", "p", "q")


def reserved_names() -> frozenset[str]:
    """Return the columns of the score tables; a target of such a name would hide one of them."""
    return frozenset([*KEYS.names, *SCORE.names, *_SIGNIFICANCE])


def select(schema: pa.Schema, *sources: pa.Table | dict[str, pa.Array]) -> pa.Table:
    """Return a table of the columns of `schema`, each from the first source that has it."""

    def column(name: str) -> pa.Array | pa.ChunkedArray:
        return next(source[name] for source in sources if name in _names(source))

    return pa.table([column(name) for name in schema.names], schema=schema)


def _names(source: pa.Table | dict[str, pa.Array]) -> Iterable[str]:
    return source if isinstance(source, dict) else source.column_names


@dataclass(frozen=True)
class Shard:
    """Consecutive alleles of one contig: rows [begin, end) of the planned alleles.

    `contig` is the FASTA's name of the contig, `chrom` the name that the output shows.
    """

    index: int
    contig: str
    chrom: str
    begin: int
    end: int

    @property
    def rows(self) -> int:
        """How many alleles it holds."""
        return self.end - self.begin

    def __str__(self) -> str:
        """Return how a message names the shard."""
        return f"{self.index} ({self.chrom}, {self.rows:,} alleles)"
