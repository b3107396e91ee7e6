"""Basset (Kelley, Snoek and Rinn, Genome Research 2016), as in its published weights.

Unpadded convolutions, and batch normalisation between each layer, bias and all, and its ReLU.
(The author's later code pads its convolutions; the published weights were made without.)
"""

from collections.abc import Sequence

from torch import nn

from raygenome.models.layers import LayeredNet, check_config, conv, pool, remaining_length
from raygenome.models.net import Encoding


class Basset(LayeredNet):
    """Three convolutions and two hidden layers; 4,135,064 parameters as published.

    Lengths of the published net: 600 -> 582 -> 194 -> 184 -> 46 -> 40 -> 10.
    """

    ENCODING = Encoding("ACGT", n_value=0.25)

    def __init__(
        self,
        *,
        window: int = 600,
        targets: int = 164,
        channels: Sequence[int] = (300, 200, 200),
        kernels: Sequence[int] = (19, 11, 7),
        pools: Sequence[int] = (3, 4, 4),
        hidden: Sequence[int] = (1000, 1000),
        dropout: float = 0.3,
    ) -> None:
        config = {
            "window": window,
            "targets": targets,
            "channels": list(channels),
            "kernels": list(kernels),
            "pools": list(pools),
            "hidden": list(hidden),
            "dropout": dropout,
        }
        check_config(config, same_length=("channels", "kernels", "pools"))
        width = remaining_length(window, kernels, pools)

        layers: dict[str, nn.Module] = {}
        inputs = 4
        for i, (outputs, kernel, pooled) in enumerate(
            zip(channels, kernels, pools, strict=True), 1
        ):
            layers[f"conv{i}"] = conv(inputs, outputs, kernel)
            layers[f"conv{i}_norm"] = nn.BatchNorm2d(outputs)
            layers[f"conv{i}_relu"] = nn.ReLU(inplace=True)
            layers[f"conv{i}_pool"] = pool(pooled)
            inputs = outputs
        for i, outputs in enumerate(hidden, 1):
            layers[f"full{i}"] = conv(inputs, outputs, width)
            layers[f"full{i}_norm"] = nn.BatchNorm2d(outputs)
            layers[f"full{i}_relu"] = nn.ReLU(inplace=True)
            layers[f"full{i}_dropout"] = nn.Dropout(dropout)
            inputs, width = outputs, 1
        layers["output"] = conv(inputs, targets, width)
        super().__init__(config, layers)
