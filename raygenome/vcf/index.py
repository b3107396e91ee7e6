"""What a tabix index (.tbi, .csi) says of the file that it was made from: where its records end.

An index that lies beside a VCF may be of an earlier one; then htslib leaves out, without a word,
what the VCF has beyond. Names of fields are those of the tabix and CSI specifications.
"""

import gzip
import struct
import zlib

#: The pseudo-bin of a .tbi that holds counts; that of a .csi depends on its depth.
_TBI_META = 37450


def last_offset(data: bytes) -> int:
    """Return the largest `cnk_end` of an index, 0 where it has no chunk.

    It is a virtual offset, `coffset << 16 | uoffset`: where a block of the compressed file begins,
    and how far into its content the last record goes. htslib writes there where the end-of-file
    block begins, htsjdk the end of the content of the block before.

    Args:
        data: the index as it is stored, compressed.

    Raises:
        ValueError: this is no index, or a damaged one.
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
    """Return the largest `cnk_end` of the bins of all sequences, the first of which is at `at`."""
    largest = 0
    for _ in range(n_ref):
        (n_bin,) = struct.unpack_from("<i", content, at)
        at += 4
        for _ in range(n_bin):
            number, n_chunk = struct.unpack_from("<I8xi" if csi else "<Ii", content, at)
            at += 16 if csi else 8
            ends = struct.unpack_from(f"<{2 * n_chunk}Q", content, at)[1::2]
            at += 16 * n_chunk
            if number != meta:  # whose second "chunk" is two counts
                largest = max(largest, *ends)
        if not csi:
            (n_intv,) = struct.unpack_from("<i", content, at)
            at += 4 + 8 * n_intv
    return largest


def ends_there(end: int, size: int, tail: bytes) -> bool:
    """Return whether a bgzipped file holds nothing more beyond a virtual offset that it has.

    Args:
        end: the virtual offset.
        size: of the file in bytes.
        tail: its last bytes, at least two blocks of them (128 KiB) or all.
    """
    coffset, uoffset = end >> 16, end & 0xFFFF
    at = coffset - (size - len(tail))
    if not 0 <= at <= len(tail):
        return False
    try:
        rest = gzip.decompress(tail[at:])
    except (EOFError, OSError, zlib.error):  # no block begins there
        return False
    return uoffset <= len(rest) and not rest[uoffset:].strip()
