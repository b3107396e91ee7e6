"""Functions that write VCF files in every supported form, and a slow, simple reader."""

import gzip
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pysam

from raygenome.storage.bgzf import END_OF_FILE

#: (chrom, pos or None, id, ref, alt, filter)
Site = tuple[str, int | None, str, str, str, str]

HEADER = (
    "##fileformat=VCFv4.2\n"
    "##contig=<ID=chr20,length=64444167>\n"
    "##contig=<ID=HLA-A*01:01>\n"
    '##FILTER=<ID=q10,Description="quality, below 10">\n'
    '##FILTER=<ID=s50,Description="samples">\n'
    '##INFO=<ID=END,Number=1,Type=Integer,Description="end">\n'
    '##INFO=<ID=S,Number=1,Type=String,Description="text">\n'
    '##FORMAT=<ID=GT,Number=1,Type=String,Description="genotype">\n'
    "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\ts1\ts2\n"
)


def random_vcf(n: int, seed: int, *, longest_info: int = 300) -> str:
    """Return a VCF of n records that can also be stored as BCF."""
    rng = np.random.default_rng(seed)

    def bases() -> str:
        return "".join(rng.choice(list("ACGT"), rng.choice([1, 1, 1, 2, 9, 90])))

    lines = []
    for start in np.sort(rng.integers(1, 60_000_000, n)).tolist():
        ref = bases()
        alts = {
            str(rng.choice(["<DEL>", "*", "<NON_REF>"])) if rng.random() < 0.1 else bases()
            for _ in range(rng.choice([0, 1, 1, 1, 2, 5]))
        }
        alts.discard(ref)
        fields = (
            str(rng.choice(["chr20", "HLA-A*01:01"])),
            str(start),
            str(rng.choice([".", f"rs{start}", "a;b"])),
            ref,
            ",".join(sorted(alts)) or ".",
            str(rng.choice([".", "100", "3.5"])),
            str(rng.choice([".", "PASS", "q10", "q10;s50", "s50;q10"])),
            "S=" + "x" * int(rng.integers(1, longest_info)),
            "GT",
            "0/1",
            "1|1",
        )
        lines.append("\t".join(fields) + "\n")
    return HEADER + "".join(lines)


def bgzf(content: bytes, *, block: int = 65_280, end: bytes = END_OF_FILE) -> bytes:
    """Return `content` as BGZF, with `block` bytes of it per block."""
    parts = [content[i : i + block] for i in range(0, len(content), block)]
    return b"".join(map(bgzf_block, parts)) + end


def bgzf_block(content: bytes, *, fields_before: bytes = b"") -> bytes:
    deflater = zlib.compressobj(wbits=-15)
    deflated = deflater.compress(content) + deflater.flush()
    extra = 6 + len(fields_before)
    head = b"\x1f\x8b\x08\x04\0\0\0\0\0\xff" + struct.pack("<H", extra) + fields_before
    size = struct.pack("<HH", 2, 12 + extra + len(deflated) + 8 - 1)
    return head + b"BC" + size + deflated + struct.pack("<II", zlib.crc32(content), len(content))


def block_starts(stored: bytes) -> list[int]:
    starts, at = [], 0
    while at < len(stored):
        starts.append(at)
        at += struct.unpack_from("<H", stored, at + 16)[0] + 1
    return starts


def write_forms(folder: Path, text: str) -> dict[str, Path]:
    """Write `text` as each kind of supported file; return the paths by kind."""
    content = text.encode()
    stored = {
        "plain.vcf": content,
        "bgzip.vcf.gz": bgzf(content),
        "small_blocks.vcf.bgz": bgzf(content, block=777),
        "gzip.vcf.gz": gzip.compress(content),
        "members.vcf.gz": gzip.compress(content[:1000]) + gzip.compress(content[1000:]),
        "misnamed.txt": bgzf(content),
    }
    paths = {name: folder / name for name in stored}
    for name, path in paths.items():
        path.write_bytes(stored[name])
    paths["binary.bcf"] = write_bcf(folder / "binary.bcf", paths["plain.vcf"])
    return paths


def write_bcf(path: Path, vcf: Path, mode: str = "wb") -> Path:
    with (
        pysam.VariantFile(str(vcf)) as source,
        pysam.VariantFile(str(path), mode, header=source.header) as out,
    ):
        for record in source:
            out.write(record)
    return path


def slow_sites(text: bytes) -> tuple[list[Site], int]:
    """Return the sites of VCF text, read line by line, and the number of blank lines."""
    lines = text.split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    sites: list[Site] = []
    blank = 0
    in_header = True
    for line in lines:
        line = line[:-1] if line.endswith(b"\r") else line
        if line == b"":
            blank += 1
        elif in_header:
            in_header = not line.startswith(b"#CHROM")
        else:
            fields = [field.decode("utf-8", "replace") for field in line.split(b"\t")]
            pos = int(fields[1]) if re.fullmatch(r"-?[0-9]{1,18}", fields[1], re.ASCII) else None
            filters = fields[6] if len(fields) > 6 else "."
            sites.append((fields[0], pos, fields[2], fields[3], fields[4], filters))
    return sites, blank
