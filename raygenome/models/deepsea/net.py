"""DeepSEA (Zhou and Troyanskaya, Nature Methods 2015), as in its published weights.

Its activation is not quite a ReLU: `Threshold(0, 1e-6)` gives 1e-6 where a ReLU gives 0. The
pool comes after it and the dropout after the pool; nothing is padded or normalised.
"""

from collections.abc import Sequence

from torch import nn

from raygenome.errors import UsageError
from raygenome.models.layers import LayeredNet, check_config, conv, pool, remaining_length
from raygenome.models.net import Encoding


class DeepSEA(LayeredNet):
    """Three convolutions, two pools, one hidden layer; 52,843,119 parameters as published.

    Lengths of the published net: 1000 -> 993 -> 248 -> 241 -> 60 -> 53.
    """

    ENCODING = Encoding("AGCT", n_value=0.0)

    def __init__(
        self,
        *,
        window: int = 1000,
        targets: int = 919,
        channels: Sequence[int] = (320, 480, 960),
        kernel: int = 8,
        pool_width: int = 4,
        hidden: int = 925,
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
            raise UsageError("channels is empty", "give the channels of at least one convolution")
        pools = [pool_width] * (len(channels) - 1) + [1]  # the last convolution has no pool
        width = remaining_length(window, [kernel] * len(channels), pools)

        layers: dict[str, nn.Module] = {}
        inputs = 4
        for i, (outputs, pooled, dropout) in enumerate(
            zip(channels, pools, dropouts, strict=True), 1
        ):
            layers[f"conv{i}"] = conv(inputs, outputs, kernel)
            layers[f"conv{i}_threshold"] = nn.Threshold(0, 1e-6, inplace=True)
            if pooled > 1:
                layers[f"conv{i}_pool"] = pool(pooled)
            layers[f"conv{i}_dropout"] = nn.Dropout(dropout)
            inputs = outputs
        layers["full1"] = conv(inputs, hidden, width)
        layers["full1_threshold"] = nn.Threshold(0, 1e-6, inplace=True)
        layers["output"] = conv(hidden, targets, 1)
        super().__init__(config, layers)
