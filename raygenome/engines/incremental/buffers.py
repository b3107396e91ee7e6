"""Buffers that live as long as a thread works: what is written anew for every stretch."""

import math

import torch


class Scratch:
    """Float32 buffers by name, grown when needed and never given back.

    Memory fresh from the operating system costs a page fault for each page that is touched, which
    for buffers of tens of megabytes takes as long as the arithmetic. One thread uses one of these.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._buffers: dict[str, torch.Tensor] = {}

    def take(self, name: str, *shape: int) -> torch.Tensor:
        """Return a tensor of `shape` with any content; it lasts until `name` is taken again."""
        size = math.prod(shape)
        held = self._buffers.get(name)
        if held is None or len(held) < size:
            self._buffers.pop(name, None)  # gone before the larger one is there
            held = torch.empty(size + size // 8, dtype=torch.float32, device=self._device)
            self._buffers[name] = held
        return held[:size].view(shape)
