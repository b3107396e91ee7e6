"""Packed datasets: rows are read back in any order, and a stopped build can continue."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raygenome.datasets import writer
from raygenome.datasets.packed import (
    Dataset,
    leakage,
    pack_bases,
    pack_labels,
    runs_of_n,
    unpack_bases,
    unpack_labels,
)
from raygenome.datasets.writer import DatasetWriter, Windows
from raygenome.errors import DataError, NoInput, OutputError
from raygenome.genome.targets import Target

TARGETS = [Target(i, f"t{i}", "cell", "assay", "", "TF") for i in range(11)]


def some_windows(rng: np.random.Generator, n: int, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Return random codes, some rows with runs of N, and random labels."""
    codes = rng.integers(0, 4, (n, window)).astype(np.uint8)
    for row in rng.choice(n, n // 3, replace=False):
        for _ in range(2):
            start = int(rng.integers(window))
            codes[row, start : start + int(rng.integers(1, 9))] = 4
    return codes, rng.integers(0, 2, (n, len(TARGETS))).astype(np.uint8)


def sites_of(rng: np.random.Generator, n: int, *, contig: str = "chr1", origin: int = 0) -> Windows:
    """Return sites that do not overlap; if `origin` is 0, the first starts before its contig."""
    start = origin - 5 + 1000 * np.arange(n)
    return Windows([contig] * n, start, rng.random(n) < 0.3)


def write_all(
    out: Path, data: dict[str, tuple], sites: dict[str, Windows] | None = None, **options
):
    """Write whole splits, part by part, skipping what is committed."""
    window = next(iter(data.values()))[0].shape[1]
    identity = {"seed": options.pop("seed", 0)}
    with DatasetWriter(
        out, window_size=window, targets=TARGETS, identity=identity, **options
    ) as file:
        for split, (codes, labels) in data.items():
            size = writer.PART_ROWS
            for part, first in enumerate(range(0, len(codes), size)):
                rows = slice(first, first + size)
                where = None
                if sites is not None:
                    where = Windows(*(column[rows] for column in sites[split]))
                if not file.has(split, part):
                    file.write(split, part, codes[rows], pack_labels(labels[rows]), where)
        return file.finish(recipe="test", sources=[], options={}, counts={})


@given(st.integers(0, 2**32 - 1), st.integers(1, 37), st.integers(1, 20), st.integers(1, 30))
def test_packing_is_undone_by_unpacking(seed: int, window: int, n: int, targets: int) -> None:
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 5, (n, window)).astype(np.uint8)
    found = unpack_bases(pack_bases(codes), window)
    for row, start, end in runs_of_n(codes).tolist():
        assert start < end
        found[row, start:end] = 4
    np.testing.assert_array_equal(found, codes)
    labels = rng.integers(0, 2, (n, targets)).astype(np.uint8)
    np.testing.assert_array_equal(unpack_labels(pack_labels(labels), targets), labels)


def test_a_dataset_gives_back_what_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "PART_ROWS", 16)
    rng = np.random.default_rng(0)
    data = {"train": some_windows(rng, 50, 37), "test": some_windows(rng, 7, 37)}
    sites = {"train": sites_of(rng, 50), "test": sites_of(rng, 7, contig="chr2")}
    write_all(tmp_path / "data", data, sites)

    dataset = Dataset.open(tmp_path / "data")
    dataset.verify()
    assert dataset.window_size == 37
    assert dataset.targets == TARGETS
    assert not (tmp_path / "data/.work").exists()
    assert dataset.split("valid").n_rows == 0
    for name, (codes, labels) in data.items():
        split = dataset.split(name)
        rows = rng.integers(0, len(codes), 100)  # in any order, with repeats
        np.testing.assert_array_equal(split.codes(rows), codes[rows])
        np.testing.assert_array_equal(split.labels(rows), labels[rows])
        np.testing.assert_array_equal(split.codes(slice(2, 6)), codes[2:6])
        np.testing.assert_array_equal(split.positives(), labels.sum(axis=0))
        assert split.entry.with_n == int((codes == 4).any(axis=1).sum())
        found = split.windows()
        assert found is not None
        assert found["start"].to_pylist() == sites[name].start.tolist()
        assert found["end"].to_pylist() == (sites[name].start + 37).tolist()
        np.testing.assert_array_equal(split.negatives(), sites[name].negative)
        assert split.entry.negatives == int(sites[name].negative.sum())
    assert leakage(dataset) == {"train in test": 0, "test in train": 0}


def as_format_1(folder: Path) -> None:
    """Convert a dataset to format 1, with a new digest."""
    manifest = json.loads((folder / "dataset.json").read_text())
    for name, entry in manifest["splits"].items():
        entry["background"] = entry.pop("negatives")
        new, old = f"{name}.windows.parquet", f"{name}.sites.parquet"
        if new in entry["files"]:
            del entry["files"][new]
            (folder / new).rename(folder / old)
            table = pq.read_table(folder / old)
            pq.write_table(
                table.rename_columns([*table.column_names[:3], "background"]), folder / old
            )
            content = (folder / old).read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            entry["files"][old] = {"bytes": len(content), "sha256": digest}
    manifest["format"] = 1
    (folder / "dataset.json").write_text(json.dumps(manifest))


def test_a_dataset_of_format_1_is_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    data = {"train": some_windows(rng, 50, 37), "test": some_windows(rng, 7, 37)}
    sites = {"train": sites_of(rng, 50), "test": sites_of(rng, 7, contig="chr2")}
    write_all(tmp_path / "data", data, sites)
    as_format_1(tmp_path / "data")
    dataset = Dataset.open(tmp_path / "data")
    dataset.verify()
    for name, (codes, _) in data.items():
        split = dataset.split(name)
        np.testing.assert_array_equal(split.codes(slice(None)), codes)
        np.testing.assert_array_equal(split.negatives(), sites[name].negative)
        assert split.entry.negatives == int(sites[name].negative.sum())
    assert leakage(dataset) == {"train in test": 0, "test in train": 0}
    assert write_all(tmp_path / "data", data, sites, resume=True).digest == dataset.digest
    write_all(tmp_path / "data", data, sites, overwrite=True)
    assert not list((tmp_path / "data").glob("*.sites.parquet"))


def test_a_stopped_build_ends_as_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "PART_ROWS", 8)
    data = {"train": some_windows(np.random.default_rng(1), 30, 12)}
    whole = write_all(tmp_path / "whole", data)

    plain = DatasetWriter.write
    count = 0

    def failing(self: DatasetWriter, *args: object, **kwargs: object) -> None:
        nonlocal count
        count += 1
        if count == 3:
            raise KeyboardInterrupt
        plain(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(DatasetWriter, "write", failing)
    with pytest.raises(KeyboardInterrupt):
        write_all(tmp_path / "data", data)
    with pytest.raises(NoInput, match="unfinished"):
        Dataset.open(tmp_path / "data")
    with pytest.raises(OutputError, match="--resume"):
        write_all(tmp_path / "data", data)
    with pytest.raises(DataError, match="another seed"):
        write_all(tmp_path / "data", data, seed=1, resume=True)
    resumed = write_all(tmp_path / "data", data, resume=True)
    assert count == 3 + 2  # two parts were there
    assert resumed.digest == whole.digest
    assert write_all(tmp_path / "data", data, resume=True).digest == whole.digest
    assert count == 5
    write_all(tmp_path / "data", data, seed=1, overwrite=True)


def test_a_damaged_part_is_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "PART_ROWS", 8)
    codes, labels = some_windows(np.random.default_rng(1), 16, 12)
    arguments = {"window_size": 12, "targets": TARGETS, "identity": {"seed": 0}}

    def begin() -> None:
        with DatasetWriter(tmp_path / "data", **arguments) as file:  # type: ignore[arg-type]
            file.write("train", 0, codes[:8], pack_labels(labels[:8]))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        begin()
    part = tmp_path / "data/.work/parts/train-00000.rows"
    part.write_bytes(part.read_bytes()[:-1] + b"x")
    dataset = write_all(tmp_path / "data", {"train": (codes, labels)}, resume=True)
    dataset.verify()
    np.testing.assert_array_equal(dataset.split("train").codes(slice(None)), codes)


def test_damage_is_seen(tmp_path: Path) -> None:
    write_all(tmp_path / "data", {"train": some_windows(np.random.default_rng(1), 30, 12)})
    rows = tmp_path / "data/train.rows"
    content = rows.read_bytes()
    rows.write_bytes(content[:-1])
    with pytest.raises(DataError, match=r"train\.rows has .* bytes"):
        Dataset.open(tmp_path / "data")
    rows.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(DataError, match="sha256"):
        Dataset.open(tmp_path / "data").verify()
    manifest = tmp_path / "data/dataset.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "format": 99}))
    with pytest.raises(DataError, match="format 99"):
        Dataset.open(tmp_path / "data")


@pytest.mark.parametrize(
    ("original", "changed"),
    [
        ('"window": 37', '"window": 64'),
        ('"window": 37', '"window": "37"'),
        ('"rows": 20', '"rows": 21'),
        ('"positives": [', '"positives": [7, '),
        ('"valid": {', '"other": {'),
    ],
)
def test_a_manifest_that_its_files_contradict(tmp_path: Path, original: str, changed: str) -> None:
    data = {"train": some_windows(np.random.default_rng(2), 20, 37)}
    write_all(tmp_path / "data", data)
    path = tmp_path / "data" / "dataset.json"
    text = path.read_text()
    assert original in text
    path.write_text(text.replace(original, changed, 1))
    with pytest.raises(DataError, match=r"dataset\.json .*build the dataset again$") as caught:
        Dataset.open(path.parent)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrong", [np.full((3, 2), np.nan), np.full((3, 2), 2, np.uint8)])
def test_labels_are_0_or_1(wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match="labels must be 0 or 1"):
        pack_labels(wrong)


def test_labels_that_are_not_packed_are_refused(tmp_path: Path) -> None:
    codes, labels = some_windows(np.random.default_rng(1), 30, 12)
    with (
        pytest.raises(ValueError, match="packed labels"),
        DatasetWriter(tmp_path / "data", window_size=12, targets=TARGETS, identity={}) as file,
    ):
        file.write("train", 0, codes, labels)
    assert not (tmp_path / "data").exists()


def test_overlapping_windows_across_splits_are_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    data = {"train": some_windows(rng, 10, 12), "test": some_windows(rng, 3, 12)}
    sites = {"train": sites_of(rng, 10), "test": sites_of(rng, 3, origin=11)}
    with pytest.raises(DataError, match="3 windows overlap across splits"):
        write_all(tmp_path / "data", data, sites)


def test_nothing_of_others_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/letter.txt").write_text("dear")
    data = {"train": some_windows(np.random.default_rng(1), 3, 12)}
    with pytest.raises(OutputError, match="holds no dataset"):
        write_all(tmp_path / "data", data, overwrite=True)
    assert (tmp_path / "data/letter.txt").exists()
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="is a file"):
        write_all(tmp_path / "file", data)
