"""Which form each convolution is computed in: decided by counting, never by a clock.

A choice changes the last bits of a result, so it may depend only on the net, the kind of device and
the positions asked for; a run that is resumed, or shared by workers, then chooses the same. What
the counts are weighed with is the table below; `jobs/bench forms` measures it again.
"""

from typing import NamedTuple

from raygenome.engines.incremental.bilinear import Bilinear, Size, direct, valid, valid_size
from raygenome.engines.incremental.chain import Linear, Stage


class Costs(NamedTuple):
    """Weights of a kind of device.

    mix: cost of a multiply-add of a stage's transforms, in multiply-adds of a product.
    head_mix: that of the head's, which are larger matrices.
    largest: bytes that the weights of one form may take.
    """

    mix: float
    head_mix: float
    largest: int


COSTS = {
    "cpu": Costs(mix=2.3, head_mix=1.3, largest=860 << 20),
    "cuda": Costs(mix=2.3, head_mix=1.3, largest=4 << 30),  # never measured
}

#: Forms are tried up to so many points for a tap of the filter.
_POINTS_A_TAP = 8


def block_cost(form: Bilinear | Size, inputs: int, outputs: int, mix: float) -> float:
    """Return the multiply-adds of a block between `inputs` and `outputs` channels, weighed."""
    transforms = form.products * (form.points * inputs + form.outputs * outputs)
    return form.products * inputs * outputs + mix * transforms


def stage_form(stage: Stage, costs: Costs) -> Bilinear:
    """Return the form of a stage's convolution.

    Both a window that stands alone and a dense stretch are to be cheap: what is least is the sum
    of what an output costs in either.
    """
    outputs, inputs, taps = stage.weight.shape

    def cost(size: Size) -> float:
        blocks = -(-stage.outputs // size.outputs)
        return block_cost(size, inputs, outputs, costs.mix) * (
            blocks / stage.outputs + 1 / size.outputs
        )

    return _made(min(_sizes(taps), key=cost), taps)


def head_form(head: Linear, costs: Costs) -> Bilinear | None:
    """Return the form that gives the head's first layer at every anchor; None if none is of use.

    Longer ones need fewer products, and larger weights: the shortest within 1 % of the best.
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


def head_pays(form: Bilinear, head: Linear, blocks: int, windows: int, costs: Costs) -> bool:
    """Return whether `blocks` blocks of the form cost less than `windows` windows as written."""
    outputs, taps, inputs = head.weight.shape
    written = taps * inputs * outputs * windows
    return blocks * block_cost(form, inputs, outputs, costs.head_mix) < written


def _sizes(taps: int) -> list[Size]:
    """Return the sizes of the forms there are to choose from; the first is the direct one."""
    longest = max(_POINTS_A_TAP * taps, 4)
    step = max(taps // 16, 1)
    transforms = [valid_size(points, taps) for points in range(taps + 1, longest, step)]
    return [Size(taps, taps, 1), *transforms]


def _made(size: Size, taps: int) -> Bilinear:
    return direct(taps) if size.points == taps else valid(size.points, taps)
