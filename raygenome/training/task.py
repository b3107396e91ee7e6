"""What the workers of a training run are told."""

from dataclasses import dataclass
from typing import Any

#: Seconds of training that a killed run may lose, besides the steps up to the next look.
CHECKPOINT_S = 300.0


@dataclass(frozen=True)
class Task:
    """What is to be trained; plain values, since it travels to the workers.

    Attributes:
        recipe: plain values of a `Recipe`.
        data: the dataset's folder.
        out: the run's folder.
        device: "cpu" or "cuda".
        threads: of torch in each worker on a CPU; None: see `raygenome.training.run.train`.
        checkpoint_s: see `CHECKPOINT_S`.
    """

    recipe: dict[str, Any]
    data: str
    out: str
    device: str
    threads: int | None = None
    checkpoint_s: float = CHECKPOINT_S
