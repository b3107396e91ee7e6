"""The header of a VCF: the contigs that it names and the columns that its records have.

Only the first line, the contig lines and the column line are read. Errors in other meta lines, such
as a line break in a description, do not affect the site columns and are ignored.
"""

import re
from dataclasses import dataclass, field

from raygenome.errors import DataError

#: The site columns, in VCF order; records may end after any of them from ALT on.
SITE_COLUMNS = ("#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER")
#: The fewest columns that a record may have: up to ALT.
FEWEST_COLUMNS = 5

#: The byte order mark of UTF-8.
BOM = b"\xef\xbb\xbf"
_CONTIG_ID = re.compile(rb"[<,]\s*ID=\"?([^,>\"]+)")
_CONTIG_LENGTH = re.compile(rb"[<,]\s*length=\"?([0-9]{1,18})\b", re.IGNORECASE)


@dataclass
class VcfHeader:
    """The content of a header.

    Attributes:
        version: the text of the first line, such as "VCFv4.2".
        contigs: length by name in the ##contig lines, in their order; None if no length is given.
        n_columns: how many columns the #CHROM line has.
        lines: how many lines the header has, blank ones and the #CHROM line included.
        blank_lines: how many of them are blank.
    """

    version: str = ""
    contigs: dict[str, int | None] = field(default_factory=dict)
    n_columns: int = 0
    lines: int = 0
    blank_lines: int = 0

    @property
    def complete(self) -> bool:
        """Whether the #CHROM line has been read."""
        return self.n_columns > 0

    def add(self, line: bytes, name: str) -> None:
        """Add the next line, without its newline, of the VCF `name`.

        Raises:
            DataError: no VCF has such a line there.
        """
        self.lines += 1
        line = line.removesuffix(b"\r")
        if self.lines == 1:
            self._add_first(line.removeprefix(BOM), name)
        elif line.startswith(b"##contig="):
            self._add_contig(line)
        elif line.startswith(b"##"):
            pass
        elif line[:6].upper() == b"#CHROM" or (line.startswith(b"#") and b"\t" in line):
            self._add_columns(line, name)
        elif line.count(b"\t") >= FEWEST_COLUMNS - 1:
            raise DataError(
                f"{name}, line {self.lines}: found {shown(line)} within the header; a '#CHROM' "
                "line with the column names is needed before the first record"
            )
        elif not line:
            self.blank_lines += 1

    def _add_first(self, line: bytes, name: str) -> None:
        if not line.startswith(b"##fileformat=VCF"):
            raise DataError(
                f"{name} is not a VCF: its first line is {shown(line)}, not "
                "'##fileformat=VCFv4.2' or similar"
            )
        self.version = line.removeprefix(b"##fileformat=").decode("utf-8", "replace").strip()

    def _add_contig(self, line: bytes) -> None:
        found = _CONTIG_ID.search(line)
        if found:
            length = _CONTIG_LENGTH.search(line)
            contig = found[1].decode("utf-8", "replace")
            self.contigs.setdefault(contig, int(length[1]) if length else None)

    def _add_columns(self, line: bytes, name: str) -> None:
        columns = line.split(b"\t")
        due = [column.encode() for column in SITE_COLUMNS[: max(len(columns), FEWEST_COLUMNS)]]
        if columns[: len(due)] != due:
            spaces = b" " in line and b"\t" not in line
            raise DataError(
                f"{name}, line {self.lines}: the column names are {shown(line)}; "
                f"'{' '.join(SITE_COLUMNS)} ...' separated by tabs is needed",
                "it has spaces for tabs: turn them into tabs" if spaces else "",
            )
        self.n_columns = len(columns)


def shown(line: bytes) -> str:
    """Return the start of a line for a message: quoted, without line breaks."""
    text = line[:60].decode("utf-8", "replace")
    return repr(text + "..." if len(line) > 60 else text)
