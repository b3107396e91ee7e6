"""Datasets built from a genome and peaks, in one go and after interruptions."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.builders import random_genome, write_fasta
from support.peak_files import random_peaks, write_table

from raygenome.datasets import writer
from raygenome.datasets.build import build
from raygenome.datasets.manifest import SPLITS
from raygenome.datasets.packed import Dataset
from raygenome.errors import DataError, OutputError, UsageError
from raygenome.genome.sequence import decode

LENGTHS = {"chr1": 60_000, "chr2": 30_000, "chr3": 20_000, "short": 300}
SPLIT = {"valid": ["chr2:5,001-20,000"], "test": ["chr3", "chr1:1-4,000"]}


class Inputs:
    """A genome and peaks of five targets, on the disk."""

    def __init__(self, folder: Path, seed: int = 7) -> None:
        rng = np.random.default_rng(seed)
        self.genome = random_genome(seed, **LENGTHS)
        bases = self.genome["chr1"]
        self.genome["chr1"] = bases[:20_000] + "N" * 500 + bases[20_500:]
        self.sets = {f"t{number}": random_peaks(rng, LENGTHS, 40) for number in range(5)}
        self.given: dict[str, Any] = {
            "fasta": write_fasta(folder / "g.fa", self.genome),
            "peaks": write_table(folder, self.sets, t0="DNase-seq", t1="H3K4me1"),
        }

    def bases(self, contig: str, start: int, window: int) -> str:
        padded = "N" * window + self.genome[contig] + "N" * window
        return padded[start + window : start + 2 * window]


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    return Inputs(tmp_path)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "PART_ROWS", 10)


def rows(dataset: Dataset) -> list[tuple[str, str, int, bool, list[int]]]:
    """Return split, contig, start, negative and labels of every window."""
    found = []
    for name in SPLITS:
        split = dataset.split(name)
        windows = split.windows()
        assert windows is not None
        labels = split.labels(slice(None)).tolist()
        columns = [windows[column].to_pylist() for column in ("contig", "start", "negative")]
        found += [(name, *row) for row in zip(*columns, labels, strict=True)]
    return found


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("recipe", ["basset", "deepsea"])
@pytest.mark.usefixtures("small_parts")
def test_builds(inputs: Inputs, tmp_path: Path, recipe: str) -> None:
    dataset = build(recipe, **inputs.given, out=tmp_path / "data", **SPLIT, negatives=20)
    assert content(tmp_path / "data").keys() >= {"dataset.json", "train.rows", "test.ns"}
    dataset.verify()
    assert dataset.window_size == {"basset": 600, "deepsea": 1_000}[recipe]
    assert [target.category for target in dataset.targets] == ["DNase", "histone", *["TF"] * 3]
    inside = {
        target: {name: np.zeros(length, dtype=bool) for name, length in LENGTHS.items()}
        for target in inputs.sets
    }
    for target, peaks in inputs.sets.items():
        for contig, start, end in peaks:
            inside[target][contig][start:end] = True
    negatives = 0
    for name in SPLITS:
        split = dataset.split(name)
        windows = split.windows()
        assert windows is not None
        assert split.n_rows > 0
        order = [list(LENGTHS).index(contig) for contig in windows["contig"].to_pylist()]
        starts = windows["start"].to_pylist()
        assert list(zip(order, starts, strict=True)) == sorted(zip(order, starts, strict=True))
        codes, labels = split.codes(slice(None)), split.labels(slice(None))
        for row, place in enumerate(windows.to_pylist()):
            contig, start = place["contig"], place["start"]
            assert decode(codes[row]) == inputs.bases(contig, start, dataset.window_size)
            if place["negative"]:
                negatives += 1
                window = slice(start, start + dataset.window_size)
                assert not labels[row].any()
                assert not any(inside[target][contig][window].any() for target in inputs.sets)
            elif recipe == "deepsea":
                middle = slice(start + 400, start + 600)
                half = [inside[target][contig][middle].sum() > 100 for target in inputs.sets]
                assert labels[row].tolist() == half
                assert any(inside[target][contig][middle].any() for target in ("t2", "t3", "t4"))
            else:
                assert labels[row].any()
    assert negatives == 20 == sum(dataset.manifest.counts["negatives"].values())


@pytest.mark.usefixtures("small_parts")
def test_says_where_it_comes_from(inputs: Inputs, tmp_path: Path) -> None:
    dataset = build(
        "basset", **inputs.given, out=tmp_path / "data", **SPLIT, exclude=["chr1:50,001-"]
    )
    manifest = dataset.manifest
    assert manifest.recipe == "basset"
    assert manifest.options == {
        "valid": [["chr2", 5_000, 20_000]],
        "test": [["chr1", 0, 4_000], ["chr3", 0, None]],
        "exclude": [["chr1", 50_000, None]],
        "negatives": 0,
    }
    assert len(manifest.sources) == 7
    assert manifest.sources[0]["path"] == str(inputs.given["fasta"])
    counts = manifest.counts
    assert counts["peak_windows"] == {name: manifest.splits[name].rows for name in SPLITS}
    assert counts["peaks"] + counts["peaks_excluded"] == 200
    every = [peak for peaks in inputs.sets.values() for peak in peaks]
    out = sum(name == "chr1" and start >= 50_000 for name, start, _ in every)
    assert counts["peaks_excluded"] == out > 0
    assert counts["short_contigs"] == 1
    assert counts["straddling"] > 0
    windows = dataset.split("train").windows()
    assert windows is not None
    ends = [row["end"] for row in windows.to_pylist() if row["contig"] == "chr1"]
    assert max(ends) <= 50_000


def test_every_window_is_somewhere(inputs: Inputs, tmp_path: Path) -> None:
    whole = build("deepsea", **inputs.given, out=tmp_path / "whole", keep="any")
    split = build("deepsea", **inputs.given, out=tmp_path / "split", keep="any", **SPLIT)
    assert whole.manifest.counts["straddling"] == 0
    ours = {row[1:3] for row in rows_of_train(whole)}
    kept = {row[1:3] for row in rows(split)}
    assert kept < ours
    assert len(ours) - len(kept) == split.manifest.counts["straddling"] > 0
    labels = {row[1:3]: row[4] for row in rows_of_train(whole)}
    assert all(labels[row[1:3]] == row[4] for row in rows(split))


def rows_of_train(dataset: Dataset) -> list[tuple[str, str, int, bool, list[int]]]:
    split = dataset.split("train")
    windows = split.windows()
    assert windows is not None
    columns = [windows[column].to_pylist() for column in ("contig", "start", "negative")]
    labels = split.labels(slice(None)).tolist()
    return [("train", *row) for row in zip(*columns, labels, strict=True)]


class Stop(Exception):  # noqa: N818 - not an error of the program
    pass


class StopsAfter:
    """A progress that raises after updates for a number of windows."""

    def __init__(self, updates: int) -> None:
        self.left, self.what = updates, ""
        self.begun: list[tuple[str, int, int, str]] = []

    def begin(self, what: str, total: int, done: int = 0, *, unit: str = "variants") -> None:
        self.what = what
        self.begun.append((what, total, done, unit))

    def update(self, done: int, note: str = "") -> None:
        self.left -= self.what == "windows"
        if self.what == "windows" and self.left == 0:
            raise Stop

    def end(self) -> None:
        pass


@pytest.mark.parametrize("recipe", ["basset", "deepsea"])
@pytest.mark.usefixtures("small_parts")
def test_goes_on_where_it_was_stopped(inputs: Inputs, tmp_path: Path, recipe: str) -> None:
    options = {**inputs.given, **SPLIT, "negatives": 15}
    counting = StopsAfter(0)
    whole = build(recipe, **options, out=tmp_path / "whole", progress=counting)
    for stop in (2, -counting.left):  # the last build has every part, but is not finished
        out = tmp_path / f"stopped-{stop}"
        with pytest.raises(Stop):
            build(recipe, **options, out=out, progress=StopsAfter(stop))
        with pytest.raises(OutputError, match="unfinished"):
            build(recipe, **options, out=out)
        with pytest.raises(DataError, match=r"another negatives \(15, now 16\)"):
            build(recipe, **{**options, "negatives": 16}, out=out, resume=True)
        progress = StopsAfter(-1)
        assert build(recipe, **options, out=out, resume=True, progress=progress).digest
        what, total, done, unit = progress.begun[-1]
        assert (what, total, unit) == ("windows", len(rows(whole)), "windows")
        assert done == (20 if stop == 2 else total)
        assert content(out) == content(tmp_path / "whole")


_CHILD = """
import json, sys, time
from raygenome.datasets import writer
from raygenome.datasets.build import build
writer.PART_ROWS = 10
plain = writer.DatasetWriter.write
def slow(self, *args):
    plain(self, *args)
    print("part", flush=True)
    time.sleep(0.05)
writer.DatasetWriter.write = slow
build(**json.loads(sys.argv[1]))
"""


@pytest.mark.slow
def test_goes_on_after_it_was_killed(inputs: Inputs, tmp_path: Path, small_parts: None) -> None:
    options = {**inputs.given, **SPLIT, "recipe": "deepsea", "negatives": 15}
    build(**options, out=tmp_path / "whole")
    for parts in (1, 5):
        out = tmp_path / f"killed-{parts}"
        text = json.dumps({**options, "out": out}, default=str)
        with subprocess.Popen(
            [sys.executable, "-c", _CHILD, text], stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None
            for _ in range(parts):
                assert child.stdout.readline() == "part\n"
            time.sleep(0.02 * parts)
            os.kill(child.pid, signal.SIGKILL)
        assert child.returncode == -signal.SIGKILL
        assert not (out / "dataset.json").exists()
        build(**options, out=out, resume=True)
        assert content(out) == content(tmp_path / "whole")


@pytest.mark.usefixtures("small_parts")
def test_what_is_there_already(inputs: Inputs, tmp_path: Path) -> None:
    out = tmp_path / "data"
    first = build("basset", **inputs.given, out=out)
    progress = StopsAfter(-1)
    with pytest.raises(OutputError, match="holds a finished dataset"):
        build("basset", **inputs.given, out=out, progress=progress)
    assert build("basset", **inputs.given, out=out, resume=True, progress=progress).digest
    assert progress.begun == []  # neither took long
    with pytest.raises(DataError, match=r"another (recipe|window|keep)"):
        build("deepsea", **inputs.given, out=out, resume=True)
    # If the input is wrong, the dataset to be replaced is kept.
    (tmp_path / "peaks" / "t3.narrowPeak").write_text("chr1\tx\t5\n")
    with pytest.raises(DataError, match="line 1"):
        build("basset", **inputs.given, out=out, overwrite=True)
    assert Dataset.open(out).digest == first.digest


@pytest.mark.parametrize(
    ("options", "kind", "says"),
    [
        ({"recipe": "selene"}, UsageError, "must be one of basset, deepsea"),
        ({"negatives": -1}, UsageError, "must be 0 or larger"),
        ({"resume": True, "overwrite": True}, UsageError, "contradict each other"),
        ({"keep": "any"}, UsageError, "--keep any is for the recipe deepsea"),
        ({"valid": ["chr1"], "test": ["chr1:5-"]}, UsageError, "overlaps --test"),
        ({"valid": ["chr4"]}, DataError, "'chr4' is not in the reference"),
        ({"exclude": ["chr4"]}, DataError, "--exclude chr4: neither"),
        ({"test": ["short"]}, DataError, "the split test has no window on a peak (windows: train "),
        ({"valid": ["chr1", "chr2", "chr3"]}, DataError, "leave more of the genome for training"),
        (
            {"exclude": ["chr1", "chr2", "chr3", "short"]},
            DataError,
            "leave more of the genome for training",
        ),
        ({"negatives": 10_000}, DataError, "there is room for"),
    ],
)
def test_refuses(
    inputs: Inputs, tmp_path: Path, options: dict[str, Any], kind: type[Exception], says: str
) -> None:
    with pytest.raises(kind) as raised:
        build(**{"recipe": "basset", **inputs.given, **options}, out=tmp_path / "data")
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "data").exists()


def test_a_target_without_positives(tmp_path: Path) -> None:
    genome = random_genome(1, chr1=20_000)
    sets = {"a": [("chr1", 1_000, 1_500)], "b": [("chr1", 5_000, 5_050)], "c": [("chr1", 9, 19)]}
    given = {"fasta": write_fasta(tmp_path / "g.fa", genome), "peaks": write_table(tmp_path, sets)}
    with pytest.raises(DataError) as raised:
        build("deepsea", **given, out=tmp_path / "data")
    assert str(raised.value) == (
        f"2 of 3 targets have no positive window: b, c; take them out of {given['peaks']}"
    )
    assert build("basset", **given, out=tmp_path / "data").split("train").n_rows == 3


def test_windows_that_lie_far_apart(tmp_path: Path) -> None:
    genome = random_genome(2, chr1=400_000)
    at = [100, 150_000, 151_000, 399_900]
    sets = {"a": [("chr1", start, start + 20) for start in at]}
    dataset = build(
        "basset",
        fasta=write_fasta(tmp_path / "g.fa", genome),
        peaks=write_table(tmp_path, sets),
        out=tmp_path / "data",
    )
    windows = dataset.split("train").windows()
    assert windows is not None
    starts = windows["start"].to_pylist()
    assert starts == [0, 149_710, 150_710, 399_400]
    for row, codes in enumerate(dataset.split("train").codes(slice(None))):
        assert decode(codes) == genome["chr1"][starts[row] : starts[row] + 600]


@pytest.mark.slow
def test_real_data(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "hg19"
    header, *lines = (folder / "peaks.tsv").read_text().splitlines()
    wanted = {
        "basset": [line for line in lines if "\tDNase-seq\t" in line],
        "deepsea": [line for line in lines if "\tCTCF\t" in line or "\tH3K4me3\t" in line],
    }
    test = ["chr20:9,995,000-11,095,000", "chr20:42,220,610-42,542,245"]
    for recipe, some in wanted.items():
        table = tmp_path / f"{recipe}.tsv"
        named = [line.replace("\tpeaks/", f"\t{folder}/peaks/") for line in some]
        table.write_text("\n".join([header, *named, ""]))
        dataset = build(
            recipe,
            fasta=folder / "genome" / "hg19_mini.fa.gz",
            peaks=table,
            out=tmp_path / recipe,
            test=test,
            negatives=500,
        )
        dataset.verify()
        counts = dataset.manifest.counts
        assert dataset.split("train").positives().all()
        assert dataset.split("test").n_rows > 100
        assert sum(counts["negatives"].values()) == 500
        assert counts["peaks"] > 5_000
