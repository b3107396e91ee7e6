"""The options of a scoring run, checked together before any work starts."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict, get_args, get_origin, get_type_hints

from raygenome.cluster.compute import Precision, require_choice
from raygenome.errors import UsageError


@dataclass(frozen=True)
class ScoreOptions:
    """What to score and how; each field is the command line's option of the same name.

    All of them decide the result. What does not, such as the number of workers, is in `Compute`.

    Raises:
        UsageError: a value that is not allowed.
    """

    precision: Precision = "fp32"
    engine: Literal["auto", "incremental", "full"] = "auto"
    strands: Literal["both", "forward"] = "both"
    effects: Literal["full", "top"] = "full"
    effect_dtype: Literal["float16", "float32"] = "float16"
    top_k: int = 16
    top_n: int = 1000
    log_odds: bool = False
    indel_mode: Literal["symmetric", "left-anchor"] = "symmetric"
    ref_mismatch: Literal["skip", "error", "keep"] = "skip"
    shard_size: int | None = None
    regions: Sequence[str] = ()
    regions_file: Sequence[str | Path] = ()
    apply_filters: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Check every value."""
        for name, kind in get_type_hints(ScoreOptions).items():
            if get_origin(kind) is Literal:
                require_choice(name, getattr(self, name), get_args(kind))
        for name in ("top_k", "top_n", "shard_size"):
            value = getattr(self, name)
            if name == "shard_size" and value is None:
                continue
            if type(value) is not int or value < 1:
                raise UsageError(
                    f"{_flag(name)} is {value!r}; it must be a whole number, 1 or more"
                )
        if not isinstance(self.log_odds, bool):
            raise UsageError(f"--log-odds is {self.log_odds!r}; it must be true or false")
        for name in ("regions", "regions_file", "apply_filters"):
            object.__setattr__(self, name, _as_tuple(name, getattr(self, name)))
        filters = [word for value in self.apply_filters for word in str(value).split(",")]
        if "" in filters:
            raise UsageError("--apply-filters has an empty name", "give FILTER names such as PASS")
        object.__setattr__(self, "apply_filters", tuple(filters))

    def plain(self) -> dict[str, object]:
        """Return the options as plain values, for run.json."""
        values = dataclasses.asdict(self)
        values["apply_filters"] = sorted(self.apply_filters)
        values["regions"] = list(self.regions)
        values["regions_file"] = [str(path) for path in self.regions_file]
        return values


class ScoreOptionsDict(TypedDict, total=False):
    """The fields of `ScoreOptions` as keyword arguments, for editors and type checkers."""

    precision: Precision
    engine: Literal["auto", "incremental", "full"]
    strands: Literal["both", "forward"]
    effects: Literal["full", "top"]
    effect_dtype: Literal["float16", "float32"]
    top_k: int
    top_n: int
    log_odds: bool
    indel_mode: Literal["symmetric", "left-anchor"]
    ref_mismatch: Literal["skip", "error", "keep"]
    shard_size: int | None
    regions: Sequence[str] | str | None
    regions_file: Sequence[str | Path] | str | Path | None
    apply_filters: Sequence[str] | str | None


def make_options(options: Any) -> ScoreOptions:
    """Return the options of a run from keyword arguments.

    Raises:
        UsageError: an option that does not exist, or a value that is not allowed.
    """
    known = sorted(field.name for field in dataclasses.fields(ScoreOptions))
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise UsageError(f"there is no option {unknown[0]!r}; there are {', '.join(known)}")
    return ScoreOptions(**options)


def _as_tuple(name: str, value: Any) -> tuple[Any, ...]:
    """Return a list option as a tuple; one text stands for a list of one."""
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


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
