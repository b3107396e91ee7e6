"""DeepSEA's .mat files, in the published axis orders and types, against a base-by-base reading."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.published_files import TARGETS, WINDOW, one_hot, strand_pairs, texts, write_mat

from raygenome.datasets import blocks
from raygenome.datasets.blocks import Axes
from raygenome.datasets.deepsea_mat import Layout, layout, open_mat
from raygenome.datasets.stored import Rows
from raygenome.errors import DataError

FORMS = ["v5", "v5 turned", "v7.3", "v7.3 turned", "v7.3 gzip"]


@pytest.fixture
def rows_of() -> Callable[..., Rows]:
    """Return a reader of one split of a file; the file stays open until the test ends."""
    with ExitStack() as stack:

        def opened(path: Path, form: str, split: str = "train") -> Rows:
            file = stack.enter_context(open_mat(path, v5=form.startswith("v5")))
            return {s.split: s for s in file.splits}[split].open()

        yield opened


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("n_value", [0, 0.25])
def test_every_form_reads_alike(tmp_path, rows_of, form, n_value):
    windows, labels = strand_pairs(np.random.default_rng(1), 11)
    arrays = {"trainxdata": one_hot(windows, n_value=n_value), "traindata": labels}
    rows = rows_of(write_mat(tmp_path / "train.mat", form, **arrays), form)
    assert rows.counts == {"rows_in_file": 22, "reverse_complement_half": True}
    assert rows.n_rows == 11
    codes, found, sites = rows.read(0, 11)
    assert codes.dtype == found.dtype == np.uint8
    assert texts(codes) == windows[:11]
    assert found.tolist() == labels[:11].tolist()
    assert sites is None
    assert texts(rows.read(3, 5)[0]) == windows[3:5]  # a second time, within


@pytest.mark.parametrize("dtype", [bool, np.int8, np.float32, np.float64])
@pytest.mark.parametrize("form", ["v5", "v7.3"])
def test_number_types(tmp_path, rows_of, form, dtype):
    windows, labels = strand_pairs(np.random.default_rng(2), 5)
    arrays = {"testxdata": one_hot(windows).astype(dtype), "testdata": labels.astype(dtype)}
    rows = rows_of(write_mat(tmp_path / "x", form, **arrays), form, "test")
    codes, found, _ = rows.read(0, 5)
    assert texts(codes) == windows[:5]
    assert found.tolist() == labels[:5].tolist()


@pytest.mark.parametrize("form", ["v5", "v7.3"])
def test_several_splits_in_a_file(tmp_path, form):
    rng = np.random.default_rng(3)
    arrays = {}
    for split, n in (("valid", 3), ("train", 5)):
        windows, labels = strand_pairs(rng, n)
        arrays |= {f"{split}xdata": one_hot(windows), f"{split}data": labels}
    path = write_mat(tmp_path / "both.mat", form, other=np.ones((2, 2)), **arrays)
    with open_mat(path, v5=form == "v5") as file:
        assert [(s.split, s.window_size, s.n_targets) for s in file.splits] == [
            ("train", WINDOW, TARGETS),
            ("valid", WINDOW, TARGETS),
        ]
        assert [s.open().n_rows for s in file.splits] == [5, 3]


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_blocks_do_not_show(tmp_path_factory, data):
    """Whatever the chunks, the size of blocks, and the rows asked for."""
    n = data.draw(st.integers(1, 40))
    windows, labels = strand_pairs(np.random.default_rng(n), n)
    path = tmp_path_factory.mktemp("blocks") / "x.mat"
    chunks = tuple(data.draw(st.integers(1, s)) for s in (WINDOW, 4, 2 * n))
    label_chunks = tuple(data.draw(st.integers(1, s)) for s in (TARGETS, 2 * n))
    turned = data.draw(st.booleans())
    axes = slice(None, None, -1) if turned else slice(None)
    with h5py.File(path, "w") as file:
        x, y = one_hot(windows).T, labels.T
        if turned:
            x, y = x.T, y.T
        file.create_dataset("trainxdata", data=x, chunks=chunks[axes])
        file.create_dataset("traindata", data=y, chunks=label_chunks[axes])
    before = blocks._BLOCK_BYTES
    blocks._BLOCK_BYTES = data.draw(st.integers(1, 5000))
    try:
        with open_mat(path, v5=False) as stored:
            rows = stored.splits[0].open()
            step = data.draw(st.integers(1, n))
            parts = [rows.read(i, min(i + step, n)) for i in range(0, n, step)]
    finally:
        blocks._BLOCK_BYTES = before
    assert texts(np.concatenate([codes for codes, _, _ in parts])) == windows[:n]
    assert np.concatenate([found for _, found, _ in parts]).tolist() == labels[:n].tolist()


@pytest.mark.parametrize("form", ["v5", "v7.3"])
@pytest.mark.parametrize("rows_kept", [22, 21])
def test_no_halves(tmp_path, rows_of, form, rows_kept):
    windows, labels = strand_pairs(np.random.default_rng(4), 11)
    windows[4] = windows[5]
    windows, labels = windows[:rows_kept], labels[:rows_kept]
    path = write_mat(tmp_path / "x.mat", form, trainxdata=one_hot(windows), traindata=labels)
    rows = rows_of(path, form)
    assert rows.counts == {"rows_in_file": rows_kept, "reverse_complement_half": False}
    assert texts(rows.read(0, rows_kept)[0]) == windows
    assert rows.read(0, rows_kept)[1].tolist() == labels.tolist()


def test_no_halves_by_labels_alone(tmp_path, rows_of):
    windows, labels = strand_pairs(np.random.default_rng(5), 7)
    labels[13] ^= 1
    path = write_mat(tmp_path / "x.mat", "v7.3", trainxdata=one_hot(windows), traindata=labels)
    assert rows_of(path, "v7.3").n_rows == 14


@pytest.mark.parametrize("what", ["windows", "labels"])
def test_halves_that_break(tmp_path, rows_of, what):
    windows, labels = strand_pairs(np.random.default_rng(6), 150)
    if what == "windows":
        windows[150 + 120] = windows[150]
    else:
        labels[120, 3] ^= 1
    path = write_mat(tmp_path / "x.mat", "v7.3", trainxdata=one_hot(windows), traindata=labels)
    rows = rows_of(path, "v7.3")
    assert rows.n_rows == 150
    rows.read(0, 120)
    with pytest.raises(DataError, match=r"row 270 \(from 0\) is not the reverse .* of row 120"):
        rows.read(110, 130)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1, 1, 0, 0], "1 1 0 0"),
        ([0, 2, 0, 0], "0 2 0 0"),
        ([0.5, 0.5, 0, 0], "0.5 0.5 0 0"),
        ([0.25, 0.25, 0.25, 0], "0.25 0.25 0.25 0"),
        ([1, np.nan, 0, 0], "1 nan 0 0"),
        ([1, -1, 0, 0], "1 -1 0 0"),
    ],
)
@pytest.mark.parametrize("form", ["v5", "v7.3", "v7.3 turned"])
def test_not_one_hot(tmp_path, rows_of, monkeypatch, form, values, message):
    monkeypatch.setattr(blocks, "_BLOCK_BYTES", 700)
    windows, labels = strand_pairs(np.random.default_rng(7), 120)
    x = one_hot(windows).astype(float)
    x[117, :, 19] = values
    path = write_mat(tmp_path / "x.mat", form, validxdata=x, validdata=labels)
    with pytest.raises(DataError, match=f"validxdata: row 117, position 19 .* holds {message};"):
        rows_of(path, form, "valid").read(0, 120)


def test_two_bases_at_once_of_bool(tmp_path, rows_of):
    windows, labels = strand_pairs(np.random.default_rng(7), 2)
    x = one_hot(windows).astype(bool)
    x[1, :, 3] = True
    path = write_mat(tmp_path / "x.mat", "v7.3", trainxdata=x, traindata=labels)
    with pytest.raises(DataError, match=r"row 1, position 3 .* holds 1 1 1 1;"):
        rows_of(path, "v7.3")


@pytest.mark.parametrize("value", [2, np.nan, -1, 0.5])
@pytest.mark.parametrize("form", ["v5", "v7.3", "v7.3 turned"])
def test_labels_not_0_or_1(tmp_path, rows_of, form, value):
    windows, labels = strand_pairs(np.random.default_rng(8), 120)
    y = labels.astype(float)
    y[118, 4] = value
    path = write_mat(tmp_path / "x.mat", form, trainxdata=one_hot(windows), traindata=y)
    with pytest.raises(DataError, match=rf"traindata: row 118, target 4 \(from 0\) holds {value}"):
        rows_of(path, form)


@pytest.mark.parametrize(
    ("windows", "labels", "expected"),
    [
        ((1000, 4, 4_400_000), (919, 4_400_000), Layout(Axes(2, 1, 0), 1)),
        ((8000, 4, 1000), (8000, 919), Layout(Axes(0, 1, 2), 0)),
        ((1000, 4, 1000), (919, 1000), Layout(Axes(2, 1, 0), 1)),
        ((1000, 4, 1000), (1000, 919), Layout(Axes(0, 1, 2), 0)),
        ((50, 1000, 4), (50, 9), Layout(Axes(0, 2, 1), 0)),
        ((4, 4, 20), (9, 20), "more than one order"),
        ((30, 4, 30), (30, 30), "more than one order"),
        ((20, 5, 30), (20, 9), "they must be"),
        ((20, 4, 30), (21, 9), "are 20x4x30 and 21x9; they must be rows x 4 x bases"),
        ((20, 4, 30), (9, 20), "they must be"),
        ((20, 4, 1, 30), (20, 9), "they must be"),
        ((0, 4, 30), (0, 9), "they must be"),
        ((20, 4, 30), (20, 0), "they must be"),
    ],
)
def test_layout(windows, labels, expected):
    if isinstance(expected, Layout):
        assert layout(windows, labels, "x") == expected
        return
    with pytest.raises(DataError, match=expected):
        layout(windows, labels, "x")


@pytest.mark.parametrize("form", ["v5", "v7.3"])
def test_wrong_variables(tmp_path, rows_of, form):
    windows, labels = strand_pairs(np.random.default_rng(9), 3)
    path = write_mat(tmp_path / "x.mat", form, foo=labels)
    with pytest.raises(DataError, match=r"holds foo 6x6; it needs trainxdata and traindata"):
        rows_of(path, form)
    path = write_mat(tmp_path / "y.mat", form, trainxdata=one_hot(windows))
    with pytest.raises(DataError, match="has trainxdata without traindata"):
        rows_of(path, form)


def test_text_is_no_number(tmp_path, rows_of):
    labels = np.array([[b"a"] * TARGETS] * 6)
    windows, _ = strand_pairs(np.random.default_rng(10), 3)
    path = write_mat(tmp_path / "x.mat", "v7.3", trainxdata=one_hot(windows), traindata=labels)
    with pytest.raises(DataError, match=r"traindata holds .*; it must hold numbers or bool"):
        rows_of(path, "v7.3")


@pytest.mark.parametrize("form", FORMS)
def test_cut_short(tmp_path, rows_of, form):
    """A truncated file gives one error of one line, or all rows are there."""
    windows, labels = strand_pairs(np.random.default_rng(11), 20)
    path = write_mat(tmp_path / "x.mat", form, trainxdata=one_hot(windows), traindata=labels)
    whole = path.read_bytes()
    for keep in np.linspace(600, len(whole) - 1, 12, dtype=int).tolist():
        path.write_bytes(whole[:keep])
        with pytest.raises(DataError) as caught:
            rows_of(path, form).read(0, 20)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)
