"""How many workers a training run is given."""

from raygenome.cluster.resources import Machines
from raygenome.errors import UsageError
from raygenome.training.config import Recipe
from raygenome.training.order import MOST_LOTS


def wanted_workers(
    workers: int | str | None, device: str, recipe: Recipe, machines: Machines
) -> tuple[int, int]:
    """Return the least and the most workers that are asked for; (0, 0) is this process.

    Raises:
        UsageError: it is no number of workers, or more than a batch has lots.
    """
    if workers is None or workers == "auto":
        count = machines.gpus if device == "cuda" else 0
        fewest = 1 if machines.cluster else 2  # a cluster's GPU is not this process's
        return (count, count) if count >= fewest else (0, 0)
    least, dash, most = str(workers).partition("-")
    try:
        wanted = int(least), int(most if dash else least)
    except ValueError:
        wanted = -1, -1
    if isinstance(workers, bool | float) or wanted[0] < bool(dash) or wanted[1] < wanted[0]:
        raise UsageError(
            f"--workers is {workers}; it must be auto, 0 (no Ray), a number, or MIN-MAX"
        )
    if wanted[1] > min(recipe.batch_size, MOST_LOTS):
        raise UsageError(
            f"--workers is {workers}; a batch of {recipe.batch_size} can be shared by "
            f"{min(recipe.batch_size, MOST_LOTS)} at most"
        )
    return wanted
