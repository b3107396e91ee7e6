"""Reads the table of peak files, and their peaks, contig by contig.

A table is tab-separated with a header. `target` (a unique name) and `path` (a BED, narrowPeak or
broadPeak file, relative to the table's folder) are needed; `cell`, `assay`, `treatment` and
`category` are optional. Other columns are ignored.
"""

import contextlib
import csv
import io
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np

from raygenome.datasets.splits import Excluded
from raygenome.errors import DataError, NoInput, RaygenomeError, StorageError
from raygenome.genome.contigs import ContigMap
from raygenome.genome.intervals import Find, Spans, read_bed, unknown_contig
from raygenome.genome.targets import Target, check_names
from raygenome.progress.bars import NoProgress, Progress

#: A target's number, and its peaks on one contig.
TargetPeaks = tuple[int, np.ndarray, np.ndarray]

_NEEDED = ("target", "path")
_WANTED = ("cell", "assay", "treatment", "category")
#: The category that an assay's name implies; the published tables use DNase, histone and TF.
_CATEGORIES = (
    (re.compile(r"DNase", re.IGNORECASE), "DNase"),
    (re.compile(r"FAIRE", re.IGNORECASE), "FAIRE"),
    (re.compile(r"ATAC", re.IGNORECASE), "ATAC"),
    (re.compile(r"H[1-4][A-Za-z0-9]"), "histone"),
    (re.compile(r"."), "TF"),
)


class PeakTable(NamedTuple):
    """The content of a table of peak files: the targets, and the file of each."""

    path: Path
    targets: list[Target]
    files: list[Path]


def read_table(path: Path) -> PeakTable:
    """Return the content of a table of peak files; the files exist, but are not read yet.

    Raises:
        NoInput: the table, or a file that it names, does not exist.
        DataError: the file is not such a table, or names are empty or repeated.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, dialect="excel-tab", quoting=csv.QUOTE_NONE)
            rows = [(reader.line_num, row) for row in reader if "".join(row).strip()]
    except OSError as error:
        raise NoInput(f"cannot read the table of peak files {path}: {error.strerror}") from None
    except (ValueError, csv.Error) as error:
        raise DataError(f"{path} is not a table of peak files ({error})") from None
    header = [name.strip() for name in rows[0][1]] if rows else []
    if any(header.count(name) != 1 for name in _NEEDED):
        hint = ""
        if len(header) == 1 and set(_NEEDED) <= set(re.split(r"[,;\s]+", header[0])):
            hint = "separate the columns by tabs"
        raise DataError(
            f"{path} has the columns {', '.join(header)[:200] or '(none)'}; it needs target and "
            "path, separated by tabs, each once",
            hint,
        )
    if len(rows) == 1:
        raise DataError(f"{path} names no peak file", "add one line for each target")
    targets, files = [], []
    for number, (line, row) in enumerate(rows[1:]):
        values, peak_file = _row(header, row, path, line)
        targets.append(Target(number, *values))
        files.append(peak_file)
    check_names([target.name for target in targets], source=str(path))
    return PeakTable(path, targets, files)


def _row(header: list[str], row: list[str], table: Path, line: int) -> tuple[list[str], Path]:
    """Return name, cell, assay, treatment and category in a line of a table, and its file."""
    if len(row) > len(header):
        raise DataError(f"{table}, line {line}: {len(row)} fields under {len(header)} columns")
    # Editors cut tabs from the end of a line: fields that are missing there are empty.
    fields = dict(zip(header, [value.strip() for value in row], strict=False))
    if not fields.get("path"):
        raise DataError(f"{table}, line {line}: no path", "add the path of a peak file")
    file = table.parent / fields["path"]
    if not file.is_file():
        raise NoInput(
            f"{table}, line {line}: there is no file {file}; paths are relative to the table",
            "correct the path",
        )
    values = [fields["target"], *(fields.get(name, "") for name in _WANTED)]
    values[-1] = values[-1] or category_of(fields.get("assay", ""))
    return values, file


def category_of(assay: str) -> str:
    """Return "DNase", "FAIRE", "ATAC", "histone" or "TF" for an assay's name; "" for no name."""
    return next((name for pattern, name in _CATEGORIES if pattern.match(assay)), "")


@contextlib.contextmanager
def temporary_room() -> Iterator[None]:
    """Turn an error about temporary files into one that tells the user what to do.

    Raises:
        StorageError: a temporary file cannot be written.
    """
    try:
        yield
    except RaygenomeError:
        raise
    except OSError as error:
        raise StorageError(
            f"cannot write temporary files in {tempfile.gettempdir()} ({error.strerror})",
            "set TMPDIR to a folder with more space",
        ) from None


class Peaks:
    """The peaks of a table's files by contig, in a temporary file, so that memory does not grow.

    Create one with `Peaks.read`, and use it in a with statement.

    Attributes:
        count: number of peaks.
        excluded: number of peaks left out, which lie entirely in excluded regions.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="raygenome-")  # noqa: SIM115 - see __exit__
        #: By contig: target, offset in the file in bytes, and number of peaks.
        self._index: dict[str, list[tuple[int, int, int]]] = {}
        self.count = self.excluded = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    @classmethod
    def read(
        cls,
        files: Sequence[Path],
        contigs: dict[str, int],
        excluded: Excluded,
        progress: Progress | None = None,
    ) -> "Peaks":
        """Read peak files, one for each target.

        Args:
            files: as `read_bed` takes them; the index of a file is that of its target.
            contigs: lengths of the reference's contigs, by name.
            excluded: the regions to leave out.
            progress: shown the number of files read.

        Raises:
            DataError: a line is not BED, a contig is neither in the reference nor excluded, or a
                peak starts beyond the end of its contig.
            NoInput: a file cannot be read or holds no peak.
            OSError: the temporary file cannot be written.
        """
        progress = progress or NoProgress()
        peaks = cls()
        find = _finder(ContigMap(contigs), excluded)
        progress.begin("peak files", len(files), unit="files")
        try:
            for target, path in enumerate(files):
                for contig, spans in read_bed(path, find).items():
                    length = contigs.get(contig)
                    if length is not None:
                        _check_ends(path, contig, length, spans)
                    peaks._add(target, contig, spans, excluded)
                progress.update(target + 1)
            peaks._file.flush()
        except BaseException:
            peaks._file.close()
            raise
        finally:
            progress.end()
        return peaks

    def has(self, contig: str) -> bool:
        """Return whether there are peaks on a contig."""
        return contig in self._index

    def on(self, contig: str) -> Iterator[TargetPeaks]:
        """Yield each target that has peaks on a contig, in order, with starts and ends."""
        for target, offset, count in self._index.get(contig, []):
            self._file.seek(offset)
            values = np.frombuffer(self._file.read(16 * count), dtype=np.int64)
            yield target, values[:count], values[count:]

    def _add(self, target: int, contig: str, spans: Spans, excluded: Excluded) -> None:
        starts, ends = spans
        # A peak that reaches out of an excluded region still labels the bases outside of it.
        wanted = ~excluded.covers(contig, starts, ends)
        kept = int(wanted.sum())
        self.excluded += len(starts) - kept
        if kept:
            offset = self._file.seek(0, io.SEEK_END)
            self._file.write(np.concatenate([starts[wanted], ends[wanted]]).tobytes())
            self._index.setdefault(contig, []).append((target, offset, kept))
            self.count += kept


def _finder(contigs: ContigMap, excluded: Excluded) -> Find:
    def find(name: str, where: str) -> str:
        contig = contigs.resolve(name) or excluded.left_out(name)
        if contig is None:
            raise DataError(
                unknown_contig(name, where, contigs.contigs), f"leave it out with --exclude {name}"
            )
        return contig

    return find


def _check_ends(path: Path, contig: str, length: int, spans: Spans) -> None:
    beyond = np.flatnonzero(spans[0] >= length)
    if len(beyond):
        start, end = (int(values[beyond[0]]) for values in spans)
        raise DataError(
            f"{path}: the peak {contig} {start} {end} starts beyond the contig's end "
            f"({length:,} bases)",
            "give peaks of the same genome build as the FASTA",
        )
