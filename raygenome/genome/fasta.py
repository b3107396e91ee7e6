"""A genome FASTA as codes: checked once, then read by windows that may reach over contig ends.

Coordinates are 0-based half-open. A FASTA is plain or bgzip. Its index is the .fai next to it,
which must fit (`fai.disagreement`). If there is none, one is built and kept in the cache folder.
"""

import contextlib
import gzip
import hashlib
import logging
import os
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyfaidx
import pysam

from raygenome.errors import DataError, NoInput, OutputError
from raygenome.genome import fai
from raygenome.genome.intervals import Interval
from raygenome.genome.sequence import N_CODE, encode
from raygenome.storage.bgzf import BgzfFile, is_bgzf
from raygenome.storage.bucket import is_remote
from raygenome.storage.cache import local_copy
from raygenome.storage.files import file_sha256
from raygenome.storage.home import cache_dir

_LOG = logging.getLogger(__name__)

#: Bases of a cached block, and how many blocks a Reference keeps (2 MB: enough for sorted access).
BLOCK = 1 << 18
KEPT_BLOCKS = 8
#: A fetch of more blocks than this bypasses the cache.
DIRECT_BLOCKS = 4


class Reference:
    """A genome FASTA, read by windows.

    Made by `Reference.open`. It is not thread-safe (it has a file position and a cache): give each
    thread its own. A pickle holds the path; unpickling opens and checks the file again.

    Attributes:
        path: the FASTA file.
        contigs: length in bases by contig name, in the order of the FASTA.
    """

    def __init__(self, path: Path, contigs: dict[str, int], file: pysam.FastaFile) -> None:
        self.path = path
        self.contigs = contigs
        self._file = file
        self._blocks: OrderedDict[tuple[str, int], np.ndarray] = OrderedDict()
        self._digest: str | None = None

    @classmethod
    def open(cls, path: Path | str) -> "Reference":
        """Open the FASTA at `path`, checking its index against it or building one in the cache.

        A FASTA in an object store is downloaded once for all processes of this machine.

        Raises:
            NoInput: there is no such file, or it cannot be read.
            DataError: it is not a FASTA, truncated, gzip that is not bgzip, has uneven lines or a
                contig twice, or the .fai next to it belongs to another file.
            OutputError: an index has to be built and the cache folder cannot be written.
        """
        if is_remote(path):
            path = local_copy(str(path), companions=(".fai", ".gzi"))
        path = Path(path).absolute()
        compressed = _is_bgzip(path)
        content = BgzfFile(path) if compressed else fai.PlainBytes(path)
        try:
            entries, fai_path = _index(path, content)
            gzi_path = _gzi(path, content) if isinstance(content, BgzfFile) else None
        finally:
            content.close()
        file = pysam.FastaFile(
            str(path),
            filepath_index=str(fai_path),
            filepath_index_compressed=str(gzi_path) if gzi_path else None,
        )
        return cls(path, {entry.name: entry.length for entry in entries}, file)

    def __reduce__(self) -> tuple:
        return Reference.open, (self.path,)

    def digest(self) -> str:
        """Return the sha256 of the file's bytes in hex, computed once."""
        if self._digest is None:
            self._digest = file_sha256(self.path)
        return self._digest

    def ends_digest(self) -> str:
        """Return the sha256 of the file's size, first and last MiB: a quick check for another file.

        Unlike `digest` it does not see a change in the middle that keeps the size.
        """
        size = self.path.stat().st_size
        with self.path.open("rb") as file:
            head = file.read(1 << 20)
            file.seek(max(size - (1 << 20), 0))
            return hashlib.sha256(b"%d" % size + head + file.read()).hexdigest()

    def close(self) -> None:
        """Close the file and forget the cached blocks."""
        self._blocks.clear()
        self._file.close()

    def contig(self, name: str) -> "ReferenceContig":
        """Return one contig, to be read by its positions alone."""
        return ReferenceContig(self, name)

    def fetch(self, contig: str, start: int, end: int) -> np.ndarray:
        """Return the codes of bases [start, end): uint8 (end - start,).

        The code is N beyond both ends of the contig and for every letter except ACGT and acgt.
        The caller may change the array.

        Raises:
            KeyError: there is no such contig.
            ValueError: end < start.
            DataError: the file was changed or cannot be read.
        """
        length = self.contigs[contig]
        if end < start:
            raise ValueError(f"{contig}: the interval {start}-{end} ends before it starts")
        codes = np.full(end - start, N_CODE, dtype=np.uint8)
        first, last = max(start, 0), min(end, length)
        if first >= last:
            return codes
        if last - first > DIRECT_BLOCKS * BLOCK:
            codes[first - start : last - start] = self._read(contig, first, last)
            return codes
        for block in range(first // BLOCK, (last - 1) // BLOCK + 1):
            origin = block * BLOCK
            bases = self._block(contig, block)
            low, high = max(first, origin), min(last, origin + len(bases))
            codes[low - start : high - start] = bases[low - origin : high - origin]
        return codes

    def _block(self, contig: str, block: int) -> np.ndarray:
        """Return the codes of BLOCK bases from block * BLOCK, fewer at the contig's end."""
        key = (contig, block)
        codes = self._blocks.get(key)
        if codes is None:
            stop = min((block + 1) * BLOCK, self.contigs[contig])
            codes = self._read(contig, block * BLOCK, stop)
            if len(self._blocks) >= KEPT_BLOCKS:
                self._blocks.popitem(last=False)
            self._blocks[key] = codes
        else:
            self._blocks.move_to_end(key)
        return codes

    def _read(self, contig: str, start: int, end: int) -> np.ndarray:
        try:
            bases = self._file.fetch(contig, start, end)
        except (OSError, ValueError) as error:
            raise DataError(
                f"{self.path}: {Interval(contig, start, end)} cannot be read ({error}): the file "
                "is damaged or was changed meanwhile",
                "copy it again and repeat the command",
            ) from error
        if len(bases) != end - start:
            raise DataError(
                f"{self.path}: {Interval(contig, start, end)} gave {len(bases)} bases: the file "
                "was changed meanwhile",
                "repeat the command",
            )
        return encode(bases)


class ReferenceContig(NamedTuple):
    """One contig of a reference; a `windows.Sequence`."""

    reference: Reference
    name: str

    def fetch(self, start: int, end: int) -> np.ndarray:
        """Return the codes of [start, end), 0-based, with N beyond the contig's ends."""
        return self.reference.fetch(self.name, start, end)


def _is_bgzip(path: Path) -> bool:
    """Return whether a FASTA is compressed with bgzip (or else plain).

    Raises:
        NoInput: it cannot be read.
        DataError: it is neither.
    """
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except FileNotFoundError:
        raise NoInput(f"{path}: no such FASTA file") from None
    except OSError as error:
        raise NoInput(f"{path}: cannot be read as a FASTA file ({error.strerror})") from error
    if not head:
        raise DataError(f"{path}: the FASTA file is empty")
    if head[:2] == b"\x1f\x8b":
        if not is_bgzf(head):
            raise DataError(
                f"{path}: compressed with gzip, which has no random access",
                f"recompress it: gzip -dc {path.name} | bgzip > new.fa.gz",
            )
        return True
    if not head.lstrip().startswith(b">"):
        start = head[:20].decode("utf-8", "replace")
        raise DataError(
            f"{path}: not a FASTA file: it starts with {start!r}, not with a '>' header line"
        )
    return False


def _index(path: Path, content: fai.Bytes) -> tuple[list[fai.FaiEntry], Path]:
    """Return the checked index of a FASTA and the file that holds it."""
    beside = path.with_name(path.name + ".fai")
    if beside.exists():
        entries = fai.read_fai(beside)
        problem = fai.disagreement(entries, content)
        if problem:
            raise DataError(
                f"{beside}: does not fit {path.name}: {problem}",
                f"delete it or run `samtools faidx {path}`",
            )
        return entries, beside
    cached = _cached(path, ".fai")
    if cached.exists():
        with contextlib.suppress(DataError):  # a damaged cached index is built again
            entries = fai.read_fai(cached)
            if fai.disagreement(entries, content) is None:
                return entries, cached
    _LOG.info("%s has no index: building one in %s", path, cached.parent)
    # pyfaidx decides by the name whether a file is compressed.
    named_compressed = path.suffix.lower() in (".gz", ".bgz", ".bz2")
    _build_fai(path, cached, by_htslib=isinstance(content, BgzfFile) or named_compressed)
    entries = fai.read_fai(cached)
    problem = fai.disagreement(entries, content)
    if problem:
        cached.unlink()
        raise DataError(f"{path}: not a usable FASTA: {problem}")
    return entries, cached


def _gzi(path: Path, content: BgzfFile) -> Path:
    """Return a .gzi that fits: the one beside the FASTA, or one in the cache."""
    wanted = content.gzi()
    beside = path.with_name(path.name + ".gzi")
    if beside.exists():
        if beside.read_bytes() == wanted:
            return beside
        _LOG.warning("%s does not fit %s; using one in the cache", beside, path.name)
    cached = _cached(path, ".gzi")
    if not cached.exists() or cached.read_bytes() != wanted:
        temporary = _temporary(cached)
        temporary.write_bytes(wanted)
        temporary.replace(cached)
    return cached


def _build_fai(path: Path, target: Path, *, by_htslib: bool) -> None:
    """Write the index of a FASTA to `target`, under a temporary name until it is complete."""
    temporary = _temporary(target)
    spare = temporary.with_suffix(".gzi")
    verbosity = pysam.set_verbosity(0)  # our message replaces htslib's
    try:
        if not by_htslib:
            try:
                pyfaidx.Faidx(str(path), indexname=str(temporary), build_index=True).close()
            except pyfaidx.FastaIndexingError:
                by_htslib = True  # which allows blank lines after a contig
        if by_htslib:
            pysam.faidx(str(path), "--fai-idx", str(temporary), "--gzi-idx", str(spare))
    except (pysam.SamtoolsError, OSError, ValueError) as error:
        temporary.unlink(missing_ok=True)
        why = _uneven_line(path) or " ".join(str(error).split())
        raise DataError(f"{path}: cannot be indexed: {why}") from error
    finally:
        pysam.set_verbosity(verbosity)
        spare.unlink(missing_ok=True)
    temporary.replace(target)


def _uneven_line(path: Path) -> str | None:
    """Return a description of the first line that no index allows; None if there is none.

    It is called after a failure, since htslib does not say why it failed.
    """
    with gzip.open(path, "rb") if _is_bgzip(path) else path.open("rb") as file:
        name, first, ended = "", 0, False
        for number, line in enumerate(file, start=1):
            if line.startswith(b">"):
                words = line[1:].split(None, 1)
                if not words:
                    return f"the header at line {number} has no name"
                name, first, ended = words[0].decode("utf-8", "replace"), 0, False
                continue
            bases = len(line.rstrip(b"\r\n"))
            if (ended and bases) or (first and bases > first):
                return f"the lines of contig {name!r} differ in length (line {number})"
            first = first or bases
            ended = bases < first or not bases
    return None


def _cached(path: Path, suffix: str) -> Path:
    """Return where the cache keeps an index of a file with this path, size and ends."""
    folder = cache_dir() / "fasta"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot create this folder for the FASTA index ({error.strerror})",
            "set RAYGENOME_HOME to a folder that can be written",
        ) from error
    size = path.stat().st_size
    with path.open("rb") as file:
        key = hashlib.sha256(f"{path}\0{size}\0".encode() + file.read(1 << 16))
        file.seek(max(0, size - (1 << 16)))
        key.update(file.read())
    return folder / (key.hexdigest()[:32] + suffix)


def _temporary(target: Path) -> Path:
    """Return a name beside `target` that no other process uses."""
    return target.with_name(f"{target.stem}.{os.getpid()}-{os.urandom(4).hex()}.tmp{target.suffix}")
