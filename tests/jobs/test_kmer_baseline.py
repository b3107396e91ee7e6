"""The baseline counts correctly, and finds targets that depend on GC or on a planted k-mer."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from raygenome.datasets.packed import Dataset, pack_labels
from raygenome.datasets.writer import DatasetWriter, Windows
from raygenome.errors import DataError, UsageError
from raygenome.genome.sequence import decode, encode, reverse_complement
from raygenome.genome.targets import Target

WINDOW = 60
TARGETS = [Target(i, name, "", "", "", "x") for i, name in enumerate(["gc", "motif", "none"])]


@pytest.fixture
def job():
    from experiments import kmer_baseline

    return kmer_baseline


def windows(rng: np.random.Generator, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return windows with high GC, with a motif on either strand, or with neither."""
    kind = rng.integers(0, 3, rows)
    p = np.where((kind == 0)[:, None], [0.1, 0.4, 0.4, 0.1], [0.25] * 4)
    codes = np.array([rng.choice(4, WINDOW, p=row) for row in p], dtype=np.uint8)
    for row in np.flatnonzero(kind == 1):
        motif = encode("TGACTCA" if rng.random() < 0.5 else "TGAGTCA")
        start = rng.integers(0, WINDOW - 7)
        codes[row, start : start + 7] = motif
    labels = np.stack([kind == 0, kind == 1, np.zeros(rows, dtype=bool)], axis=1)
    return codes, labels.astype(np.uint8)


def write(path: Path, splits: dict[str, int]) -> Dataset:
    rng = np.random.default_rng(0)
    with DatasetWriter(path, window_size=WINDOW, targets=TARGETS, identity={}) as writer:
        for number, (name, rows) in enumerate(splits.items()):
            codes, labels = windows(rng, rows)
            negative = labels.sum(axis=1) == 0
            start = np.arange(rows) * WINDOW
            where = Windows([f"chr{number}"] * rows, start, negative)
            writer.write(name, 0, codes, pack_labels(labels), where)
        return writer.finish(recipe="test", sources=[], options={}, counts={})


def test_counts_are_those_of_both_strands(job) -> None:
    rng = np.random.default_rng(1)
    codes = rng.integers(0, 5, (20, 30)).astype(np.uint8)
    for k in (1, 2, 3, 4):
        column = job.canonical_columns(k)
        assert column.max() + 1 == (4**k + (4 ** (k // 2) if k % 2 == 0 else 0)) // 2
        expected = np.zeros((20, column.max() + 1))
        for row in range(20):
            for start in range(30 - k + 1):
                piece = codes[row, start : start + k]
                if 4 not in piece:
                    number = int("".join(map(str, piece)), 4)
                    other = int("".join(map(str, reverse_complement(piece))), 4)
                    assert column[number] == column[other], decode(piece)
                    expected[row, column[number]] += 1
        np.testing.assert_array_equal(job.kmer_counts(codes, k), expected)
        np.testing.assert_array_equal(job.kmer_counts(reverse_complement(codes), k), expected)


def test_gc_content_is_of_known_bases(job) -> None:
    codes = np.stack([encode("GCGCNN"), encode("ATATNN"), encode("NNNNNN"), encode("ACGTTT")])
    np.testing.assert_allclose(job.gc_content(codes), [1, 0, 0, 1 / 3], rtol=1e-6)


def test_features_are_standardised_as_train_is(job, tmp_path: Path) -> None:
    data = write(tmp_path / "d", {"train": 300, "test": 50})
    features = job.Features(data.split("train"), 2)
    assert features.train.shape == (300, 2 + 10)
    np.testing.assert_allclose(features.train.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(features.train.std(axis=0), 1, atol=1e-4)
    np.testing.assert_array_equal(features.of(data.split("train")), features.train)


def test_each_finds_what_it_can(job, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "d", {"train": 600, "valid": 150, "test": 300})
    out = tmp_path / "rows.json"
    among = ["all", "peaks", "negatives"]
    job.main([str(tmp_path / "d"), "--k", "5", "--among", *among, "--out", str(out)])
    rows = {(row["among"], row["name"]): row for row in json.loads(out.read_text())}
    assert len(rows) == 9
    for kind in among:
        gc, motif, none = (rows[kind, target.name] for target in TARGETS)
        assert gc["gc_auroc"] > 0.95
        assert gc["kmer_auroc"] > 0.95
        assert motif["kmer_auroc"] > 0.9
        assert none["positives"] == 0
        assert none["kmer_auroc"] is none["gc_auprc"] is None
    assert 0.4 < rows["negatives", "motif"]["gc_auroc"] < 0.65
    assert rows["peaks", "motif"]["gc_auroc"] > 0.95  # the other peaks are of high GC: turned
    printed = capsys.readouterr().out
    assert [line for line in printed.splitlines() if line.startswith("negatives among")] == [
        f"negatives among {kind}" for kind in among
    ]
    assert printed.count("\nmean") == 3


def test_what_is_missing_is_said(job, tmp_path: Path) -> None:
    data = write(tmp_path / "d", {"train": 60})
    with pytest.raises(DataError, match=r"'test' of .* has no rows"):
        job.baseline(data, split="test")
    with pytest.raises(UsageError, match="--among is 'other'"):
        job.baseline(data, split="train", among=["other"])
    rows = job.baseline(data, split="train", k=3)  # no valid split: the default penalty
    assert rows[0]["kmer_auroc"] > 0.9


@pytest.fixture
def experiment(job):
    from experiments import train_hg19

    return train_hg19


def test_selection_of_peak_sets(experiment, tmp_path: Path) -> None:
    """Selected sets have enough peaks in train and test; peaks are counted by their middles."""
    lines = ["target\tpath\tcell\tassay\tsource_repo"]
    for name, assay, train, test, source in [
        ("dnase", "DNase-seq", 1, 1, "x/y"),
        ("enough", "CTCF", 100, 10, "x/y"),
        ("few", "CTCF", 99, 30, "x/y"),
        ("untested", "CTCF", 300, 9, "x/y"),
        ("domains", "H3K27me3", 300, 30, "x/y"),
        ("partial", "CTCF", 300, 30, "uci-cbcl/FactorNet"),
    ]:
        lines.append(f"{name}\t{name}.bed.gz\tc\t{assay}\t{source}")
        with gzip.open(tmp_path / f"{name}.bed.gz", "wt") as file:
            file.write("chr1\t100\t200\n" * train + "chr20\t9994951\t9995051\n" * test)
            file.write("chr22\t21000000\t21000100\n" * 50)  # valid: counts for neither
    (tmp_path / "peaks.tsv").write_text("\n".join(lines) + "\n")
    names = [row["target"] for row in experiment.select(tmp_path, "wide")]
    assert names == ["enough"]
    rows = experiment.select(tmp_path, "dnase")
    assert [row["target"] for row in rows] == ["dnase"]
    table = experiment.write_table(rows, tmp_path / "out.tsv").read_text().splitlines()
    assert table[0].split("\t") == ["target", "path", "cell", "assay"]
    assert table[1].split("\t")[1] == str(tmp_path / "dnase.bed.gz")
    assert experiment.region(*experiment.TEST[0]) == "chr20:9,995,001-11,095,000"


@pytest.mark.slow
def test_experiment_on_real_data(
    experiment, real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net = {"channels": [8, 8], "kernels": [11, 5], "pools": [4, 4], "hidden": [8]}
    recipe = {"architecture": "basset", "net": net, "epochs": 1, "batch_size": 64}
    recipe |= {"epoch_samples": 640, "optimizer": {"lr": 0.002}}
    (tmp_path / "tiny.yaml").write_text(json.dumps(recipe))
    arguments = ["--data-home", str(real_data / "hg19"), "--out", str(tmp_path / "out")]
    arguments += ["--config", str(tmp_path / "tiny.yaml"), "--device", "cpu"]
    for _ in range(2):  # the second run continues the first
        experiment.main([*arguments, "--negatives", "2000", "--k", "3"])
        rows = json.loads((tmp_path / "out" / "results.json").read_text())
        assert len(rows) == 3 * 4
        assert all(0 < row["net_auroc"] < 1 and row["kmer_auroc"] > 0.5 for row in rows)
        assert "net_auroc" in capsys.readouterr().out
