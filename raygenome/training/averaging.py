"""The weights as a mean over the last steps, which is steadier than what the last step left.

The exponential moving average of Polyak and Juditsky's kind, with the decay rising at first, as in
min(decay, (1 + t) / (10 + t)) after t steps, so that the first weights are soon forgotten.
"""

import copy
from typing import Any

import torch

from raygenome.models.net import Net


class Average:
    """A second net whose weights and statistics follow those of a net that is trained.

    Args:
        net: the one that is trained; not run yet.
        decay: how much of the average each step keeps, in the long run; None follows at once, and
            there is no second net.

    Attributes:
        net: the one to be validated and kept.
    """

    def __init__(self, net: Net, decay: float | None) -> None:
        self._decay = decay
        self.net = net
        if decay is not None:
            self.net = copy.deepcopy(net).eval().requires_grad_(False)

    @torch.no_grad()
    def follow(self, net: Net, step: int) -> None:
        """Move the average towards `net` after `step` steps."""
        if self._decay is None:
            return
        share = 1 - min(self._decay, (1 + step) / (10 + step))
        mine, theirs = self.net.state_dict(), net.state_dict()
        floating = [name for name, value in mine.items() if value.is_floating_point()]
        torch._foreach_lerp_(
            [mine[name] for name in floating], [theirs[name] for name in floating], share
        )
        for name in mine.keys() - set(floating):
            mine[name].copy_(theirs[name])

    def state(self) -> dict[str, Any] | None:
        """Return what a checkpoint has to keep of it, None for nothing."""
        return None if self._decay is None else self.net.state_dict()

    def restore(self, state: dict[str, Any] | None) -> None:
        """Go on from what a checkpoint kept."""
        if state is not None:
            self.net.load_state_dict(state)
