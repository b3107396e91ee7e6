"""The samples of each step; they depend only on the seed and the epoch.

The global batch is the same for any number of workers. It is cut into micro-batches; each worker
takes whole micro-batches, and dropout draws one mask per micro-batch. So neither the order nor the
dropout depends on the number of workers, and neither needs to be saved.
"""

from typing import NamedTuple

import numpy as np

from raygenome.datasets.batches import Samples

#: The largest number of micro-batches per batch, and so of workers that can share a batch.
MAX_MICROBATCHES = 64

_ORDER, _DROPOUT = range(2)  # the random streams of a seed


def epoch_samples(
    seed: int,
    epoch: int,
    n_rows: int,
    *,
    strands: str = "forward",
    shift: int = 0,
    limit: int | None = None,
) -> Samples:
    """Return the samples of an epoch in order.

    Args:
        seed: the seed of the run.
        epoch: number of the epoch, from 0.
        n_rows: number of windows in the split.
        strands: see `config.TrainConfig`.
        shift: largest number of bases by which a window moves.
        limit: number of samples to draw; None takes all.
    """
    rng = np.random.default_rng([seed, _ORDER, epoch])
    total = 2 * n_rows if strands == "both" else n_rows
    chosen = rng.permutation(total)[:limit]
    if strands == "both":
        reverse = chosen >= n_rows
        chosen = chosen % n_rows
    elif strands == "random":
        reverse = rng.random(len(chosen)) < 0.5
    else:
        reverse = np.full(len(chosen), strands == "alternate" and epoch % 2 == 1)
    return Samples(chosen, reverse, rng.integers(-shift, shift + 1, len(chosen)))


def steps_in_epoch(n_rows: int, batch_size: int, *, strands: str, limit: int | None = None) -> int:
    """Return how many whole batches an epoch has; the rest of the samples is left out."""
    total = 2 * n_rows if strands == "both" else n_rows
    return min(total, limit or total) // batch_size


class MicroBatches(NamedTuple):
    """The micro-batches of one worker: the same part of every batch.

    Attributes:
        edges: where they start and end, in samples of the global batch: n + 1 values for n.
        first: the number of the first one in the global batch.
    """

    edges: tuple[int, ...]
    first: int

    @property
    def samples(self) -> slice:
        """The range of this worker's samples in the global batch."""
        return slice(self.edges[0], self.edges[-1])


def microbatches_of(batch_size: int, rank: int, world: int) -> MicroBatches:
    """Return the micro-batches of worker `rank` of `world`; each worker must have at least one."""
    count = min(batch_size, MAX_MICROBATCHES)
    first, last = rank * count // world, (rank + 1) * count // world
    edges = tuple(number * batch_size // count for number in range(first, last + 1))
    return MicroBatches(edges, first)


def dropout_seeds(seed: int, step: int, layer: int) -> list[int]:
    """Return one seed per micro-batch, for the dropout mask of one layer at one step."""
    state = np.random.SeedSequence([seed, _DROPOUT, step, layer])
    return (state.generate_state(MAX_MICROBATCHES, np.uint64) >> np.uint64(1)).tolist()
