"""Which samples a step takes: a function of the seed and the epoch, and of nothing else.

The global batch is the same for any number of workers. It is cut into lots of samples; a worker
takes whole lots, and what is drawn at random for a sample is drawn for its lot. So neither the
order nor the dropout depends on how many workers there are, and nothing of either needs saving.
"""

from typing import NamedTuple

import numpy as np

from raygenome.datasets.batches import Samples

#: Most lots in a batch, and so the most workers that can share one.
MOST_LOTS = 64

_ORDER, _LOTS = range(2)  # the streams of a seed


def epoch_samples(
    seed: int,
    epoch: int,
    rows: int,
    *,
    strands: str = "forward",
    shift: int = 0,
    limit: int | None = None,
) -> Samples:
    """Return the samples of an epoch in order.

    Args:
        seed: of the run.
        epoch: from 0.
        rows: windows of the split.
        strands: as in a recipe.
        shift: most bases that a window moves.
        limit: so many samples of all; all where None or where there are fewer.
    """
    rng = np.random.default_rng([seed, _ORDER, epoch])
    total = 2 * rows if strands == "both" else rows
    chosen = rng.permutation(total)[:limit]
    if strands == "both":
        reverse = chosen >= rows
        chosen = chosen % rows
    elif strands == "random":
        reverse = rng.random(len(chosen)) < 0.5
    else:
        reverse = np.full(len(chosen), strands == "alternate" and epoch % 2 == 1)
    return Samples(chosen, reverse, rng.integers(-shift, shift + 1, len(chosen)))


def steps_in_epoch(rows: int, batch_size: int, *, strands: str, limit: int | None = None) -> int:
    """Return how many whole batches an epoch has; what is left over is for another epoch."""
    total = 2 * rows if strands == "both" else rows
    return min(total, limit or total) // batch_size


class Lots(NamedTuple):
    """A worker's part of every batch: lots [first, last) of them, and where each begins.

    Attributes:
        edges: where its lots begin and end, in samples of the global batch.
        first: the number of its first lot.
    """

    edges: tuple[int, ...]
    first: int

    @property
    def samples(self) -> slice:
        """Which samples of the global batch are this worker's."""
        return slice(self.edges[0], self.edges[-1])


def lots_of(batch_size: int, rank: int, world: int) -> Lots:
    """Return the lots of worker `rank` of `world`; every worker needs one at least."""
    lots = min(batch_size, MOST_LOTS)
    first, last = rank * lots // world, (rank + 1) * lots // world
    return Lots(tuple(lot * batch_size // lots for lot in range(first, last + 1)), first)


def lot_seeds(seed: int, step: int, layer: int) -> list[int]:
    """Return, for each lot of a batch, the seed of what one layer draws for it at one step."""
    state = np.random.SeedSequence([seed, _LOTS, step, layer])
    return (state.generate_state(MOST_LOTS, np.uint64) >> np.uint64(1)).tolist()
