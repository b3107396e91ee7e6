"""Basset's .h5 files, in the published axis orders and types."""

import numpy as np
import pytest
from support.published_files import basset_one_hot, texts, write_h5

from raygenome.datasets import blocks
from raygenome.datasets.basset_h5 import open_h5
from raygenome.errors import DataError

WINDOW, TARGETS = 25, 3


def random_windows(rng: np.random.Generator, n: int, letters: str = "ACGTN") -> list[str]:
    return ["".join(rng.choice(list(letters), WINDOW)) for _ in range(n)]


def labels_of(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.integers(0, 2, (n, TARGETS))


@pytest.mark.parametrize("squeezed", [False, True])
@pytest.mark.parametrize(
    ("dtype", "n_value"),
    [(np.float16, 0), (np.float16, 0.25), (bool, 0), (np.uint8, 0), (np.float32, 0.25)],
)
@pytest.mark.parametrize("block_bytes", [1, 3000, 1 << 26])
def test_forms(tmp_path, monkeypatch, squeezed, dtype, n_value, block_bytes):
    monkeypatch.setattr(blocks, "_BLOCK_BYTES", block_bytes)
    rng = np.random.default_rng(0)
    arrays: dict = {"target_labels": np.array([b"K562", b"GM12878", b"K562"])}
    truth = {}
    for split, n in (("test", 5), ("train", 12)):
        windows, labels = random_windows(rng, n), labels_of(rng, n)
        x = basset_one_hot(windows, dtype, n_value)
        arrays |= {f"{split}_in": x[:, :, 0] if squeezed else x, f"{split}_out": labels}
        truth[split] = windows, labels
    with open_h5(write_h5(tmp_path / "x.h5", **arrays)) as file:
        assert (file.kind, file.labels) == ("basset-h5", ["K562", "GM12878", "K562"])
        assert [s.split for s in file.splits] == ["train", "test"]
        for split in file.splits:
            assert (split.window_size, split.n_targets) == (WINDOW, TARGETS)
            rows = split.open()
            windows, labels = truth[split.split]
            assert rows.counts == {"rows_in_file": len(windows), "coordinates": False}
            codes, found, sites = rows.read(1, rows.n_rows)
            assert texts(codes) == windows[1:]
            assert found.tolist() == labels[1:].tolist()
            assert codes.dtype == found.dtype == np.uint8
            assert sites is None


def test_headers_are_sites(tmp_path):
    rng = np.random.default_rng(1)
    headers = [b"chr1:100-125(+)", b">HLA-A*01:01:0-25(-)", b"chrX:-5-20", b"9:7-32(.)"]
    windows = random_windows(rng, 4)
    path = write_h5(
        tmp_path / "x.h5",
        test_in=basset_one_hot(windows),
        test_out=labels_of(rng, 4),
        test_headers=np.array(headers),
    )
    with open_h5(path) as file:
        assert file.labels is None
        rows = file.splits[0].open()
        assert rows.counts["coordinates"] is True
        codes, _, sites = rows.read(1, 4)
        assert (
            texts(codes) == windows[1:]
        )  # windows of strand - are stored as reverse complements, and stay so
        assert sites.contig == ["HLA-A*01:01", "chrX", "9"]
        assert sites.start.tolist() == [0, -5, 7]
        assert sites.negative.tolist() == [False] * 3


def test_headers_that_are_no_places(tmp_path):
    rng = np.random.default_rng(2)
    x, y = basset_one_hot(random_windows(rng, 2)), labels_of(rng, 2)
    path = write_h5(tmp_path / "x.h5", test_in=x, test_out=y, test_headers=[b"peak1", b"peak2"])
    with open_h5(path) as file:
        rows = file.splits[0].open()
        assert rows.counts["coordinates"] is False
        assert rows.read(0, 2)[2] is None


@pytest.mark.parametrize("second", [b"peak2", b"chr1:100-126(+)", b"chr1:100-125(+)x"])
def test_a_header_that_is_no_place(tmp_path, second):
    rng = np.random.default_rng(2)
    x, y = basset_one_hot(random_windows(rng, 2)), labels_of(rng, 2)
    headers = np.array([b"chr1:100-125(+)", second])
    path = write_h5(tmp_path / "x.h5", test_in=x, test_out=y, test_headers=headers)
    with (
        open_h5(path) as file,
        pytest.raises(DataError, match=r"test_headers: row 1 .* it must be .* of 25 bases"),
    ):
        file.splits[0].open().read(0, 2)


def test_scrambled_axes_are_named(tmp_path):
    """Since May 2020, Basset writes values in the order (length, 4) with shape (4, 1, length)."""
    rng = np.random.default_rng(3)
    windows = random_windows(rng, 3)
    scrambled = basset_one_hot(windows)[:, :, 0].transpose(0, 2, 1).reshape(3, 4, 1, WINDOW)
    path = write_h5(tmp_path / "x.h5", train_in=scrambled, train_out=labels_of(rng, 3))
    with (
        open_h5(path) as file,
        pytest.raises(DataError, match=r"row 0, .*one-hot as bases x 4: Basset scram"),
    ):
        file.splits[0].open().read(0, 3)


@pytest.mark.parametrize("value", [2, np.nan, 0.5, -1])
def test_wrong_values(tmp_path, value):
    rng = np.random.default_rng(4)
    x, y = basset_one_hot(random_windows(rng, 3)), labels_of(rng, 3).astype(float)
    bad_x, bad_y = x.copy(), y.copy()
    bad_x[2, 1, 0, 7] = value
    bad_y[1, 2] = value
    with open_h5(write_h5(tmp_path / "x.h5", train_in=bad_x, train_out=y)) as file:
        with pytest.raises(DataError, match=r"train_in: row 2, position 7 \(from 0\)") as caught:
            file.splits[0].open().read(0, 3)
        assert "scrambled" not in str(caught.value)
    with (
        open_h5(write_h5(tmp_path / "y.h5", train_in=x, train_out=bad_y)) as file,
        pytest.raises(DataError, match=rf"train_out: row 1, target 2 \(from 0\) holds {value}"),
    ):
        file.splits[0].open().read(0, 3)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"train_in": (5, 4, 1, 25)}, "has train_in without train_out"),
        ({"train_out": (5, 3)}, "has train_out without train_in"),
        ({"foo": (5, 3)}, "holds foo 5x3; it needs train_in and train_out"),
        ({"train_in": (5, 25, 4), "train_out": (5, 3)}, "are 5 x 25 x 4 and 5 x 3; they must be"),
        ({"train_in": (5, 4, 25), "train_out": (6, 3)}, "they must be rows x 4 x 1 x bases"),
        ({"train_in": (5, 4, 25), "train_out": (5,)}, "they must be"),
        ({"train_in": (5, 4, 2, 25), "train_out": (5, 3)}, "they must be"),
        ({"train_in": (5, 1, 4, 25), "train_out": (5, 3)}, "they must be"),
        ({"train_in": (5, 4), "train_out": (5, 3)}, "they must be"),
        ({"test_in": (0, 4, 25), "test_out": (0, 3)}, r"are empty .*; leave the split out"),
        (
            {"test_in": (5, 4, 25), "test_out": (5, 3), "test_headers": (4,)},
            "test_headers has shape 4; it must have one header for each of the 5 rows",
        ),
        (
            {"test_in": (5, 4, 25), "test_out": (5, 3), "target_labels": (4,)},
            "has 4 target_labels for 3 targets",
        ),
    ],
)
def test_wrong_shapes(tmp_path, arrays, message):
    path = write_h5(tmp_path / "x.h5", **{name: np.zeros(shape) for name, shape in arrays.items()})
    with pytest.raises(DataError, match=message) as caught, open_h5(path):
        pass
    assert str(path) in str(caught.value)


def test_text_is_no_number(tmp_path):
    path = write_h5(
        tmp_path / "x.h5", train_in=np.full((2, 4, 25), b"A"), train_out=np.ones((2, 3))
    )
    with pytest.raises(DataError, match="it must hold numbers or bool"), open_h5(path):
        pass
