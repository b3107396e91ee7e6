"""Whether a model is whole, and whether it gives the same numbers however it is computed."""

import contextlib
from collections.abc import Iterator

import numpy as np

from raygenome.doctor.finding import Finding, failed
from raygenome.errors import RaygenomeError
from raygenome.genome.sequence import N_CODE, decode
from raygenome.genome.windows import Alleles, WindowSpec
from raygenome.registry.model import Model

#: Largest difference that rounding of float32 explains.
TOLERANCE = 1e-5
#: What is scored: so many SNVs and so many indels, of up to so many bases, in so many windows.
_SNVS, _INDELS, _LONGEST, _WINDOWS = 24, 8, 8, 3
_SEED = 0
_DO = "get the model again, or train it anew"


def check_model(name: str) -> list[Finding]:
    """Return whether a model's files are sound, and whether its engines agree on a few variants.

    Args:
        name: of a model, or its directory.
    """
    try:
        model = Model.open(name)
        model.net()  # every weight, and that it is finite
    except (RaygenomeError, OSError) as error:
        return [failed("model", error, _DO)]
    spec = model.spec
    said = f"{spec.name}: {spec.architecture}, {spec.targets:,} targets, {spec.window:,} bp"
    return [Finding("model", "ok", said), *_agreements(model)]


def _agreements(model: Model) -> list[Finding]:
    """Return how far the ways of computing a model's effects lie apart."""
    import torch

    alleles, sequence = random_variants(model.spec.window)
    with _plain_float32():
        oracle = effects(model, "full", "cpu", alleles, sequence)
        if not np.isfinite(oracle).all():
            said = f"values that are not finite, for some of {len(oracle)} variants"
            return [Finding("effects", "problem", said, _DO)]
        findings = [_incremental(model, oracle, alleles, sequence)]
        if torch.cuda.is_available():
            try:
                found = effects(model, "full", "cuda", alleles, sequence)
            except RuntimeError as error:  # what torch raises for whatever a GPU does wrong
                said = f"the GPU failed: {str(error).splitlines()[0]}"
                return [*findings, Finding("GPU and CPU", "problem", said, "--device cpu works")]
            findings.append(_compare("GPU and CPU", found, oracle, "use --device cpu"))
        else:
            findings.append(Finding("GPU and CPU", "skipped", "torch finds no GPU"))
    return findings


def _incremental(
    model: Model, oracle: np.ndarray, alleles: Alleles, sequence: "RandomSequence"
) -> Finding:
    """Compare the incremental engine with the full one, where it can compute the net."""
    from raygenome.engines.choice import choose_engine

    engine, why = choose_engine("auto", model.empty_net())
    if engine != "incremental":
        return Finding("engines", "note", f"scored with --engine full: {why}")
    found = effects(model, "incremental", "cpu", alleles, sequence)
    return _compare("engines", found, oracle, "use --engine full, and tell us of the model")


def effects(
    model: Model, engine: str, device: str, alleles: Alleles, sequence: "RandomSequence"
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


class RandomSequence:
    """A contig of random bases, N beyond its ends."""

    def __init__(self, length: int, seed: int) -> None:
        self.codes = np.random.default_rng(seed).integers(0, 4, length).astype(np.uint8)

    def fetch(self, start: int, end: int) -> np.ndarray:
        """Return the codes of [start, end)."""
        codes = np.full(end - start, N_CODE, dtype=np.uint8)
        first, last = max(start, 0), min(end, len(self.codes))
        if first < last:
            codes[first - start : last - start] = self.codes[first:last]
        return codes


def random_variants(window: int) -> tuple[Alleles, RandomSequence]:
    """Return SNVs and indels on a random contig of a few windows, the same ones each time."""
    sequence = RandomSequence(_WINDOWS * window, _SEED)
    rng = np.random.default_rng(_SEED + 1)
    count = _SNVS + _INDELS
    start = np.sort(rng.choice(len(sequence.codes) - _LONGEST, count, replace=False))
    ref_length = np.ones(count, dtype=np.int64)
    alts = [decode((sequence.codes[[at]] + rng.integers(1, 4)) % 4).encode() for at in start]
    for row in rng.choice(count, _INDELS, replace=False):
        ref_length[row] = rng.integers(1, _LONGEST)
        alts[row] = decode(rng.integers(0, 4, rng.integers(2, _LONGEST))).encode()
    return Alleles(start.astype(np.int64), ref_length, alts), sequence


def _compare(check: str, found: np.ndarray, oracle: np.ndarray, do: str) -> Finding:
    """Return whether two ways agree to what rounding explains."""
    apart = float(np.abs(found - oracle).max())
    said = f"{len(oracle)} variants differ by at most {apart:.1e}"
    if apart <= TOLERANCE:  # false of NaN too
        return Finding(check, "ok", said)
    return Finding(check, "problem", said, f"at most {TOLERANCE:.0e} is rounding; {do}")


@contextlib.contextmanager
def _plain_float32() -> Iterator[None]:
    """Have CUDA multiply in float32, as runs do unless told otherwise."""
    import torch

    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
