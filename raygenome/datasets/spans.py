"""Peak files read fast, and stretches of a contig put together."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from raygenome.errors import DataError
from raygenome.genome.intervals import read_bed
from raygenome.storage.bgzf import pieces
from raygenome.storage.input import RawInput

if TYPE_CHECKING:
    import pyarrow as pa

#: Stretches of one contig: starts and ends, int64 (n,) each, 0-based half-open.
Spans = tuple[np.ndarray, np.ndarray]
#: Gives a contig the name it has in the result: its name in the file, and "FILE, line N".
Find = Callable[[str, str], str]

#: A contig's name that the strict reader surely takes for one.
_CONTIG = re.compile(r"(?!(?:track|browser)$)[^#\s]\S*")
_LONGEST_NUMBER = 18


def read_spans(path: Path, find: Find) -> dict[str, Spans]:
    """Return the peaks of a BED file by contig: what `regions.read_bed` finds, but fast.

    Whatever is unusual in a file goes to `read_bed`, which takes it or says what is wrong where.

    Args:
        path: the file, plain or compressed with gzip or bgzip.
        find: as `regions.read_bed` takes it.

    Raises:
        DataError: a line that is not BED, or what `find` raises.
        NoInput: a file that does not exist, cannot be read, or holds no interval.
    """
    table = _plain_columns(path)
    if table is None:
        return _strict_spans(path, find)
    by_contig: dict[str, list[Spans]] = {}
    names = table["contig"].combine_chunks()
    starts, ends = table["start"].to_numpy(), table["end"].to_numpy()
    codes, real = names.indices.to_numpy(), starts < ends
    met, first = np.unique(codes, return_index=True)
    ordered = np.argsort(codes, kind="stable")
    rows_of = dict(
        zip(met.tolist(), np.split(ordered, np.searchsorted(codes[ordered], met[1:])), strict=True)
    )
    for code in met[np.argsort(first)].tolist():
        name = names.dictionary[code].as_py()
        try:
            contig = find(name, "")
        except DataError:
            return _strict_spans(path, find)  # which knows the line
        rows = rows_of[code][real[rows_of[code]]]
        if len(rows):
            by_contig.setdefault(contig, []).append((starts[rows], ends[rows]))
    return {contig: _joined(spans) for contig, spans in by_contig.items()}


def _strict_spans(path: Path, find: Find) -> dict[str, Spans]:
    by_contig: dict[str, list[tuple[int, int]]] = {}
    for contig, start, end in read_bed(path, find):
        by_contig.setdefault(contig, []).append((start, end))
    arrays = {contig: np.array(spans, dtype=np.int64).T for contig, spans in by_contig.items()}
    return {contig: (starts, ends) for contig, (starts, ends) in arrays.items()}


def _joined(spans: list[Spans]) -> Spans:
    starts, ends = zip(*spans, strict=True)
    return np.concatenate(starts), np.concatenate(ends)


def _plain_columns(path: Path) -> "pa.Table | None":
    """Return contig, start and end of a BED file that is as plain as most; else None."""
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import csv as arrow_csv

    with RawInput(str(path), needed="a BED file") as raw:
        text = b"".join(pieces(raw, threads=1)).replace(b"\r\n", b"\n")
    if b"\r" in text or not text.strip():
        return None
    head = text[: text.find(b"\n")]
    names = [f"c{column}" for column in range(head.count(b"\t") + 1)]
    names[:3] = ["contig", "start", "end"]
    kinds = {"contig": pa.dictionary(pa.int32(), pa.string()), "start": pa.string()}
    try:
        table = arrow_csv.read_csv(
            pa.BufferReader(text),
            read_options=arrow_csv.ReadOptions(column_names=names, use_threads=False),
            parse_options=arrow_csv.ParseOptions(delimiter="\t", quote_char=False),
            convert_options=arrow_csv.ConvertOptions(
                include_columns=names[:3],
                column_types={**kinds, "end": pa.string()},
                strings_can_be_null=False,
            ),
        )
        for column in ("start", "end"):
            words = table[column]
            # A cast would take what BED has not, such as " 7" and "0x7".
            if not pc.all(pc.ascii_is_decimal(words)).as_py():
                return None
            if pc.max(pc.binary_length(words)).as_py() > _LONGEST_NUMBER:
                return None
        spans = [table[column].cast(pa.int64()) for column in ("start", "end")]
    except (pa.ArrowInvalid, pa.ArrowKeyError):
        return None
    contigs = table["contig"].unify_dictionaries().combine_chunks()
    usual = all(_CONTIG.fullmatch(name) for name in contigs.dictionary.to_pylist())
    ordered = pc.all(pc.less_equal(*spans)).as_py() and pc.any(pc.less(*spans)).as_py()
    return pa.table([contigs, *spans], names=names[:3]) if usual and ordered else None


def union(starts: np.ndarray, ends: np.ndarray) -> Spans:
    """Return the union of spans, sorted; those that touch become one.

    Args:
        starts: int64 (n,), in any order.
        ends: (n,), each beyond its start.
    """
    if len(starts) == 0:
        return starts, ends
    order = np.argsort(starts, kind="stable")
    starts, reach = starts[order], np.maximum.accumulate(ends[order])
    opens = np.concatenate([[True], starts[1:] > reach[:-1]])
    return starts[opens], reach[np.concatenate([opens[1:], [True]])]
