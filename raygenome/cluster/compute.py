"""What a caller asks of the machines that do the work; one object for every command."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from raygenome.errors import UsageError

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["fp32", "tf32", "bf16"]


@dataclass(frozen=True)
class Compute:
    """The workers of a command and where they run, as the caller asked for them.

    Attributes:
        workers: a number of workers; 0 for this process without Ray; None or "auto" for a number
            that fits the machines. Training also takes "MIN-MAX".
        device: "auto" becomes "cuda" or "cpu" by `resolved`.
        worker_gpus: the share of a GPU that each worker takes: 0.5 puts two workers on one GPU.
            None is a whole GPU on "cuda", and none on "cpu".
        address: a Ray cluster. None uses the one that RAY_ADDRESS names, as inside a Ray job.
        insecure: whether to join a cluster that no token protects.
        threads: threads of torch in each process; None decides by the number of cores.

    Raises:
        UsageError: a value that cannot be used, or two that contradict each other.
    """

    workers: int | str | None = None
    device: Device = "auto"
    worker_gpus: float | None = None
    address: str | None = None
    insecure: bool = False
    threads: int | None = None

    def __post_init__(self) -> None:
        """Check every value that means the same to all commands."""
        require_choice("device", self.device, get_args(Device))
        if self.worker_gpus is not None and self.worker_gpus <= 0:
            raise UsageError(f"--worker-gpus is {self.worker_gpus}", "give more than 0")
        if self.worker_gpus is not None and self.in_process:
            raise UsageError(
                "--workers 0 starts no worker that could use --worker-gpus", "give one of them"
            )
        if self.threads is not None and (type(self.threads) is not int or self.threads < 1):
            raise UsageError(
                f"--threads is {self.threads}; it must be a whole number of at least 1"
            )

    @property
    def in_process(self) -> bool:
        """Whether the work is done in this process, without Ray."""
        return str(self.workers) == "0"

    def n_workers(self) -> int | None:
        """Return the number of workers that was asked for, None for "auto".

        Raises:
            UsageError: it is neither "auto" nor a number of at least 0.
        """
        if self.workers is None or self.workers == "auto":
            return None
        try:
            number = int(self.workers)
        except (TypeError, ValueError):
            number = -1
        if number < 0 or isinstance(self.workers, bool | float):
            raise UsageError(
                f"--workers is {self.workers}; it must be auto, 0 (no Ray) or a larger number"
            )
        return number

    def resolved(self, precision: str, *, gpus: int, cluster: bool = False) -> "Compute":
        """Return the same with "auto" replaced by the device that is there.

        Args:
            precision: "fp32", "tf32" or "bf16".
            gpus: how many GPUs the machines have now.
            cluster: whether they are a Ray cluster, which may get a GPU later.

        Raises:
            UsageError: there is no GPU, or `precision` needs one and the device is the CPU.
        """
        device = self.device
        if device == "auto":
            device = "cuda" if gpus else "cpu"
        elif device == "cuda" and not gpus and not cluster:
            raise UsageError(
                "--device is cuda and torch finds no usable GPU here", "use --device cpu"
            )
        if device == "cpu" and precision == "tf32":
            raise UsageError("--precision tf32 exists only on CUDA devices", "use fp32 or bf16")
        return dataclasses.replace(self, device=device)


def require_choice(option: str, value: object, choices: Iterable[str]) -> None:
    """Refuse a value that is not one of `choices`; `option` is its name in Python.

    Raises:
        UsageError: it is none of them.
    """
    if value not in (choices := tuple(choices)):
        flag = "--" + option.replace("_", "-")
        raise UsageError(f"{flag} is {value!r}; it must be one of {', '.join(choices)}")
