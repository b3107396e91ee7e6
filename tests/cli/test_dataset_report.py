"""`describe` and `render` of a dataset, against counts by hand."""

import json
from pathlib import Path

import numpy as np
import pytest

from raygenome.cli.dataset_report import render
from raygenome.datasets.packed import Dataset, pack_labels
from raygenome.datasets.show import describe
from raygenome.datasets.writer import DatasetWriter, Windows
from raygenome.genome.targets import Target

WINDOW = 20
TARGETS = [
    Target(0, "K562_CTCF", "K562", "CTCF", "", "TF"),
    Target(1, "K562_DNase", "K562", "DNase", "", "DNase"),
    Target(2, "HepG2_CTCF", "HepG2", "CTCF", "", "TF"),
    Target(3, "plain", "", "", "", ""),
]
TEST = [["chr2", 0, None], ["chr3", 100, None], ["chr4", 5_000, 20_000]]
#: The rows of a split: contig, start, negative.
PLACES = {
    "train": [("chr1", 100 * i, i > 5) for i in range(8)],
    "test": [("chr2", 30 * i, False) for i in range(3)],
}


def make(path: Path, *, sites: tuple[str, ...] = ("train", "test")) -> tuple[Dataset, dict]:
    """Return a dataset, and its labels by split."""
    rng = np.random.default_rng(0)
    labels = {name: rng.integers(0, 2, (len(rows), 4)) for name, rows in PLACES.items()}
    with DatasetWriter(path, window_size=WINDOW, targets=TARGETS, identity={}) as to:
        for name, rows in PLACES.items():
            codes = rng.integers(0, 4, (len(rows), WINDOW), dtype=np.uint8)
            codes[:2, [3, 4, 9]] = 4
            contig, start, negative = zip(*rows, strict=True)
            at = Windows(contig, np.array(start), np.array(negative))
            packed = pack_labels(labels[name].astype(np.uint8))
            to.write(name, 0, codes, packed, at if name in sites else None)
        made = to.finish(
            recipe="basset",
            sources=[{"path": f"peaks-{i}.bed", "sha256": "0" * 64} for i in range(9)],
            options={"negatives": 2, "valid": [], "seed": None, "test": TEST},
            counts={"sites": {"merged": 12_345}, "whole": True},
        )
    return made, labels


def test_describe(tmp_path):
    made, labels = make(tmp_path / "d")
    facts = describe(made)
    assert json.loads(json.dumps(facts)) == facts
    assert (facts["path"], facts["recipe"], facts["window"]) == (str(tmp_path / "d"), "basset", 20)
    assert facts["digest"] == made.digest
    assert len(facts["sources"]) == 9
    assert facts["splits"] == {
        "train": {"rows": 8, "negatives": 2, "with_n": 2, "coordinates": True},
        "valid": {"rows": 0, "negatives": 0, "with_n": 0, "coordinates": False},
        "test": {"rows": 3, "negatives": 0, "with_n": 2, "coordinates": True},
    }
    assert facts["leakage"] == {"train in test": 0, "test in train": 0}
    assert [t["name"] for t in facts["targets"]] == [t.name for t in TARGETS]
    for number, target in enumerate(facts["targets"]):
        assert target["positives"] == {
            "train": labels["train"][:, number].sum(),
            "valid": 0,
            "test": labels["test"][:, number].sum(),
        }


def lines(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_a_contig_that_only_peaks_name_is_left_out_by_its_name(tmp_path):
    made, _ = make(tmp_path / "d")
    facts = describe(made)
    facts["options"]["exclude"] = [["chr9", 10, 20], ["chrM"]]
    assert ["options", "exclude", "chr9:11-20,", "chrM"] in [
        ["options", *line] for line in lines(render(facts)) if "exclude" in line
    ]


def test_render(tmp_path):
    made, labels = make(tmp_path / "d")
    text = render(describe(made))
    assert "recipe     basset, 4 targets, windows of 20 bp" in text
    assert made.digest in text
    assert "peaks-5.bed\n           and 3 more\n" in text
    assert "options    negatives 2\n           valid none\n           seed none\n" in text
    assert "           test chr2, chr3:101-, chr4:5,001-20,000\n" in text
    assert "counts     sites merged 12,345\n           whole yes\n" in text
    assert ["train", "8", "2", "2", "known"] in lines(text)
    assert ["test", "3", "0", "2", "known"] in lines(text)
    assert not any(line[:1] == ["valid"] and len(line) == 5 for line in lines(text))
    assert "leakage    no window of test and train overlaps" in text
    tf = labels["train"][:, [0, 2]].sum(axis=0), labels["test"][:, [0, 2]].sum(axis=0)
    spread = [f"{min(s)} / {np.median(s):g} / {max(s)}".split() for s in tf]
    assert ["TF", "2", *spread[0], *spread[1]] in lines(text)
    fewest = lines(text)[-4:]
    least = [min(int(row[-1]), int(row[-2])) for row in fewest]
    assert least == sorted(least)
    assert ["plain", "none"] in [row[:2] for row in fewest]
    assert all(line == line.rstrip() for line in text.splitlines())


@pytest.mark.parametrize("known", [(), ("test",)])
def test_coordinates_that_are_not_known(tmp_path, known):
    made, _ = make(tmp_path / "d", sites=known)
    facts = describe(made)
    assert facts["leakage"] == {"train in test": None, "test in train": None}
    text = render(facts)
    assert "leakage    not known between test and train: coordinates are missing" in text
    assert ["train", "8", "0", "2", "not", "known"] in lines(text)


def test_leakage_is_reported(tmp_path):
    """Datasets built here have no leakage; datasets from other sources may."""
    facts = describe(make(tmp_path / "d")[0])
    facts["leakage"] = {"train in test": 1_200, "test in train": 0, "valid in test": None}
    text = render(facts)
    assert "leakage    1,200 windows of train in test; not known between test and valid" in text
    facts["leakage"] = {}
    assert "leakage    none: there is one split" in render(facts)
