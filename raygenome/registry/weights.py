"""The weights of a net in a safetensors file, and the checks they pass on their way into a net."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from raygenome.errors import DataError, NoInput
from raygenome.models.net import Net

#: Layers that multiply by weights, and layers that normalise.
_PRODUCTS = (nn.Conv1d, nn.Conv2d, nn.Linear)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)

_DAMAGED = "is the file damaged?"


def write_weights(path: Path, net: nn.Module) -> None:
    """Write the parameters and buffers of `net`; the same weights give the same bytes."""
    state = {name: value.detach().cpu().contiguous() for name, value in net.state_dict().items()}
    save_file(state, path)
    path.chmod(0o644)  # save_file makes it readable by its owner alone, and registries are shared


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a safetensors file by name.

    Raises:
        NoInput: the file is not there.
        DataError: it is no safetensors file, or cut short.
    """
    try:
        return load_file(path)
    except OSError as error:
        raise NoInput(f"cannot read the weights {path}: {error}") from None
    except SafetensorError as error:
        raise DataError(f"{path} is not a whole safetensors file ({error})") from None


def fill(net: Net, weights: Mapping[str, torch.Tensor], *, source: str) -> None:
    """Check that these weights fit `net` and put them in; `net` may be on the meta device.

    Raises:
        DataError: with `source` and the first name that does not fit: missing or unknown, of
            another shape or dtype, with a value that is not finite or a negative variance.
    """
    expected = net.state_dict()
    check_names(expected, weights, source=source)
    for name, wanted in expected.items():
        check_tensor(name, weights[name], wanted.shape, source=source)
        if weights[name].dtype != wanted.dtype:
            raise DataError(
                f"{source}: {name} is {weights[name].dtype}; it needs to be {wanted.dtype}"
            )
    net.load_state_dict(dict(weights), assign=True)
    net.lay_out()


def check_names(wanted: Mapping[str, object], found: Mapping[str, object], *, source: str) -> None:
    """Refuse weights that lack a wanted name, or have an additional one.

    Raises:
        DataError: with the first such name in the net's own order.
    """
    for name in wanted:
        if name not in found:
            raise DataError(f"{source}: no weights called {name}, which this net needs")
    for name in found:
        if name not in wanted:
            raise DataError(f"{source}: weights called {name}, which this net does not have")


def check_tensor(name: str, found: torch.Tensor, *shapes: tuple[int, ...], source: str) -> None:
    """Refuse a tensor that has none of these shapes, or values that no trained net can hold.

    Raises:
        DataError: another shape, a value that is not finite, a negative running variance.
    """
    if tuple(found.shape) not in [tuple(shape) for shape in shapes]:
        needed = " or ".join(str(tuple(shape)) for shape in shapes)
        raise DataError(f"{source}: {name} has shape {tuple(found.shape)}; it needs {needed}")
    if not bool(torch.isfinite(found).all()):
        raise DataError(f"{source}: {name} holds values that are not finite", _DAMAGED)
    if name.endswith("running_var") and bool((found < 0).any()):
        raise DataError(f"{source}: {name} holds negative variances", _DAMAGED)


def randomise(net: Net, seed: int) -> None:
    """Fill `net` with random weights that depend on `seed` alone and make its outputs lively.

    Torch's own starting weights shrink the signal from layer to layer, so that an untrained net
    gives nearly the same output for every window. Here layers keep its scale (He et al., ICCV
    2015), and each normalisation gets statistics and weights away from 0 and 1, so that a test
    sees whether they are used. The global random state is left alone.
    """
    rng = torch.Generator().manual_seed(seed)
    products = [layer for layer in net.modules() if isinstance(layer, _PRODUCTS)]
    with torch.no_grad():
        for layer in net.modules():
            if isinstance(layer, _PRODUCTS):
                fan_in = layer.weight[0].numel()
                gain = 1.0 if layer is products[-1] else 2.0
                layer.weight.normal_(0.0, (gain / fan_in) ** 0.5, generator=rng)
                if layer.bias is not None:
                    layer.bias.normal_(0.0, 0.1, generator=rng)
            elif isinstance(layer, _NORMS):
                layer.weight.uniform_(0.8, 1.2, generator=rng)
                layer.bias.normal_(0.0, 0.1, generator=rng)
                if layer.running_mean is not None and layer.running_var is not None:
                    layer.running_mean.normal_(0.0, 0.1, generator=rng)
                    layer.running_var.uniform_(0.5, 1.5, generator=rng)
