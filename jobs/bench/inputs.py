"""What all benchmarks share: synthetic genomes and alleles, models of random weights, clocks."""

import contextlib
import multiprocessing
import os
import re
import resource
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from raygenome.genome.sequence import N_CODE, MemoryContig
from raygenome.genome.windows import Alleles, WindowSpec
from raygenome.registry import model, registry

BASES = np.frombuffer(b"ACGT", dtype=np.uint8)

#: Nets by name: architecture and config. The stub is tiny, to try out a benchmark quickly.
MODELS: dict[str, tuple[str, dict[str, Any] | None]] = {
    "deepsea": ("deepsea", None),
    "basset": ("basset", None),
    "beluga": ("beluga", None),
    "stub": (
        "basset",
        {
            "window": 600,
            "targets": 20,
            "channels": [4, 4],
            "kernels": [5, 3],
            "pools": [10, 5],
            "hidden": [4],
        },
    ),
}
#: Bases before the first allele and after the last, so that all windows lie on the genome.
MARGIN = 2000


class Model(NamedTuple):
    """A net of random weights, and the other arguments of an engine."""

    name: str
    net: Any
    options: dict[str, Any]  # channels, n_value, window_spec

    @property
    def window_spec(self) -> WindowSpec:
        """The width and centre of the net's windows."""
        return self.options["window_spec"]


def make_model(name: str) -> Model:
    """Return a model of random weights (seed 0), after adding it to the registry by its name."""
    directory = registry.models_dir() / name
    if not directory.exists():
        architecture, config = MODELS[name]
        registry.init_model(name, architecture, 0, config=config)
    opened = model.Model.open(directory)
    spec = opened.spec
    window_spec = WindowSpec(spec.window, spec.centre)
    options = {"channels": spec.channels, "n_value": spec.n_value, "window_spec": window_spec}
    return Model(name, opened.net(), options)


# --------------------------------------------------------------------------------------------
# alleles at a density


def spacing(density: str) -> float:
    """Return the bases per allele at "saturation", "1/4", "1/4+indels" or "isolated"."""
    if density == "saturation":
        return 1 / 3
    return 3000 if density == "isolated" else float(density.split("+")[0].removeprefix("1/"))


def make_alleles(density: str, count: int, seed: int = 0) -> tuple[MemoryContig, Alleles]:
    """Return a random genome and `count` sorted, distinct alleles on it.

    At "saturation" each base has all three ALTs. At "isolated" no two windows overlap. Otherwise
    sites are random, and some have two ALTs. "+indels" turns a tenth of the alleles into insertions
    and deletions of 1 to 10 bases.
    """
    rng = np.random.default_rng(seed)
    bases = int(count * spacing(density)) + 1
    codes = rng.integers(0, 4, bases + 3000 + 2 * MARGIN, dtype=np.uint8)
    if density == "saturation":
        keys = np.arange(count)
    elif density == "isolated":
        keys = 3 * (3000 * np.arange(count) + rng.integers(0, 300, count)) + rng.integers(
            0, 3, count
        )
    else:
        keys = _distinct(rng, 3 * bases, count)
    start = MARGIN + keys // 3
    alt_codes = (codes[start] + 1 + keys % 3) % 4
    alt = [base.tobytes() for base in BASES[alt_codes]]
    ref_length = np.ones(count, dtype=np.int64)
    if density.endswith("+indels"):
        _make_indels(rng, codes, start, ref_length, alt)
    return MemoryContig(codes), Alleles(start.astype(np.int64), ref_length, alt)


def _distinct(rng: np.random.Generator, below: int, count: int) -> np.ndarray:
    """Return `count` sorted, distinct, random integers below `below`."""
    chosen = np.unique(rng.integers(0, below, count))
    while len(chosen) < count:
        chosen = np.unique(np.r_[chosen, rng.integers(0, below, count - len(chosen))])
    return chosen


def _make_indels(
    rng: np.random.Generator,
    codes: np.ndarray,
    start: np.ndarray,
    ref_length: np.ndarray,
    alt: list[bytes],
) -> None:
    """Turn a tenth of the alleles, in place, into insertions and deletions, anchored as in VCF."""
    for row in np.flatnonzero(rng.random(len(start)) < 0.1).tolist():
        size = int(rng.integers(1, 11))
        alt[row] = BASES[codes[start[row]]].tobytes()
        if rng.random() < 0.5:
            ref_length[row] = 1 + size
        else:
            alt[row] += rng.choice(BASES, size).tobytes()


def random_alleles(count: int, longest: int = 300) -> tuple[MemoryContig, Alleles]:
    """Return a genome with a run of N, and SNVs, MNVs and indels of up to `longest` bases on it."""
    rng = np.random.default_rng(1)
    codes = rng.integers(0, 4, 20 * count + 2 * MARGIN + longest, dtype=np.uint8)
    middle = len(codes) // 2
    codes[middle : middle + 30] = N_CODE
    start = np.sort(rng.integers(MARGIN, MARGIN + 20 * count, count))
    kind = rng.random(count)
    size = np.exp(rng.uniform(0, np.log(longest), count)).astype(np.int64)  # mostly short
    ref_length = np.where((kind > 0.6) & (kind < 0.8), 1 + size, 1)
    ref_length = np.where(kind >= 0.9, rng.integers(2, 6, count), ref_length)
    alt_length = np.where((kind >= 0.8) & (kind < 0.9), 1 + size, 1)
    alt_length = np.where(kind >= 0.9, ref_length, alt_length)
    alt = [rng.choice(BASES, length).tobytes() for length in alt_length.tolist()]
    return MemoryContig(codes), Alleles(start, ref_length.astype(np.int64), alt)


# --------------------------------------------------------------------------------------------
# files


def write_fasta(path: Path, codes: np.ndarray) -> Path:
    """Write codes without N as a FASTA file of one contig, chr1."""
    letters = BASES[codes]
    with path.open("wb") as handle:
        handle.write(b">chr1\n")
        for begin in range(0, len(letters), 60):
            handle.write(letters[begin : begin + 60].tobytes() + b"\n")
    return path


def write_vcf(path: Path, codes: np.ndarray, alleles: Alleles) -> Path:
    """Write a VCF with one record per allele."""
    letters = BASES[codes].tobytes()
    rows = zip(alleles.start.tolist(), alleles.ref_length.tolist(), alleles.alt, strict=True)
    with path.open("w") as handle:
        handle.write(f"##fileformat=VCFv4.3\n##contig=<ID=chr1,length={len(codes)}>\n")
        handle.write('##INFO=<ID=AC,Number=A,Type=Integer,Description="Allele count">\n')
        handle.write("#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n")
        for start, length, alt in rows:
            ref = letters[start : start + length].decode()
            handle.write(f"chr1\t{start + 1}\t.\t{ref}\t{alt.decode()}\t.\tPASS\tAC=1\n")
    return path


def write_inputs(
    folder: Path, contig: MemoryContig, alleles: Alleles, name: str
) -> tuple[Path, Path]:
    """Write the genome and the VCF; return the paths of the FASTA and the VCF."""
    fasta = write_fasta(folder / f"genome-{name}.fa", contig.codes)
    return fasta, write_vcf(folder / f"variants-{name}.vcf", contig.codes, alleles)


def spaced_snvs(records: int, every: int) -> tuple[MemoryContig, Alleles]:
    """Return a random genome and sorted SNVs on it, one in every `every` bases."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 4, records * every + 2 * MARGIN, dtype=np.uint8)
    start = MARGIN + np.arange(records) * every + rng.integers(0, every, records)
    alt = BASES[(codes[start] + rng.integers(1, 4, records)) % 4]
    ones = np.ones(records, dtype=np.int64)
    return MemoryContig(codes), Alleles(start, ones, [base.tobytes() for base in alt])


# --------------------------------------------------------------------------------------------
# measuring


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """Within the block, limit this process to one core and torch to one thread."""
    threads = torch.get_num_threads()
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    if cores:
        os.sched_setaffinity(0, {min(cores)})
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        if cores:
            os.sched_setaffinity(0, cores)


def seconds_of(device: str, work: Callable[[], object]) -> float:
    """Return the seconds of `work`: CPU seconds of this process, or on a GPU wall seconds.

    CPU seconds do not count the time in which other programs use the core.
    """
    if device == "cpu":
        began = time.process_time()
        work()
        return time.process_time() - began
    torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - began


def use_device(device: str, precision: str) -> None:
    """Set up torch as a run does; exit with a one-line message if there is no such device."""
    if device == "cuda":
        if not torch.cuda.is_available():
            raise SystemExit("bench: --device is cuda, and torch finds no usable GPU here")
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        torch.backends.cudnn.allow_tf32 = precision == "tf32"
        torch.backends.cudnn.benchmark = True  # let the plain pass use the fastest routines
        torch.backends.cudnn.deterministic = False
    elif precision == "tf32":
        raise SystemExit("bench: --precision tf32 exists only with --device cuda")


def peak_mib() -> float:
    """Return the peak memory of this process so far, in MiB."""
    # getrusage is the second choice, because it may return the peak of the parent process.
    return memory_now("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def memory_now(name: str) -> float:
    """Return a field of /proc/self/status in MiB; 0 if there is no such field or file."""
    status = Path("/proc/self/status")
    text = status.read_text() if status.exists() else ""
    found = re.search(rf"^{name}:\s+(\d+) kB$", text, re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0


@contextlib.contextmanager
def own_process() -> Iterator[Any]:
    """Yield a pool of one new process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        yield pool


def print_table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """Print aligned columns: the first to the left, all others to the right."""
    table = [list(heads), *(list(row) for row in rows)]
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    for row in table:
        cells = [row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]
        print("  ".join(cells), flush=True)
