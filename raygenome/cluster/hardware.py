"""What this machine has."""

import os


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor(device: str) -> str:
    """Return what computes for a device, "cpu" or the name of the GPU: kernels round by it."""
    if device != "cuda":
        return "cpu"
    import torch

    return torch.cuda.get_device_name()
