"""Predictions, compared with single windows through the net, each strand separately."""

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from support.builders import load_model, write_model

from raygenome.datasets.packed import Split, pack_labels
from raygenome.datasets.writer import DatasetWriter
from raygenome.errors import StorageError, UsageError
from raygenome.evaluation import predict as module
from raygenome.evaluation.evaluate import choose_device
from raygenome.evaluation.predict import predict
from raygenome.genome.sequence import one_hot_table, reverse_complement
from raygenome.models import default_targets

pytestmark = pytest.mark.usefixtures("one_thread")

WINDOW, TARGETS, ROWS = 40, 5, 37


@pytest.fixture
def split(tmp_path: Path) -> Split:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 4, (ROWS, WINDOW)).astype(np.uint8)
    codes[3, :7] = codes[8, 20:] = 4
    labels = rng.integers(0, 2, (ROWS, TARGETS)).astype(np.uint8)
    with DatasetWriter(
        tmp_path / "data",
        window_size=WINDOW,
        targets=default_targets("basset", TARGETS),
        identity={},
    ) as writer:
        writer.write("test", 0, codes, pack_labels(labels))
        return writer.finish(recipe="test", sources=[], options={}, counts={}).split("test")


def oracle(net, spec, split: Split, *, both: bool) -> np.ndarray:
    """Compute window by window in float64, with other torch operations than the program's."""
    table = one_hot_table(spec.channels, spec.n_value).astype(np.float64)
    net = net.double()
    rows = []
    for row in range(split.n_rows):
        codes = split.codes([row])[0]
        strands = [codes, reverse_complement(codes)] if both else [codes]
        with torch.no_grad():
            logits = [net(torch.from_numpy(table[strand].T[None])).numpy() for strand in strands]
        rows.append(np.mean([1 / (1 + np.exp(-logit)) for logit in logits], axis=0)[0])
    net.float()
    return np.array(rows)


@pytest.mark.parametrize("architecture", ["basset", "deepsea"])
@pytest.mark.parametrize("strands", ["both", "forward"])
def test_every_window_is_right(
    tmp_path: Path, split: Split, architecture: str, strands: str
) -> None:
    config = {"window": WINDOW, "targets": TARGETS}
    if architecture == "deepsea":  # another channel order, another value for N
        config |= {"channels": [6, 6], "hidden": 5, "kernel": 3, "pool_width": 2}
        config |= {"dropouts": [0.5, 0.5]}
    else:
        config |= {"channels": [4, 4], "kernels": [5, 3], "pools": [3, 2], "hidden": [6]}
    net, spec = load_model(write_model(tmp_path / "m", 1, architecture, **config))
    found = predict(net, spec, split, strands=strands, batch_size=8)
    assert found.dtype == np.float32
    expected = oracle(net, spec, split, both=strands == "both")
    assert expected.std(axis=0).min() > 1e-5
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_rows_and_batches(tmp_path: Path, split: Split) -> None:
    net, spec = load_model(write_model(tmp_path / "m"))
    whole = predict(net, spec, split)
    for batch_size in (1, 5, 36, 37, 1000):
        found = predict(net, spec, split, batch_size=batch_size)
        np.testing.assert_allclose(found, whole, atol=1e-6)
    for rows in ([9, 2, 2], slice(30, None), np.array([], dtype=np.int64)):
        found = predict(net, spec, split, rows, batch_size=2)
        np.testing.assert_allclose(found, whole[rows], atol=1e-6)


def test_the_mode_of_the_net_comes_back(tmp_path: Path, split: Split) -> None:
    net, spec = load_model(write_model(tmp_path / "m"))
    expected = predict(net, spec, split)
    net.train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    np.testing.assert_array_equal(predict(net, spec, split), expected)  # no dropout
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_bf16_is_near(tmp_path: Path, split: Split) -> None:
    net, spec = load_model(write_model(tmp_path / "m"))
    exact, near = predict(net, spec, split), predict(net, spec, split, precision="bf16")
    assert near.dtype == np.float32
    assert 0 < np.abs(near - exact).max() < 0.02


def test_large_predictions_lie_in_a_file_without_a_name(
    tmp_path: Path, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, spec = load_model(write_model(tmp_path / "m"))
    expected = predict(net, spec, split)
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    monkeypatch.setattr(module, "_IN_MEMORY", 100)
    found = predict(net, spec, split)
    assert isinstance(found, np.memmap)
    assert list(place.iterdir()) == []
    np.testing.assert_array_equal(found, expected)


def test_no_space_is_said_before_the_work(
    tmp_path: Path, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    monkeypatch.setattr(module, "_IN_MEMORY", 100)
    net, spec = load_model(write_model(tmp_path / "m"))
    with pytest.raises(StorageError, match=r"No space left on device\); set TMPDIR"):
        predict(net, spec, split)


def test_devices() -> None:
    assert choose_device("cpu", "bf16") == "cpu"
    assert choose_device("auto", "fp32") == ("cuda" if torch.cuda.is_available() else "cpu")
    for device, precision, message in [
        ("tpu", "fp32", "--device is 'tpu'; it must be one of auto, cpu, cuda"),
        ("cpu", "fp8", "--precision is 'fp8'"),
        ("cpu", "tf32", "only on CUDA"),
    ]:
        with pytest.raises(UsageError, match=message):
            choose_device(device, precision)
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="no usable GPU"):
            choose_device("cuda", "fp32")


def test_strands_are_two(tmp_path: Path, split: Split) -> None:
    net, spec = load_model(write_model(tmp_path / "m"))
    with pytest.raises(UsageError, match="--strands is 'reverse'"):
        predict(net, spec, split, strands="reverse")
