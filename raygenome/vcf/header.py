"""The header of a VCF: the contigs that it names and the columns that its records have.

Only the first line, the contig lines and the column line are looked at. What is wrong with other
meta lines, down to a line break in a description, cannot change what the site columns say, so it
never stops the reading.
"""

import re
from dataclasses import dataclass, field

from raygenome.errors import DataError

#: The columns that say what a variant is, in VCF order; records may end after any from ALT on.
SITE_COLUMNS = ("#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER")
#: The fewest columns that a record may have: up to ALT.
FEWEST_COLUMNS = 5

_BOM = b"\xef\xbb\xbf"
_CONTIG_ID = re.compile(rb"[<,]\s*ID=\"?([^,>\"]+)")
_CONTIG_LENGTH = re.compile(rb"[<,]\s*length=\"?([0-9]{1,18})\b", re.IGNORECASE)


@dataclass
class VcfHeader:
    """What the header says.

    Attributes:
        version: as in the first line, such as "VCFv4.2".
        contigs: the contigs of the ##contig lines, in order, with their length where one is given.
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
        """Take the next line, without its newline, of the VCF `name`.

        Raises:
            DataError: it is not what a VCF has there.
        """
        self.lines += 1
        line = line.removesuffix(b"\r")
        if self.lines == 1:
            self._add_first(line.removeprefix(_BOM), name)
        elif line.startswith(b"##contig="):
            self._add_contig(line)
        elif line.startswith(b"##"):
            pass
        elif line[:6].upper() == b"#CHROM" or (line.startswith(b"#") and b"\t" in line):
            self._add_columns(line, name)
        elif line.count(b"\t") >= FEWEST_COLUMNS - 1:
            raise DataError(
                f"{name}, line {self.lines}: found {shown(line)} where the header goes on; "
                "a '#CHROM' line with the column names is needed before the first record"
            )
        elif not line:
            self.blank_lines += 1

    def _add_first(self, line: bytes, name: str) -> None:
        if not line.startswith(b"##fileformat=VCF"):
            raise DataError(
                f"{name} is not a VCF: its first line is {shown(line)}; "
                "'##fileformat=VCFv4.2' or the like is needed there"
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
            hint = "; it has spaces for tabs" if b" " in line and b"\t" not in line else ""
            raise DataError(
                f"{name}, line {self.lines}: the column names are {shown(line)}{hint}; "
                f"'{' '.join(SITE_COLUMNS)} ...' separated by tabs is needed"
            )
        self.n_columns = len(columns)


def shown(line: bytes) -> str:
    """Return the start of a line as a message can show it, on one line and quoted."""
    text = line[:60].decode("utf-8", "replace")
    return repr(text + "..." if len(line) > 60 else text)
