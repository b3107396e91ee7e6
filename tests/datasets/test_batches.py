"""Batches of packed records become one-hot windows; compared with a letter-by-letter encoding."""

import contextlib
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.small_training import write_packed

from raygenome.datasets.batches import AHEAD, Batch, Encoder, Loader, Samples, plain_samples
from raygenome.datasets.packed import Split, pack_bases, pack_labels
from raygenome.genome.targets import Target

COMPLEMENT = {"A": "T", "C": "G", "G": "C", "T": "A", "N": "N"}
CPU = torch.device("cpu")


def encoded(window: str, reverse: bool, shift: int, channels: str, n_value: float) -> np.ndarray:
    """Return one window as the net must see it, (4, L); a slow version of `Encoder.windows`."""
    if reverse:
        window = "".join(COMPLEMENT[base] for base in reversed(window))
    moved = ["N"] * len(window)
    for place, base in enumerate(window):
        if 0 <= place + shift < len(window):
            moved[place + shift] = base
    rows = [
        [n_value if base == "N" else float(base == channel) for base in moved]
        for channel in channels
    ]
    return np.array(rows, dtype=np.float32)


def batch_of(windows: list[str], labels: np.ndarray, reverse: list[bool], shift: list[int]):
    """Return the batch of windows given as letters."""
    codes = np.array([["ACGTN".index(base) for base in window] for window in windows], np.uint8)
    records = np.concatenate([pack_bases(codes), pack_labels(labels)], axis=1)
    moved = torch.tensor(shift) if any(shift) else None
    index = [
        row * len(codes[0]) + (len(codes[0]) - 1 - place if reverse[row] else place)
        for row, place in np.argwhere(codes == 4).tolist()
    ]
    where = torch.tensor(index, dtype=torch.int64)
    return Batch(torch.from_numpy(records), torch.tensor(reverse), moved, where)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(
    length=st.integers(1, 23),
    targets=st.integers(1, 19),
    channels=st.sampled_from(["ACGT", "AGCT", "ATGC", "TGCA"]),
    n_value=st.sampled_from([0.0, 0.25]),
    letters=st.sampled_from(["ACGT", "ACGTN", "ANNN"]),
    data=st.data(),
)
def test_windows_and_labels_are_what_letters_give(
    length: int, targets: int, channels: str, n_value: float, letters: str, data: st.DataObject
) -> None:
    n = data.draw(st.integers(1, 5))
    text = st.text(letters, min_size=length, max_size=length)
    windows = data.draw(st.lists(text, min_size=n, max_size=n))
    reverse = data.draw(st.lists(st.booleans(), min_size=n, max_size=n))
    most = data.draw(st.sampled_from([0, 3]))
    shift = data.draw(st.lists(st.integers(-most, most), min_size=n, max_size=n))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    labels = rng.integers(0, 2, (n, targets)).astype(np.uint8)
    batch = batch_of(windows, labels, reverse, shift)
    encoder = Encoder(length, targets, channels, n_value, CPU)
    found = encoder.windows(batch)
    slow = [encoded(*each, channels, n_value) for each in zip(windows, reverse, shift, strict=True)]
    assert found.shape == (n, 4, length)
    assert found.dtype == torch.float32
    np.testing.assert_array_equal(found.numpy(), np.stack(slow))
    assert found.transpose(1, 2).is_contiguous(), "the net takes it without a copy"
    given_labels = encoder.labels(batch)
    assert given_labels.dtype == torch.float32
    np.testing.assert_array_equal(given_labels.numpy(), labels)


@pytest.mark.slow
def test_encoding_changes_neither_the_batch_nor_the_table() -> None:
    windows = ["NACGTTACGN", "ACGTNNNNAC"]
    batch = batch_of(windows, np.ones((2, 3), np.uint8), [True, False], [1, -2])
    before = [batch.records.clone(), batch.n_index.clone()]
    encoder = Encoder(10, 3, "AGCT", 0.25, CPU)
    first = encoder.windows(batch).clone()
    torch.testing.assert_close(encoder.windows(batch), first, rtol=0, atol=0)
    assert torch.equal(batch.records, before[0])
    assert torch.equal(batch.n_index, before[1])


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    rng = np.random.default_rng(4)
    codes = rng.integers(0, 4, (103, 21)).astype(np.uint8)
    for row in (0, 5, 50, 102):
        codes[row, 3:7] = codes[row, 20:] = 4
    labels = rng.integers(0, 2, (103, 9)).astype(np.uint8)
    targets = [Target(i, f"t{i}", "cell", "assay", "", "TF") for i in range(9)]
    out = tmp_path_factory.mktemp("batches") / "data"
    return write_packed(out, targets=targets, train=(codes, labels)).split("train")


def some_samples(seed: int, n: int, rows: int) -> Samples:
    rng = np.random.default_rng(seed)
    return Samples(rng.permutation(rows)[:n], rng.random(n) < 0.5, rng.integers(-2, 3, n))


def letters_of(split: Split, row: int) -> str:
    return "".join("ACGTN"[code] for code in split.codes([row])[0])


@pytest.mark.parametrize(
    ("first", "part"), [(0, slice(0, 10)), (0, slice(3, 7)), (4, slice(7, 10))]
)
def test_a_loader_yields_each_whole_batch_from_the_first_on(
    split: Split, first: int, part: slice
) -> None:
    samples = some_samples(1, 103, split.n_rows)
    encoder = Encoder(split.window_size, split.n_targets, "ACGT", 0.25, CPU)
    found = list(Loader(split).batches(samples, 10, part, first=first))
    assert len(found) == 10 - first, "three samples are left for another epoch"
    for number, batch in enumerate(found, first):
        mine = range(10 * number + part.start, 10 * number + part.stop)
        slow = [
            encoded(
                letters_of(split, int(samples.row[i])),
                bool(samples.reverse[i]),
                int(samples.shift[i]),
                "ACGT",
                0.25,
            )
            for i in mine
        ]
        np.testing.assert_array_equal(encoder.windows(batch).numpy(), np.stack(slow))
        labels = split.labels(samples.row[mine.start : mine.stop])
        np.testing.assert_array_equal(encoder.labels(batch).numpy(), labels)


def test_a_loader_with_nothing_left_yields_nothing(split: Split) -> None:
    samples = some_samples(1, 103, split.n_rows)
    assert list(Loader(split).batches(samples, 10, slice(0, 10), first=10)) == []
    assert list(Loader(split).batches(samples, 200, slice(0, 200))) == []
    assert threads() == []


def test_rows_that_do_not_move_have_no_shift(split: Split) -> None:
    batch = Loader(split).gather(plain_samples(np.arange(7), reverse=True))
    assert batch.shift is None
    assert batch.reverse.all()
    turned = np.argwhere(split.codes(np.arange(7))[:, ::-1] == 4)
    expected = turned[:, 0] * split.window_size + turned[:, 1]
    assert len(expected) == 10
    assert sorted(batch.n_index.tolist()) == expected.tolist()


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "loader"]


def test_the_thread_ends_when_the_consumer_stops_early(split: Split) -> None:
    batches = Loader(split).batches(some_samples(2, 103, split.n_rows), 2, slice(0, 2))
    next(batches)
    assert len(threads()) == 1
    batches.close()
    assert threads() == []


def test_the_thread_ends_when_the_consumer_fails(split: Split) -> None:
    batches = Loader(split).batches(some_samples(2, 103, split.n_rows), 2, slice(0, 2))
    with contextlib.suppress(ZeroDivisionError), contextlib.closing(batches):
        for _ in batches:
            raise ZeroDivisionError
    assert threads() == []


def test_only_a_few_batches_are_gathered_ahead(
    split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader, gathered = Loader(split), []
    gather = loader.gather

    def counted(samples: Samples) -> Batch:
        gathered.append(len(samples.row))
        return gather(samples)

    monkeypatch.setattr(loader, "gather", counted)
    batches = loader.batches(some_samples(2, 103, split.n_rows), 2, slice(0, 2))
    next(batches)
    deadline = time.monotonic() + 20
    while len(gathered) < AHEAD + 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.3)
    assert len(gathered) == AHEAD + 2, "one is consumed, one waits for room"
    assert len(list(batches)) == 50
    assert threads() == []


def test_an_error_in_the_thread_comes_to_the_consumer(
    split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = Loader(split)
    gather = loader.gather
    calls: list[int] = []

    def failing(samples: Samples) -> Batch:
        calls.append(1)
        if len(calls) == 3:
            raise OSError("the disk is gone")
        return gather(samples)

    monkeypatch.setattr(loader, "gather", failing)
    batches = loader.batches(some_samples(2, 103, split.n_rows), 10, slice(0, 10))
    assert len([next(batches), next(batches)]) == 2
    with pytest.raises(OSError, match="the disk is gone"):
        next(batches)
    assert threads() == []


def test_a_batch_on_the_cpu_is_not_copied(split: Split) -> None:
    batch = Loader(split).gather(plain_samples(np.arange(3)))
    assert batch.to(CPU) is batch


def test_a_split_of_a_dataset_is_mapped_and_not_read(tmp_path: Path) -> None:
    codes = np.zeros((5, 8), np.uint8)
    data = write_packed(tmp_path / "d", train=(codes, np.ones((5, 2), np.uint8)))
    assert isinstance(data.split("train").records, np.memmap)
