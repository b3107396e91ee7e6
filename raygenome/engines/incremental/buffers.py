"""Buffers of one thread, which are overwritten for every sequence block."""

import math

import torch


class BufferPool:
    """Float32 buffers by name; they grow when needed and are never freed.

    New memory from the operating system costs one page fault per page. For buffers of tens of
    megabytes that takes as long as the arithmetic. Each thread uses a pool of its own.
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
