"""Whether a model is complete, and whether all engines and devices give the same numbers."""

import contextlib
from collections.abc import Iterator

import numpy as np

from raygenome.doctor.finding import Finding, failed
from raygenome.errors import RaygenomeError
from raygenome.genome.sequence import MemoryContig, decode
from raygenome.genome.windows import Alleles, WindowSpec
from raygenome.registry.model import Model

#: Largest difference that float32 rounding explains.
TOLERANCE = 1e-5
#: Test variants: number of SNVs and indels, longest allele, and windows on the test contig.
_SNVS, _INDELS, _LONGEST, _WINDOWS = 24, 8, 8, 3
_SEED = 0
_DO = "get the model again, or train it again"


def check_model(name: str) -> list[Finding]:
    """Return whether a model's files are valid, and whether its engines agree on a few variants.

    Args:
        name: of a model, or its directory.
    """
    try:
        model = Model.open(name)
        model.net()  # reads every weight, and checks that it is finite
    except (RaygenomeError, OSError) as error:
        return [failed("model", error, _DO)]
    spec = model.spec
    found = f"{spec.name}: {spec.architecture}, {spec.targets:,} targets, {spec.window:,} bp"
    return [Finding("model", "ok", found), *_agreements(model)]


def _agreements(model: Model) -> list[Finding]:
    """Return how much a model's effects differ between engines and devices."""
    import torch

    alleles, sequence = random_variants(model.spec.window)
    with _plain_float32():
        oracle = effects(model, "full", "cpu", alleles, sequence)
        if not np.isfinite(oracle).all():
            found = f"values that are not finite, for some of {len(oracle)} test variants"
            return [Finding("effects", "problem", found, _DO)]
        findings = [_incremental(model, oracle, alleles, sequence)]
        if torch.cuda.is_available():
            try:
                on_gpu = effects(model, "full", "cuda", alleles, sequence)
            except RuntimeError as error:  # torch raises it for every error of a GPU
                found = f"the GPU failed: {str(error).splitlines()[0]}"
                return [*findings, Finding("GPU and CPU", "problem", found, "use --device cpu")]
            findings.append(_compare("GPU and CPU", on_gpu, oracle, "use --device cpu"))
        else:
            findings.append(Finding("GPU and CPU", "skipped", "torch finds no GPU"))
    return findings


def _incremental(
    model: Model, oracle: np.ndarray, alleles: Alleles, sequence: MemoryContig
) -> Finding:
    """Compare the incremental engine with the full one, if it supports the net."""
    from raygenome.engines.choice import choose_engine

    engine, why = choose_engine("auto", model.empty_net())
    if engine != "incremental":
        return Finding("engines", "note", f"only --engine full supports this model: {why}")
    found = effects(model, "incremental", "cpu", alleles, sequence)
    return _compare("engines", found, oracle, "use --engine full, and report the model to us")


def effects(
    model: Model, engine: str, device: str, alleles: Alleles, sequence: MemoryContig
) -> np.ndarray:
    """Return the `diff` of alleles by an engine: float32 (alleles, targets)."""
    from raygenome.engines.choice import make_engine

    spec = model.spec
    made = make_engine(
        engine,
        model.net(),
        channels=spec.channels,
        n_value=spec.n_value,
        window_spec=WindowSpec(spec.window, spec.centre),
        device=device,
    )
    try:
        return np.concatenate([block.diff for block in made.effects(alleles, sequence)])
    finally:
        made.close()


def random_variants(window: int) -> tuple[Alleles, MemoryContig]:
    """Return SNVs and indels on a random contig of a few windows, the same ones each time."""
    bases = np.random.default_rng(_SEED).integers(0, 4, _WINDOWS * window)
    sequence = MemoryContig(bases.astype(np.uint8))
    rng = np.random.default_rng(_SEED + 1)
    count = _SNVS + _INDELS
    start = np.sort(rng.choice(len(sequence.codes) - _LONGEST, count, replace=False))
    ref_length = np.ones(count, dtype=np.int64)
    alts = [decode((sequence.codes[[at]] + rng.integers(1, 4)) % 4).encode() for at in start]
    for row in rng.choice(count, _INDELS, replace=False):
        ref_length[row] = rng.integers(1, _LONGEST)
        alts[row] = decode(rng.integers(0, 4, rng.integers(2, _LONGEST))).encode()
    return Alleles(start.astype(np.int64), ref_length, alts), sequence


def _compare(check: str, other: np.ndarray, oracle: np.ndarray, do: str) -> Finding:
    """Return whether two results agree up to rounding."""
    apart = float(np.abs(other - oracle).max())
    if apart <= TOLERANCE:  # False for NaN
        found = f"both agree on {len(oracle)} test variants (largest difference {apart:.1e})"
        return Finding(check, "ok", found)
    found = f"{len(oracle)} test variants differ by up to {apart:.1e}"
    return Finding(check, "problem", found, f"at most {TOLERANCE:.0e} is rounding; {do}")


@contextlib.contextmanager
def _plain_float32() -> Iterator[None]:
    """Make CUDA multiply in float32 within the block, as runs do by default."""
    import torch

    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
