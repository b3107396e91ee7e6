"""Beluga (Zhou et al., Nature Genetics 2018), the net inside ExPecto, as in its published weights.

Two convolutions per stage, ReLU, and dropout before the pool; nothing is padded or normalised. The
channel order is A, G, C, T, as the authors' own scorer encodes it.
"""

from collections.abc import Sequence

from torch import nn

from raygenome.errors import UsageError
from raygenome.models.layers import LayeredNet, check_config, conv, pool, remaining_length
from raygenome.models.net import Encoding


class Beluga(LayeredNet):
    """Three stages of two convolutions, one hidden layer; 149,536,251 parameters as published.

    Lengths of the published net: 2000 -> 1993 -> 1986 -> 496 -> 489 -> 482 -> 120 -> 113 -> 106.
    """

    ENCODING = Encoding("AGCT", n_value=0.0)

    def __init__(
        self,
        *,
        window: int = 2000,
        targets: int = 2002,
        channels: Sequence[int] = (320, 480, 640),
        kernel: int = 8,
        pool_width: int = 4,
        hidden: int = 2003,
        dropouts: Sequence[float] = (0.2, 0.2, 0.5),
    ) -> None:
        config = {
            "window": window,
            "targets": targets,
            "channels": list(channels),
            "kernel": kernel,
            "pool_width": pool_width,
            "hidden": hidden,
            "dropouts": list(dropouts),
        }
        check_config(config, same_length=("channels", "dropouts"))
        if not channels:
            raise UsageError("channels is empty", "give the channels of at least one stage")
        pools = [pool_width] * (len(channels) - 1) + [1]  # the last stage has no pool
        both = [width for pooled in pools for width in (1, pooled)]  # of each convolution
        length = remaining_length(window, [kernel] * len(both), both)

        layers: dict[str, nn.Module] = {}
        inputs = 4
        for i, (outputs, pooled, dropout) in enumerate(
            zip(channels, pools, dropouts, strict=True), 1
        ):
            for half in "ab":
                layers[f"conv{i}{half}"] = conv(inputs, outputs, kernel)
                layers[f"conv{i}{half}_relu"] = nn.ReLU(inplace=True)
                inputs = outputs
            layers[f"conv{i}_dropout"] = nn.Dropout(dropout)
            if pooled > 1:
                layers[f"conv{i}_pool"] = pool(pooled)
        layers["full1"] = conv(inputs, hidden, length)
        layers["full1_relu"] = nn.ReLU(inplace=True)
        layers["output"] = conv(hidden, targets, 1)
        super().__init__(config, layers)
