"""Which algorithm computes each convolution: chosen by counting operations, never by a clock.

The choice changes the last bits of a result. So it depends only on the net, the kind of device and
the positions that are needed: a resumed run, or another worker, then chooses the same. The counts
are weighted by the table `COSTS`; `jobs/bench algorithms` measures it again.
"""

from typing import NamedTuple

from raygenome.engines.incremental.bilinear import Bilinear, Size, direct, valid, valid_size
from raygenome.engines.incremental.chain import Linear, Stage


class Costs(NamedTuple):
    """Costs on one kind of device.

    Attributes:
        mix: cost of one multiply-add in a stage's transforms, in multiply-adds of a product.
        head_mix: the same for the head, whose matrices are larger.
        largest: the most bytes that the weights of one algorithm may take.
    """

    mix: float
    head_mix: float
    largest: int


COSTS = {
    "cpu": Costs(mix=2.3, head_mix=1.3, largest=860 << 20),
    "cuda": Costs(mix=2.3, head_mix=1.3, largest=4 << 30),  # never measured
}

#: The longest algorithm tried has this many points per tap of the filter.
_POINTS_PER_TAP = 8


def block_cost(algorithm: Bilinear | Size, inputs: int, outputs: int, mix: float) -> float:
    """Return the weighted multiply-adds of a block from `inputs` to `outputs` channels."""
    transforms = algorithm.products * (algorithm.points * inputs + algorithm.outputs * outputs)
    return algorithm.products * inputs * outputs + mix * transforms


def choose_algorithm(stage: Stage, costs: Costs) -> Bilinear:
    """Return the algorithm of a stage's convolution.

    It has the smallest sum of the cost per output in a window that stands alone and the cost per
    output where windows are dense, so that both are cheap.
    """
    outputs, inputs, taps = stage.weight.shape

    def cost(size: Size) -> float:
        blocks = -(-stage.outputs // size.outputs)
        return block_cost(size, inputs, outputs, costs.mix) * (
            blocks / stage.outputs + 1 / size.outputs
        )

    return _made(min(_sizes(taps), key=cost), taps)


def choose_head_algorithm(head: Linear, costs: Costs) -> Bilinear | None:
    """Return the algorithm that gives the head's first layer at every anchor; None if none fits.

    Longer algorithms need fewer products and larger weights. This is the shortest one within 1 % of
    the lowest cost.
    """
    outputs, taps, inputs = head.weight.shape
    fitting = [
        (block_cost(size, inputs, outputs, costs.head_mix) / size.outputs, size)
        for size in _sizes(taps)
        if size.outputs > 1 and 4 * size.products * inputs * outputs <= costs.largest
    ]
    if not fitting:
        return None
    best = min(cost for cost, _ in fitting)
    return _made(next(size for cost, size in fitting if cost <= 1.01 * best), taps)


def head_pays(algorithm: Bilinear, head: Linear, blocks: int, windows: int, costs: Costs) -> bool:
    """Return whether `blocks` blocks cost less than `windows` windows, one by one."""
    outputs, taps, inputs = head.weight.shape
    one_by_one = taps * inputs * outputs * windows
    return blocks * block_cost(algorithm, inputs, outputs, costs.head_mix) < one_by_one


def _sizes(taps: int) -> list[Size]:
    """Return the sizes of the algorithms to choose from; the first is the direct one."""
    longest = max(_POINTS_PER_TAP * taps, 4)
    step = max(taps // 16, 1)
    transforms = [valid_size(points, taps) for points in range(taps + 1, longest, step)]
    return [Size(taps, taps, 1), *transforms]


def _made(size: Size, taps: int) -> Bilinear:
    return direct(taps) if size.points == taps else valid(size.points, taps)
