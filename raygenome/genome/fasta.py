"""A genome FASTA as codes: checked once, then read by windows that may hang over contig ends.

Coordinates are 0-based half-open. A FASTA is plain or bgzip. Its index is the .fai beside it, which
must fit (`fai.disagreement`), or where there is none one of ours, built once in a cache folder.
"""

import contextlib
import gzip
import hashlib
import logging
import os
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pyfaidx
import pysam

from raygenome.errors import DataError, NoInput, OutputError
from raygenome.genome import fai
from raygenome.genome.sequence import N_CODE, encode
from raygenome.storage.bucket import is_remote
from raygenome.storage.cache import local_copy
from raygenome.storage.files import file_sha256
from raygenome.storage.home import cache_dir

_LOG = logging.getLogger(__name__)

#: Bases in a cached block, and how many blocks a Reference keeps: 2 MB, enough for sorted access.
BLOCK = 1 << 18
KEPT_BLOCKS = 8
#: A fetch over more blocks than this is read directly and leaves the cache as it is.
DIRECT_BLOCKS = 4


class Reference:
    """A genome FASTA, read by windows.

    Made by `Reference.open`. One object serves one thread (it owns a file position and a cache);
    give each thread its own. Pickling hands over the path: the receiver opens, and checks, again.

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

        One in an object store is fetched once for all processes of this machine.

        Raises:
            NoInput: no such file, or it cannot be read.
            DataError: no FASTA, truncated, gzip that is not bgzip, uneven lines, a contig twice, or
                a .fai beside it that belongs to another file.
        """
        if is_remote(path):
            path = local_copy(str(path), companions=(".fai", ".gzi"))
        path = Path(path).absolute()
        compressed = _sniff(path)
        content = fai.BgzfBytes(path) if compressed else fai.PlainBytes(path)
        try:
            entries, fai_path = _index(path, content)
            gzi_path = _gzi(path, content) if isinstance(content, fai.BgzfBytes) else None
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
        """Return the sha256 of the file's size, first and last MiB: quick, for telling files apart.

        Unlike `digest` it misses an edit in the middle that keeps the size.
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

    def fetch(self, contig: str, start: int, end: int) -> np.ndarray:
        """Return the codes of bases [start, end): uint8, exactly end - start of them.

        Beyond either end of the contig, and for any letter but ACGT in either case, the code is N.
        The array is the caller's own.

        Raises:
            KeyError: no such contig.
            ValueError: end < start.
            DataError: the file changed or cannot be read.
        """
        length = self.contigs[contig]
        if end < start:
            raise ValueError(f"{contig}: the span {start}-{end} ends before it starts")
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
        """Return the codes of the BLOCK bases from block * BLOCK, fewer at the contig end."""
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
                f"{self.path}: {contig}:{start + 1}-{end} cannot be read ({error}); "
                "the file is damaged or was changed underway"
            ) from error
        if len(bases) != end - start:
            raise DataError(
                f"{self.path}: {contig}:{start + 1}-{end} gave {len(bases)} bases; "
                "the file was changed underway"
            )
        return encode(bases)


def _sniff(path: Path) -> bool:
    """Return whether the FASTA is bgzip (else plain); raise what is wrong if it is neither."""
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
        if not fai.is_bgzf(head):
            raise DataError(
                f"{path}: compressed with gzip, which has no random access; "
                f"recompress it: gzip -dc {path.name} | bgzip > new.fa.gz"
            )
        return True
    if not head.lstrip().startswith(b">"):
        raise DataError(
            f"{path}: no FASTA: it starts with {head[:20]!r}, not with a '>' header line"
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
                f"{beside}: does not fit {path.name}: {problem}; "
                f"delete it or run `samtools faidx {path}`"
            )
        return entries, beside
    cached = _cached(path, ".fai")
    if cached.exists():
        with contextlib.suppress(DataError):  # a cached index that is damaged is built anew
            entries = fai.read_fai(cached)
            if fai.disagreement(entries, content) is None:
                return entries, cached
    _LOG.info("%s has no index: building one in %s", path, cached.parent)
    # pyfaidx goes by the name: it takes a .gz for compressed, whatever it holds
    compressed = isinstance(content, fai.BgzfBytes) or path.suffix.lower() in (
        ".gz",
        ".bgz",
        ".bz2",
    )
    _build_fai(path, cached, by_htslib=compressed)
    entries = fai.read_fai(cached)
    problem = fai.disagreement(entries, content)
    if problem:
        cached.unlink()
        raise DataError(f"{path}: no usable FASTA: {problem}")
    return entries, cached


def _gzi(path: Path, content: fai.BgzfBytes) -> Path:
    """Return a .gzi that fits: the one beside the FASTA, or our own in the cache."""
    wanted = content.gzi()
    beside = path.with_name(path.name + ".gzi")
    if beside.exists():
        if beside.read_bytes() == wanted:
            return beside
        _LOG.warning("%s does not fit %s; using another in the cache", beside, path.name)
    cached = _cached(path, ".gzi")
    if not cached.exists() or cached.read_bytes() != wanted:
        temporary = _temporary(cached)
        temporary.write_bytes(wanted)
        temporary.replace(cached)
    return cached


def _build_fai(path: Path, target: Path, *, by_htslib: bool) -> None:
    """Index the whole FASTA into `target`, under a temporary name until it is complete."""
    temporary = _temporary(target)
    spare = temporary.with_suffix(".gzi")
    verbosity = pysam.set_verbosity(0)  # our message says it all, in one line
    try:
        if not by_htslib:
            try:
                pyfaidx.Faidx(str(path), indexname=str(temporary), build_index=True).close()
            except pyfaidx.FastaIndexingError:
                by_htslib = True  # it allows what pyfaidx does not: blank lines after a contig
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
    """Return in words the first line of a FASTA that no index can describe; None if all are even.

    Only asked after a failure: htslib says no more than that it failed.
    """
    with gzip.open(path, "rb") if _sniff(path) else path.open("rb") as file:
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
                return f"the lines of contig {name!r} are of uneven length (line {number})"
            first = first or bases
            ended = bases < first or not bases
    return None


def _cached(path: Path, suffix: str) -> Path:
    """Return where the cache keeps an index of this file in this state (path, size, ends)."""
    folder = cache_dir() / "fasta"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be made to keep a FASTA index ({error.strerror}); "
            "set RAYGENOME_HOME to a folder that can be written"
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
