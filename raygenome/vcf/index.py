"""Where the records of a file end according to its tabix index (.tbi, .csi).

The index beside a VCF may have been made from an earlier version of it. Then htslib leaves out,
without a warning, what the VCF has beyond that. Field names are those of the tabix and CSI
specifications.
"""

import gzip
import struct
import zlib

#: The pseudo-bin of a .tbi that holds counts; that of a .csi depends on its depth.
_TBI_META = 37450


def last_offset(data: bytes) -> int:
    """Return the largest `cnk_end` of an index, 0 where it has no chunk.

    It is a virtual offset, `coffset << 16 | uoffset`: the offset of a block in the compressed file,
    and the end of the last record in the block's content. htslib writes the start of the
    end-of-file block, htsjdk the end of the content of the block before it.

    Args:
        data: the index as stored, compressed.

    Raises:
        ValueError: this is not an index, or it is damaged.
    """
    try:
        content = gzip.decompress(data)
        if content[:4] == b"TBI\1":
            n_ref, l_nm = struct.unpack_from("<4xi24xi", content)
            return _largest_end(content, 36 + l_nm, n_ref, _TBI_META, csi=False)
        if content[:4] == b"CSI\1":
            depth, l_aux = struct.unpack_from("<8xii", content)
            (n_ref,) = struct.unpack_from("<i", content, 16 + l_aux)
            meta = ((1 << 3 * (depth + 1)) - 1) // 7 + 1
            return _largest_end(content, 20 + l_aux, n_ref, meta, csi=True)
    except (EOFError, OSError, struct.error, zlib.error) as error:
        raise ValueError(f"damaged: {error}") from error
    raise ValueError("neither .tbi nor .csi by its content")


def _largest_end(content: bytes, at: int, n_ref: int, meta: int, *, csi: bool) -> int:
    """Return the largest `cnk_end` of all bins; the first sequence begins at offset `at`."""
    largest = 0
    for _ in range(n_ref):
        (n_bin,) = struct.unpack_from("<i", content, at)
        at += 4
        for _ in range(n_bin):
            number, n_chunk = struct.unpack_from("<I8xi" if csi else "<Ii", content, at)
            at += 16 if csi else 8
            ends = struct.unpack_from(f"<{2 * n_chunk}Q", content, at)[1::2]
            at += 16 * n_chunk
            if number != meta:  # the second "chunk" of that bin is two counts
                largest = max(largest, *ends)
        if not csi:
            (n_intv,) = struct.unpack_from("<i", content, at)
            at += 4 + 8 * n_intv
    return largest


def ends_there(end: int, size: int, tail: bytes) -> bool:
    """Return whether a bgzipped file has no records after a virtual offset.

    Args:
        end: the virtual offset.
        size: of the file in bytes.
        tail: its last bytes, at least 128 KiB (two blocks) or all.
    """
    coffset, uoffset = end >> 16, end & 0xFFFF
    at = coffset - (size - len(tail))
    if not 0 <= at <= len(tail):
        return False
    try:
        rest = gzip.decompress(tail[at:])
    except (EOFError, OSError, zlib.error):  # no block begins at this offset
        return False
    return uoffset <= len(rest) and not rest[uoffset:].strip()
