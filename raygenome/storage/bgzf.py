"""Inflating inputs: BGZF with every check that the format has, plain gzip, plain bytes.

BGZF (SAM specification, section 4.1) is a series of gzip members, "blocks", each of at most 64 KiB
of content. It ends with an empty block, so that a truncated file can be recognised;
a reader without that check takes a file that was cut between two blocks for a shorter one.
"""

import contextlib
import os
import struct
import zlib
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from raygenome.errors import DataError
from raygenome.storage.input import PEEK, RawInput

#: The empty block that ends every BGZF file.
END_OF_FILE = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")

_GZIP = b"\x1f\x8b"
_PIECE = 1 << 20
#: The most content of a block, and the most bytes of a block in the file.
_MAX_BLOCK = 1 << 16
#: Blocks that one thread inflates at a time: at most 4 MiB of content.
_GROUP = 64
_HEADER = struct.Struct("<4s6xH")
_FOOTER = struct.Struct("<II")
_COPY_AGAIN = "download or copy it again"

#: A block: its offset in the file, the deflated bytes, and the CRC32 and length of its content.
_Block = tuple[int, bytes | memoryview, int, int]


def is_bgzf(head: bytes) -> bool:
    """Return whether a file that begins with `head` begins with a BGZF block."""
    return _block_size(head, 0) > 0


def inflated_head(raw: RawInput) -> bytes:
    """Return the first bytes of the content of `raw`, inflated where it is gzip or BGZF.

    Damage is no error here: reading the whole input finds it again.
    """
    head = raw.peek()
    if head[:2] != _GZIP:
        return head
    with contextlib.suppress(zlib.error):
        return zlib.decompressobj(wbits=31).decompress(head, PEEK)
    return b""


def pieces(raw: RawInput, *, threads: int) -> Generator[bytes]:
    """Yield the content of `raw`, inflated, in pieces that do not depend on `threads`.

    Args:
        raw: the input, at its start.
        threads: how many threads inflate BGZF blocks, beside the one that uses the content.

    Raises:
        DataError: the input is damaged or truncated. A truncated BGZF file is refused before
            anything is yielded; a truncated stream at its end.
    """
    head = raw.peek()
    if is_bgzf(head):
        yield from _inflate_bgzf(raw, threads)
    elif head[:2] == _GZIP:
        yield from _inflate_gzip(raw)
    else:
        while data := raw.read(_PIECE):
            yield data


# --------------------------------------------------------------------------------------------
# BGZF from front to back


def _inflate_bgzf(raw: RawInput, threads: int) -> Iterator[bytes]:
    if raw.stored_size is not None:
        check_end(raw.name, raw.stored_size, raw.tail(_MAX_BLOCK))
    # Not `with`: on leaving early that would first inflate everything that is still queued.
    pool = ThreadPoolExecutor(threads, thread_name_prefix="inflate")
    waiting: deque[Future[bytes]] = deque()
    try:
        for group in _groups(raw):
            waiting.append(pool.submit(_inflate, raw.name, group))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _groups(raw: RawInput) -> Iterator[list[_Block]]:
    """Yield the blocks of `raw` in groups; the last block must be the end-of-file block."""
    group: list[_Block] = []
    data, at = b"", 0
    last = b""
    while more := raw.read(_PIECE):
        origin = raw.offset - len(more) - (len(data) - at)
        data, at = data[at:] + more, 0
        view = memoryview(data)
        while size := _block_size(data, at, name=raw.name, origin=origin):
            if at + size > len(data):
                break
            group.append(_block(view[at : at + size], origin + at))
            if len(group) == _GROUP:
                yield group
                group = []
            last = data[at : at + size] if size == len(END_OF_FILE) else b""
            at += size
    if at < len(data) or last != END_OF_FILE:
        raise _truncated(raw.name, raw.offset)
    yield group


def _block_size(data: bytes, at: int, *, name: str | None = None, origin: int = 0) -> int:
    """Return the size in bytes of the block that begins at `data[at]`.

    It is 0 if `data` ends too early to know it. If no block begins there, it is 0 as well, or a
    DataError where `name` is given.

    Args:
        data: some bytes of the file.
        at: where in `data` the block begins.
        name: the input's, for the message.
        origin: where in the file `data` begins.
    """
    if at + 18 > len(data):
        return 0
    magic, extra_length = _HEADER.unpack_from(data, at)
    if magic == b"\x1f\x8b\x08\x04":
        if extra_length == 6 and data[at + 12 : at + 16] == b"BC\x02\x00":
            return data[at + 16] + (data[at + 17] << 8) + 1
        end = at + 12 + extra_length
        if end > len(data):
            return 0
        field = at + 12
        while field + 6 <= end:
            length = data[field + 2] + (data[field + 3] << 8)
            if data[field : field + 4] == b"BC\x02\x00":
                return data[field + 4] + (data[field + 5] << 8) + 1
            field += 4 + length
    if name is None:
        return 0
    raise DataError(
        f"{name} is damaged: at byte {origin + at} there is something other than a bgzip block",
        _COPY_AGAIN,
    )


def _block(stored: bytes | memoryview, offset: int) -> _Block:
    """Return the parts of a block, given its bytes and its offset in the file."""
    size = len(stored)
    start = 12 + stored[10] + (stored[11] << 8)
    end = max(size - 8, start)  # a size too small for its own header fails as damaged data
    crc, length = _FOOTER.unpack_from(stored, size - 8) if size >= 26 else (0, 0)
    return offset, stored[start:end], crc, length


def _inflate(name: str, blocks: list[_Block]) -> bytes:
    """Return the content of blocks, checked.

    Raises:
        DataError: a block is damaged.
    """
    parts = []
    for offset, deflated, crc, length in blocks:
        content = None
        if length <= _MAX_BLOCK:  # so that the content of a group is bounded
            with contextlib.suppress(zlib.error):
                content = zlib.decompress(deflated, wbits=-15, bufsize=length or 1)
        if content is None or len(content) != length or zlib.crc32(content) != crc:
            raise DataError(
                f"{name} is damaged: the bgzip block at byte {offset} fails its checksum",
                _COPY_AGAIN,
            )
        parts.append(content)
    return b"".join(parts)


def check_end(name: str, size: int, tail: bytes) -> None:
    """Check that a BGZF file ends with the end-of-file block.

    Args:
        name: the file's, for the message.
        size: of the file in bytes.
        tail: its last bytes.

    Raises:
        DataError: it is truncated, or other bytes follow that block.
    """
    if tail.endswith(END_OF_FILE):
        return
    found = tail.rfind(END_OF_FILE)
    after = tail[found + len(END_OF_FILE) :]
    if found >= 0 and not after.startswith(END_OF_FILE[: min(len(after), 4)]):
        start = size - len(after)
        raise DataError(
            f"{name} is damaged: {len(after)} bytes that are not bgzip follow its end-of-file "
            f"block at byte {start}",
            _COPY_AGAIN,
        )
    raise _truncated(name, size)


def _truncated(name: str, size: int) -> DataError:
    return DataError(f"{name} is truncated at byte {size} (no BGZF end-of-file block)", _COPY_AGAIN)


# --------------------------------------------------------------------------------------------
# BGZF at any place


class BgzfFile:
    """The content of a BGZF file, read at any offset.

    The table of all blocks is read from their headers and footers, without inflating anything. So
    it always fits the file, as an index beside the file may not.

    Attributes:
        size: bytes of content.
        starts: int64 (blocks + 1, 2), the offset of each block in the file and in the content;
            the last row is the end.

    Raises:
        DataError: the file is truncated, or something in it is not a BGZF block.
    """

    def __init__(self, path: Path) -> None:
        self._name = str(path)
        self._file = path.open("rb")
        try:
            self.starts = self._walk(path.stat().st_size)
        except BaseException:
            self._file.close()
            raise
        self.size = int(self.starts[-1, 1])
        self._last: tuple[int, bytes] = (-1, b"")

    def _walk(self, size: int) -> np.ndarray:
        """Return `starts`. Small reads, no mmap: its pages would count as memory in use."""
        descriptor = self._file.fileno()
        tail = os.pread(descriptor, _MAX_BLOCK, max(size - _MAX_BLOCK, 0))
        check_end(self._name, size, tail)
        starts = []
        at = content = 0
        head = os.pread(descriptor, 18, 0)
        while at < size:
            block = _block_size(head, 0, name=self._name, origin=at)
            if block == 0:  # fields before BC
                head = os.pread(descriptor, _MAX_BLOCK, at)
                block = _block_size(head, 0, name=self._name, origin=at)
            if not 26 <= block <= size - at:
                raise _truncated(self._name, size)
            starts.append((at, content))
            at += block
            # A block's last four bytes are the length of its content; the next header follows.
            footer = os.pread(descriptor, 22, at - 4)
            content += int.from_bytes(footer[:4], "little")
            head = footer[4:]
        return np.array([*starts, (at, content)], dtype=np.int64)

    def read(self, start: int, stop: int) -> bytes:
        """Return bytes [start, stop) of the content, fewer at its end.

        Raises:
            DataError: a block is damaged.
        """
        parts = []
        stop = min(stop, self.size)
        while start < stop:
            block = int(np.searchsorted(self.starts[:, 1], start, side="right")) - 1
            first = int(self.starts[block, 1])
            parts.append(self._content(block)[start - first : stop - first])
            start += len(parts[-1])
        return b"".join(parts)

    def _content(self, block: int) -> bytes:
        if self._last[0] != block:
            start, stop = self.starts[block : block + 2, 0].tolist()
            stored = os.pread(self._file.fileno(), stop - start, start)
            self._last = (block, _inflate(self._name, [_block(stored, start)]))
        return self._last[1]

    def gzi(self) -> bytes:
        """Return the file's .gzi index: where each block with content starts, but the first."""
        has_content = np.diff(self.starts[:, 1]) > 0
        table = self.starts[:-1][has_content][1:]
        return struct.pack("<Q", len(table)) + table.astype("<u8").tobytes()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


# --------------------------------------------------------------------------------------------
# gzip


def _inflate_gzip(raw: RawInput) -> Iterator[bytes]:
    """Yield the content of all gzip members; zlib checks their CRC32 and length."""
    data = raw.read(_PIECE)
    while data:
        if data[:2] != _GZIP[: len(data)]:
            start = raw.offset - len(data)
            raise DataError(
                f"{raw.name} is damaged: bytes that are not gzip follow its gzip data at byte "
                f"{start}",
                _COPY_AGAIN,
            )
        inflater = zlib.decompressobj(wbits=31)
        while not inflater.eof:
            if not data:
                raise DataError(
                    f"{raw.name} is truncated at byte {raw.offset} (its gzip data is not complete)",
                    _COPY_AGAIN,
                )
            try:
                content = inflater.decompress(data, 4 * _PIECE)
            except zlib.error as error:
                start = raw.offset - len(data)
                raise DataError(
                    f"{raw.name} is damaged: its gzip data after byte {start} cannot be inflated "
                    f"({error})",
                    _COPY_AGAIN,
                ) from error
            if content:
                yield content
            data = inflater.unused_data or inflater.unconsumed_tail or raw.read(_PIECE)
