"""The options of a scoring run, checked as a whole before any work."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raygenome.engines import ENGINES
from raygenome.errors import UsageError
from raygenome.genome.windows import INDEL_MODES

CHOICES = {
    "device": ("auto", "cpu", "cuda"),
    "precision": ("fp32", "tf32", "bf16"),
    "engine": ENGINES,
    "strands": ("both", "forward"),
    "effects": ("full", "top"),
    "effect_dtype": ("float16", "float32"),
    "indel_mode": INDEL_MODES,
    "ref_mismatch": ("skip", "error", "keep"),
}


@dataclass(frozen=True)
class ScoreOptions:
    """How to score; each field is the command line's option of the same name.

    Raises:
        UsageError: a value that is not on offer, or options that contradict each other.
    """

    device: str = "auto"
    precision: str = "fp32"
    engine: str = "auto"
    strands: str = "both"
    effects: str = "full"
    effect_dtype: str = "float16"
    top_k: int = 16
    top_n: int = 1000
    log_odds: bool = False
    indel_mode: str = "symmetric"
    ref_mismatch: str = "skip"
    shard_size: int | None = None
    regions: Sequence[str] = ()
    regions_file: Sequence[str | Path] = ()
    apply_filters: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Check every value against what is on offer."""
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                raise UsageError(
                    f"{_flag(name)} is {value!r}; it must be one of {', '.join(choices)}"
                )
        for name in ("top_k", "top_n", "shard_size"):
            value = getattr(self, name)
            if name == "shard_size" and value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise UsageError(
                    f"{_flag(name)} is {value!r}; it must be a whole number, 1 or more"
                )
        if not isinstance(self.log_odds, bool):
            raise UsageError(f"--log-odds is {self.log_odds!r}; it must be true or false")
        for name in ("regions", "regions_file", "apply_filters"):
            object.__setattr__(self, name, _listed(name, getattr(self, name)))
        filters = [word for value in self.apply_filters for word in str(value).split(",")]
        if "" in filters:
            raise UsageError("--apply-filters has an empty name; give FILTER names such as PASS")
        object.__setattr__(self, "apply_filters", tuple(filters))

    def resolved(self, *, gpu: bool) -> "ScoreOptions":
        """Return the options with `auto` replaced by what it means where the model runs.

        Args:
            gpu: whether there is one.

        The engine stays `auto`: that is the model's question, see `inputs.open_inputs`.

        Raises:
            UsageError: a mode that only a GPU has is asked for and there is none.
        """
        device = self.device
        if device == "auto":
            device = "cuda" if gpu else "cpu"
        if device == "cpu" and self.precision == "tf32":
            raise UsageError("--precision tf32 exists only on CUDA devices; use fp32 or bf16")
        return dataclasses.replace(self, device=device)

    def plain(self) -> dict[str, object]:
        """Return the options as plain values, for run.json."""
        values = dataclasses.asdict(self)
        values["apply_filters"] = sorted(self.apply_filters)
        values["regions"] = list(self.regions)
        values["regions_file"] = [str(path) for path in self.regions_file]
        return values


def _listed(name: str, value: Any) -> tuple[Any, ...]:
    """Return a list option as a tuple; the Python API may be given one string for a list of one."""
    if value is None:
        return ()
    if isinstance(value, str | Path):
        return (value,)
    try:
        listed = tuple(value)
    except TypeError:
        listed = (value,)
    if not all(isinstance(item, str | Path) for item in listed):
        raise UsageError(f"{_flag(name)} is {value!r}; it must be text, or a list of texts")
    return listed


def make_options(options: dict[str, Any]) -> ScoreOptions:
    """Return the options of a run.

    Raises:
        UsageError: one that does not exist, or a value that is not on offer.
    """
    known = sorted(field.name for field in dataclasses.fields(ScoreOptions))
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise UsageError(f"there is no option {unknown[0]!r}; there are {', '.join(known)}")
    return ScoreOptions(**options)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
