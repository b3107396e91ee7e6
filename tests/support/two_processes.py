"""Runs a function in a few processes joined by gloo, without Ray."""

import os
import socket
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing

Work = Callable[..., Any]


def run_together(work: Work, folder: Path, *arguments: Any, world: int = 2) -> list[Any]:
    """Return the result of `work(rank, world, *arguments)` of each process, in order of rank.

    `work` has to be importable, since each process is a new interpreter.
    """
    port = _free_port()
    torch.multiprocessing.spawn(
        _begin, (world, port, str(folder), work, arguments), nprocs=world, join=True
    )
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(world)]


def _begin(
    rank: int, world: int, port: int, folder: str, work: Work, arguments: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"tcp://127.0.0.1:{port}",
        rank=rank,
        world_size=world,
        timeout=timedelta(seconds=120),
    )
    torch.save(work(rank, world, *arguments), Path(folder) / f"{rank}.pt")
    dist.barrier()
    # A normal exit may destroy objects that gloo's threads still use, which aborts the process.
    os._exit(0)


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])
