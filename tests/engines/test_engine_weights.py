"""Weights that the processes of one machine share, and all ways in which sharing can end."""

import logging
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
import torch
from support.engine_oracle import StageSpec, toy_net

from raygenome.engines.incremental import weights as weights_module
from raygenome.engines.incremental.bilinear import valid
from raygenome.engines.incremental.gemm import Gemm
from raygenome.engines.incremental.planner import plan_chain
from raygenome.engines.incremental.weights import WeightStore, sweep_weights

CPU = torch.device("cpu")
#: In these tests smaller weights than 4 MiB are shared.
SMALLEST = 1 << 12
#: Forked children would share locks with their parent.
SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder that replaces the machine's temporary folder."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setattr(weights_module, "_SMALLEST_SHARED", SMALLEST)
    return folder


def shared_files(temporary: Path) -> list[Path]:
    return sorted(temporary.glob("*/*.weights"))


def store(key: str | None = "a model", precision: str = "fp32") -> WeightStore:
    return WeightStore(Gemm(CPU, precision), key)


def matrix(seed: int = 0) -> torch.Tensor:
    return torch.randn(64, 64, generator=torch.Generator().manual_seed(seed))


def no_matrix() -> torch.Tensor:
    raise AssertionError("it is there already")


# In one process.


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_second_store_maps_what_the_first_made(temporary: Path, precision: str) -> None:
    one, two = store(precision=precision), store(precision=precision)
    first = one.weight("w", matrix())
    (path,) = shared_files(temporary)
    made = path.stat()
    second = two.weight("w", matrix())
    assert torch.equal(first, second)
    assert torch.equal(first, Gemm(CPU, precision).weight(matrix()))
    assert first.dtype == second.dtype == Gemm(CPU, precision).dtype
    # `one` holds the file open, so no new file can have its inode number.
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (made.st_ino, made.st_mtime_ns)
    one.close()
    assert shared_files(temporary) == [path]
    two.close()
    assert shared_files(temporary) == []
    assert torch.equal(second, first), "a map outlives the file's name"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_spectral_weights_are_the_transform_of_the_weights(precision: str) -> None:
    algorithm = valid(9, 4)
    weight = torch.randn(70, 4, 6, generator=torch.Generator().manual_seed(1))
    expected = np.einsum("qk,okc->qoc", algorithm.to_weights, weight.double().numpy())
    for key in (None, "a model"):
        holder = store(key, precision)
        found = holder.spectral("w", algorithm, weight)
        assert found.shape == (algorithm.products, 70, 6)
        rounded = torch.from_numpy(expected).to(Gemm(CPU, precision).dtype)
        torch.testing.assert_close(found, rounded, atol=1e-5, rtol=1e-2)
        holder.close()


def test_the_head_is_held_as_it_was(temporary: Path) -> None:
    chain = plan_chain(toy_net([StageSpec(16, 5, 4)], features=30, hidden=(40,)))
    holder = store()
    held = holder.hold(chain)
    assert len(shared_files(temporary)) == 1
    assert torch.equal(held.head[0].weight, chain.head[0].weight)
    assert held.head[1:] == chain.head[1:]
    assert held.stages == chain.stages
    holder.close()


def test_names_models_and_precisions_are_kept_apart(temporary: Path) -> None:
    holders = [store("one"), store("two"), store("one", "bf16")]
    found = [holder.weight("w", matrix(seed)) for seed, holder in enumerate(holders)]
    found.append(holders[0].weight("other", matrix(3)))
    assert len(shared_files(temporary)) == 4
    for seed, weights in enumerate(found):
        assert torch.equal(weights, matrix(seed).to(weights.dtype))
    for holder in holders:
        holder.close()
    assert shared_files(temporary) == []


@pytest.mark.parametrize("key", [None, "a model"])
def test_what_is_small_or_has_no_key_is_not_shared(temporary: Path, key: str | None) -> None:
    holder = store(key)
    small = matrix()[:4] if key else matrix()
    assert torch.equal(holder.weight("w", small), small)
    assert shared_files(temporary) == []
    holder.close()


def test_the_folder_is_its_owners_alone(temporary: Path) -> None:
    holder = store()
    holder.weight("w", matrix())
    (folder,) = temporary.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    holder.close()


# Without disk space, or without permission.


def fails_to_share(caplog: pytest.LogCaptureFixture) -> WeightStore:
    holder = store()
    with caplog.at_level(logging.WARNING):
        assert torch.equal(holder.weight("w", matrix()), matrix())
    assert "weights are not shared between workers" in caplog.text
    return holder


def test_a_folder_that_is_full(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    fails_to_share(caplog).close()
    assert shared_files(temporary) == []
    assert list(temporary.glob("*/*.partial")) == []


def test_a_folder_of_somebody_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    holder = store()
    monkeypatch.setattr(os, "getuid", lambda: 12345678)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(holder.weight("w", matrix()), matrix())
    assert "not a folder of this user alone" in caplog.text


def test_no_temporary_folder_gives_private_weights(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(temporary / "gone"))
    fails_to_share(caplog)


def test_close_where_there_is_no_temporary_folder(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(temporary / "gone"))
    fails_to_share(caplog).close()


def test_a_folder_that_is_a_link(
    temporary: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Otherwise another user could make this program remove files elsewhere."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    (elsewhere / "precious.weights").write_bytes(b"mine")
    (temporary / f"raygenome-weights-{os.getuid()}").symlink_to(elsewhere)
    fails_to_share(caplog).close()
    assert (elsewhere / "precious.weights").exists()


@pytest.mark.parametrize("damage", ["other numbers", "empty", "rubbish"])
def test_what_nobody_holds_is_not_believed(temporary: Path, damage: str) -> None:
    first = store()
    first.weight("w", matrix())
    (path,) = shared_files(temporary)
    whole = path.read_bytes()
    first.close()
    path.write_bytes(
        {"other numbers": whole[:-8] + b"\0" * 8, "empty": b"", "rubbish": b"x"}[damage]
    )
    second = store()
    assert torch.equal(second.weight("w", matrix()), matrix())
    second.close()
    assert shared_files(temporary) == []


def test_without_room_it_says_so_once(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(temporary / "gone"))
    holder = fails_to_share(caplog)
    holder.weight("other", matrix(1))
    assert caplog.text.count("not shared") == 1


def test_what_ended_processes_left_is_swept(temporary: Path) -> None:
    holder = store()
    holder.weight("w", matrix())
    sweep_weights()
    assert len(shared_files(temporary)) == 1, "a file that is held has been removed"
    for handle in holder._handles:
        handle.close()  # as the kernel does when a process is killed
    sweep_weights(patience_s=1)
    assert shared_files(temporary) == []


# Between processes.


def hold(folder: str, link: Connection) -> None:
    """Hold the weights of `matrix()`, send their sum and the file's inode, wait for a message."""
    tempfile.tempdir = folder
    weights_module._SMALLEST_SHARED = SMALLEST
    holder = store()
    found = holder.weight("w", matrix())
    link.send((found.sum().item(), [path.stat().st_ino for path in shared_files(Path(folder))]))
    link.recv()
    holder.close()


@pytest.fixture
def holding(temporary: Path) -> Iterator[Callable[[], tuple[multiprocessing.Process, Connection]]]:
    """Return a function that starts a process that holds the weights."""
    started: list[tuple[multiprocessing.Process, Connection]] = []

    def start() -> tuple[multiprocessing.Process, Connection]:
        here, there = SPAWN.Pipe()
        process = SPAWN.Process(target=hold, args=(str(temporary), there), daemon=True)
        process.start()
        there.close()
        started.append((process, here))  # type: ignore[arg-type]
        return started[-1]

    yield start
    for process, link in started:
        process.kill()
        process.join()
        link.close()


Starter = Callable[[], tuple[multiprocessing.Process, Connection]]


@pytest.mark.slow
def test_two_processes_one_file_and_the_last_removes_it(temporary: Path, holding: Starter) -> None:
    (one, to_one), (two, to_two) = holding(), holding()
    replies = to_one.recv(), to_two.recv()
    assert replies[0] == replies[1] == (matrix().sum().item(), replies[0][1])
    assert len(replies[0][1]) == 1
    to_one.send("end")
    one.join()
    assert len(shared_files(temporary)) == 1
    to_two.send("end")
    two.join()
    assert (one.exitcode, two.exitcode) == (0, 0)
    assert shared_files(temporary) == []


@pytest.mark.slow
def test_what_a_killed_process_held_is_removed_by_the_next(
    temporary: Path, holding: Starter
) -> None:
    process, link = holding()
    link.recv()
    process.kill()
    process.join()
    assert len(shared_files(temporary)) == 1
    other = store("another model")
    kept = other.weight("w", matrix(1))
    assert len(shared_files(temporary)) == 1
    assert torch.equal(kept, matrix(1))
    other.close()
    assert shared_files(temporary) == []


@pytest.mark.slow
def test_what_a_killed_process_held_is_made_again_for_the_same_model(
    temporary: Path, holding: Starter
) -> None:
    """The file is the same one by name. It is written again, since no living process made it."""
    process, link = holding()
    link.recv()
    process.kill()
    process.join()
    (path,) = shared_files(temporary)
    path.write_bytes(path.read_bytes()[:-8] + b"\0" * 8)  # what the killed process left is damaged
    again = store()
    assert torch.equal(again.weight("w", matrix()), matrix())
    assert shared_files(temporary) == [path]
    again.close()
    assert shared_files(temporary) == []


def test_half_a_file_of_a_killed_writer_is_no_file(temporary: Path) -> None:
    first = store()
    first.weight("w", matrix())
    (path,) = shared_files(temporary)
    first.close()
    path.with_suffix(".partial").write_bytes(b"half")
    again = store()
    assert torch.equal(again.weight("w", matrix()), matrix())
    assert list(temporary.glob("*/*.partial")) == []
    again.close()


def race(folder: str, rounds: int, barrier: object, link: Connection) -> None:
    tempfile.tempdir = folder
    weights_module._SMALLEST_SHARED = SMALLEST
    warnings: list[str] = []
    weights_module._log.warning = lambda *args: warnings.append(str(args))  # type: ignore[assignment]
    wrong = 0
    for i in range(rounds):
        barrier.wait()  # type: ignore[attr-defined]
        holder = store()
        for name in ("w", "v"):
            wrong += not torch.equal(holder.weight(f"{name}{i % 3}", matrix()), matrix())
        holder.close()
    link.send((wrong, warnings))


@pytest.mark.slow
def test_processes_that_race_never_fail(temporary: Path) -> None:
    rounds, barrier = 30, SPAWN.Barrier(2)
    links, processes = [], []
    for _ in range(2):
        here, there = SPAWN.Pipe()
        process = SPAWN.Process(target=race, args=(str(temporary), rounds, barrier, there))
        process.start()
        links.append(here)
        processes.append(process)
    for link, process in zip(links, processes, strict=True):
        assert link.recv() == (0, [])
        process.join()
        assert process.exitcode == 0
    assert shared_files(temporary) == []
