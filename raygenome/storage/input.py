"""An input as it is stored: its bytes in order, their digest, and the kind of file they look like.

Every byte of an input is read once and its sha256 is computed on the way, so that a run can record
what it read, also from a pipe.
"""

import hashlib
import os
import stat
import sys
from types import TracebackType
from typing import IO, Any, BinaryIO

from raygenome.errors import DataError, NoInput, StorageError
from raygenome.storage.bucket import Bucket, is_remote

#: How many stored bytes `peek` can show: more than the largest BGZF block.
PEEK = 1 << 17
_PIECE = 1 << 20

#: How files begin that are mistaken for a VCF; what they are; what the user can do.
_MAGIC = (
    (b"PK\x03\x04", "a zip archive", "unzip it"),
    (b"BZh", "compressed with bzip2", "decompress it with bunzip2, then bgzip"),
    (b"\xfd7zXZ\x00", "compressed with xz", "decompress it with unxz, then bgzip"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "decompress it with unzstd, then bgzip"),
    (b"BAM\x01", "a BAM file of reads", "call variants first"),
    (b"CRAM", "a CRAM file of reads", "call variants first"),
    (b"BCF\x04", "a BCF of version 1", "convert it with a bcftools that reads it"),
    (b"TBI\x01", "a tabix index", "give the file that it belongs to"),
    (b"CSI\x01", "an index (CSI)", "give the file that it belongs to"),
    (b"PAR1", "a Parquet file", "give the VCF that it was made from"),
    (b"\x89HDF", "an HDF5 file", "give a VCF"),
    (b"%PDF", "a PDF document", "give a VCF"),
    (b"\xff\xfe", "text in UTF-16", "convert it to UTF-8"),
    (b"\xfe\xff", "text in UTF-16", "convert it to UTF-8"),
    (b">", "a FASTA file", "give a VCF"),
    (b"version https://git-lfs", "a git-LFS pointer", "fetch the file itself with 'git lfs pull'"),
)
_WEB_PAGE = (b"<!doctype", b"<html", b"<?xml", b"<head", b"<body")


class RawInput:
    """The stored bytes of a file or of standard input, read once from front to back.

    Args:
        path: a file, a named pipe, the URL of an object, or "-" for standard input.
        needed: which kind of file is needed, for messages.

    Attributes:
        name: the input's name in messages.
        offset: how many bytes have been read.
        stored_size: the size of a regular file, None for a pipe.
        copy_to: if set, a file that receives every byte that is read.

    Raises:
        NoInput: there is no such file, it cannot be read, or it is empty.
    """

    def __init__(self, path: str, *, needed: str = "a VCF or BCF") -> None:
        self.name = "standard input" if path == "-" else path
        self.offset = 0
        self._hash = hashlib.sha256()
        self._ahead = b""
        self.copy_to: IO[bytes] | None = None
        self._object: Any = None  # a pyarrow file, open for reads at any offset
        if is_remote(path):
            bucket = Bucket(path)
            self._file, self._owned = _open_object(bucket, needed), True
            self._object = bucket.open()
        else:
            self._file, self._owned = _open(path, needed)
        try:
            self.stored_size = self._object.size() if self._object else _regular_size(self._file)
            if not self.peek():
                raise NoInput(f"{self.name} is empty (0 bytes)", f"give {needed}")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "RawInput":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; standard input stays open."""
        if self._owned:
            self._file.close()
        if self._object is not None:
            self._object.close()

    @property
    def digest(self) -> str:
        """The sha256 of the bytes read so far, in hexadecimal."""
        return self._hash.hexdigest()

    def peek(self) -> bytes:
        """Return the next `PEEK` bytes, fewer at the end, without consuming them."""
        if len(self._ahead) < PEEK:
            self._ahead += self._read_exactly(PEEK - len(self._ahead))
        return self._ahead

    def read(self, size: int) -> bytes:
        """Return the next `size` bytes, fewer only at the end, also from a pipe.

        Raises:
            StorageError: the device or the network failed.
        """
        data, self._ahead = self._ahead[:size], self._ahead[size:]
        if len(data) < size:
            data += self._read_exactly(size - len(data))
        self.offset += len(data)
        self._hash.update(data)
        if self.copy_to is not None:
            self.copy_to.write(data)
        return data

    def tail(self, size: int) -> bytes:
        """Return the last `size` bytes of a regular file."""
        start = max((self.stored_size or 0) - size, 0)
        if self._object is not None:
            return self._object.read_at(size, start)
        return os.pread(self._file.fileno(), size, start)

    def _read_exactly(self, size: int) -> bytes:
        parts = []
        try:
            while size > 0 and (data := self._file.read(size)):
                parts.append(data)
                size -= len(data)
        except OSError as error:
            raise StorageError(
                f"reading {self.name} failed after byte {self.offset}: {error}"
            ) from error
        return b"".join(parts)


def input_version(path: str) -> str | None:
    """Return a text that changes when an object in a store is replaced; None for other inputs.

    Raises:
        NoInput: there is no such object.
    """
    if not is_remote(path):
        return None
    info = Bucket(path).info()
    if not info.is_file:
        raise NoInput(f"there is no object {path}", "give a VCF or BCF")
    return f"{info.size} bytes of {info.mtime_ns}"


def digest_input(path: str) -> tuple[str, int]:
    """Return the sha256 (hexadecimal) and the size of an input, without parsing it.

    Raises:
        NoInput: there is none.
    """
    with RawInput(path) as raw:
        while raw.read(_PIECE):
            pass
        return raw.digest, raw.offset


def refuse_other_kinds(name: str, content: bytes) -> None:
    """Raise DataError if `content`, the inflated start of an input, is not that of a VCF or BCF."""
    for magic, what, advice in _MAGIC:
        if content.startswith(magic):
            raise DataError(f"{name} is {what}, not a VCF or BCF", advice)
    text = content[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(_WEB_PAGE):
        raise DataError(
            f"{name} is a web page, not a VCF or BCF: the download failed",
            "read the page and download the file again",
        )
    if content[257:262] == b"ustar":
        raise DataError(f"{name} is a tar archive, not a VCF or BCF", "unpack it with 'tar -x'")
    if not content.startswith((b"BCF", b"#", b"\xef\xbb\xbf#")) and b"\0" in content[:1024]:
        raise DataError(f"{name} is binary data of an unknown kind", "give a VCF or BCF")


def _open_object(bucket: Bucket, needed: str) -> Any:
    try:
        return bucket.stream()
    except FileNotFoundError:
        raise NoInput(f"there is no object {bucket.url}", f"give {needed}") from None


def _open(path: str, needed: str) -> tuple[BinaryIO, bool]:
    if path == "-":
        if sys.stdin.isatty():
            raise NoInput("standard input is the terminal", f"pipe {needed} into it")
        return sys.stdin.buffer, False
    try:
        return open(path, "rb", buffering=0), True
    except IsADirectoryError:
        raise NoInput(f"{path} is a directory", f"give {needed}") from None
    except FileNotFoundError:
        raise NoInput(f"there is no file {path}", f"give {needed}") from None
    except (OSError, ValueError) as error:
        raise NoInput(f"{path} cannot be opened: {error}") from error


def _regular_size(file: BinaryIO) -> int | None:
    """Return the size of a regular file, if nothing has been read of it; None for a pipe."""
    try:
        state = os.fstat(file.fileno())
        # `< file` on a command line is a regular file too, but may have been read from.
        if stat.S_ISREG(state.st_mode) and file.tell() == 0:
            return state.st_size
    except (OSError, ValueError):  # standard input may be an in-memory file
        pass
    return None
