"""Inflating inputs: BGZF with every check that the format has, plain gzip, plain bytes.

BGZF (SAM specification, section 4.1) is a series of gzip members, "blocks", of at most 64 KiB
each. It ends with an empty block, so that a file whose end is missing can be told from a whole
one; readers that leave that check out take a file that was cut between blocks for a shorter one.
"""

import struct
import zlib
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from raygenome.errors import DataError
from raygenome.storage.input import RawInput

#: The empty block that ends every BGZF file.
END_OF_FILE = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")

_PIECE = 1 << 20
#: Blocks that one thread inflates at a time: at most 4 MiB of output.
_GROUP = 64
_HEADER = struct.Struct("<4s6xH")
_FOOTER = struct.Struct("<II")
_MEND = "download or copy it again"

#: A block: its offset in the file, the deflated bytes, and the CRC32 and length of its content.
_Block = tuple[int, memoryview, int, int]


def pieces(raw: RawInput, *, threads: int) -> Generator[bytes]:
    """Yield the content of `raw`, inflated; where it is cut depends on the content alone.

    Args:
        raw: the input, at its start.
        threads: how many threads inflate BGZF blocks; one more works on their content meanwhile.

    Raises:
        DataError: damaged or truncated. A truncated BGZF file is refused before anything is
            yielded; a truncated stream at its end.
    """
    head = raw.peek()
    if is_bgzf(head):
        yield from _inflate_bgzf(raw, threads)
    elif head[:2] == b"\x1f\x8b":
        yield from _inflate_gzip(raw)
    else:
        while data := raw.read(_PIECE):
            yield data


def is_bgzf(head: bytes) -> bool:
    """Tell whether a file that begins with `head` begins with a BGZF block."""
    return _block_size(head, 0) > 0


def _inflate_bgzf(raw: RawInput, threads: int) -> Iterator[bytes]:
    if raw.stored_size is not None:
        check_end(raw.name, raw.stored_size, raw.tail(1 << 16))
    # Not the pool's context manager: on the way out it would first do all that is still waiting.
    pool = ThreadPoolExecutor(threads, thread_name_prefix="inflate")
    waiting: deque[Future[bytes]] = deque()
    try:
        for group in _groups(raw):
            waiting.append(pool.submit(_inflate_group, raw.name, group))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _groups(raw: RawInput) -> Iterator[list[_Block]]:
    """Yield the blocks of `raw` in groups; the last must be the end-of-file block."""
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
            group.append(_block(view, at, size, origin))
            if len(group) == _GROUP:
                yield group
                group = []
            last = data[at : at + size] if size == len(END_OF_FILE) else b""
            at += size
    if at < len(data) or last != END_OF_FILE:
        raise _truncated(raw.name, raw.offset)
    yield group


def _block_size(data: bytes, at: int, *, name: str | None = None, origin: int = 0) -> int:
    """Return the size of the block at `data[at:]`; 0 where too little of it is there to tell.

    With `name`, the input's, DataError is raised where no block begins; without it, 0 returned.
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
        f"{name} is damaged: at byte {origin + at} something other than a bgzip block follows; "
        + _MEND
    )


def _block(view: memoryview, at: int, size: int, origin: int) -> _Block:
    start = at + 12 + view[at + 10] + (view[at + 11] << 8)
    end = max(at + size - 8, start)  # a size too small for its own header fails as bad deflate
    crc, length = _FOOTER.unpack_from(view, at + size - 8) if size >= 26 else (0, 0)
    return origin + at, view[start:end], crc, length


def _inflate_group(name: str, group: list[_Block]) -> bytes:
    """Return the content of the blocks, checked."""
    parts = []
    for offset, deflated, crc, length in group:
        try:
            content = zlib.decompress(deflated, wbits=-15, bufsize=min(length, 1 << 16) or 1)
        except zlib.error:
            content = None
        if content is None or len(content) != length or zlib.crc32(content) != crc:
            raise DataError(
                f"{name} is damaged: the bgzip block at byte {offset} fails its checksum; {_MEND}"
            )
        parts.append(content)
    return b"".join(parts)


def check_end(name: str, size: int, tail: bytes) -> None:
    """Raise DataError if a file of `size` bytes, the last of them `tail`, ends not as BGZF must."""
    if tail.endswith(END_OF_FILE):
        return
    found = tail.rfind(END_OF_FILE)
    after = tail[found + len(END_OF_FILE) :]
    if found >= 0 and not after.startswith(END_OF_FILE[: min(len(after), 4)]):
        start = size - len(after)
        raise DataError(
            f"{name} is damaged: {len(after)} bytes that are not bgzip follow its end-of-file "
            f"block at byte {start}; {_MEND}"
        )
    raise _truncated(name, size)


def _truncated(name: str, size: int) -> DataError:
    return DataError(f"{name} is truncated at byte {size} (no BGZF end-of-file block); {_MEND}")


def _inflate_gzip(raw: RawInput) -> Iterator[bytes]:
    """Yield the content of gzip members one after the other; zlib checks CRC32 and length."""
    data = raw.read(_PIECE)
    while data:
        if data[:2] != b"\x1f\x8b"[: len(data)]:
            start = raw.offset - len(data)
            raise DataError(
                f"{raw.name} is damaged: what follows its gzip data at byte {start} is not gzip; "
                + _MEND
            )
        inflater = zlib.decompressobj(wbits=31)
        while not inflater.eof:
            if not data:
                raise DataError(
                    f"{raw.name} is truncated at byte {raw.offset} (its gzip data goes on); {_MEND}"
                )
            try:
                content = inflater.decompress(data, 4 * _PIECE)
            except zlib.error as error:
                start = raw.offset - len(data)
                raise DataError(
                    f"{raw.name} is damaged: its gzip data after byte {start} cannot be inflated "
                    f"({error}); {_MEND}"
                ) from error
            if content:
                yield content
            data = inflater.unused_data or inflater.unconsumed_tail or raw.read(_PIECE)
