"""Evaluation of a model directory on a packed dataset, compared with scikit-learn."""

import json
from pathlib import Path

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score
from support.builders import STUB, load_model, write_model
from support.labelled_data import ROWS, TARGETS, labelled, write_dataset

from raygenome.datasets.packed import Dataset
from raygenome.errors import DataError, NoInput, OutputError, UsageError
from raygenome.evaluation.evaluate import Evaluation, evaluate
from raygenome.evaluation.predict import predict
from raygenome.genome.targets import Target
from raygenome.registry.registry import init_model

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    init_model("stub", "basset", 0, config=STUB, targets=TARGETS, directory=directory)
    return directory


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "data")


@pytest.mark.parametrize("among", ["all", "peaks", "negatives", "background"])
def test_scores_are_scikit_learns(model: Path, data: Path, among: str) -> None:
    _, labels, negative = labelled()
    net, spec = load_model(model)
    scores = predict(net, spec, Dataset.open(data).split("test"))
    table = evaluate(model=model, data=data, among=among).table
    assert table.column_names == [
        *("target", "name", "category", "positives", "negatives", "auroc", "auprc"),
    ]
    for t, row in enumerate(table.to_pylist()):
        used = {
            "all": np.ones(ROWS, dtype=bool),
            "peaks": ~negative,
            "negatives": negative | (labels[:, t] == 1),
            "background": negative | (labels[:, t] == 1),
        }[among]
        label, score = labels[used, t], scores[used, t]
        assert row["positives"] == label.sum()
        assert row["negatives"] == (label == 0).sum()
        if t == 2:
            assert row["auroc"] is None
            assert row["auprc"] is None
        else:
            np.testing.assert_allclose(row["auroc"], roc_auc_score(label, score))
            np.testing.assert_allclose(row["auprc"], average_precision_score(label, score))


def test_the_file(tmp_path: Path, model: Path, data: Path) -> None:
    out = tmp_path / "new" / "scores.parquet"
    found = evaluate(model=model, data=data, out=out, among="peaks", strands="forward")
    table = pq.read_table(out)
    assert table.replace_schema_metadata() == found.table
    about = json.loads(table.schema.metadata[b"raygenome"])
    assert about == found.about
    assert about["model"]["weights_sha256"] == load_model(model)[1].weights_sha256
    assert about["dataset"]["digest"] == Dataset.open(data).digest
    assert (about["split"], about["rows"]) == ("test", ROWS)
    assert (about["among"], about["strands"]) == ("peaks", "forward")
    assert [path.name for path in out.parent.iterdir()] == ["scores.parquet"]
    before = out.read_bytes()
    evaluate(model=model, data=data, out=out, among="peaks", strands="forward", overwrite=True)
    assert out.read_bytes() == before
    asked = f"SELECT avg(auroc) FROM '{out}' WHERE category = 'TF'"
    tf = next(row for row in found.summary() if row["category"] == "TF")
    with duckdb.connect() as connection:
        answer = connection.execute(asked).fetchone()
    assert answer == pytest.approx((tf["auroc_mean"],))


def test_summary(model: Path, data: Path) -> None:
    found = evaluate(model=model, data=data)
    rows = {row["category"]: row for row in found.summary()}
    assert list(rows) == ["DNase", "TF", "", "all"]
    auroc = [row["auroc"] for row in found.table.to_pylist()]
    assert (rows["TF"]["targets"], rows["TF"]["scored"]) == (3, 2)
    assert rows["TF"]["auroc_mean"] == pytest.approx((auroc[1] + auroc[3]) / 2)
    assert (rows["all"]["targets"], rows["all"]["scored"]) == (5, 4)
    defined = [value for value in auroc if value is not None]
    assert rows["all"]["auroc_median"] == pytest.approx(np.median(defined))
    nothing = Evaluation(found.table.slice(2, 1), {}).summary()
    assert nothing[0] == {
        **{"category": "TF", "targets": 1, "scored": 0},
        **{"auroc_mean": None, "auroc_median": None, "auprc_mean": None, "auprc_median": None},
    }


def test_existing_output(tmp_path: Path, model: Path, data: Path) -> None:
    out = tmp_path / "scores.parquet"
    out.write_text("mine")
    with pytest.raises(OutputError, match="exists; add --overwrite"):
        evaluate(model=model, data=data, out=out)
    assert out.read_text() == "mine"
    evaluate(model=model, data=data, out=out, overwrite=True)
    assert pq.read_table(out).num_rows == len(TARGETS)
    with pytest.raises(OutputError, match="is a directory; --out needs a file"):
        evaluate(model=model, data=data, out=tmp_path, overwrite=True)
    with pytest.raises(OutputError, match="cannot make"):
        evaluate(model=model, data=data, out=out / "below.parquet")


def test_other_windows(tmp_path: Path, data: Path) -> None:
    other = write_model(tmp_path / "other", **{**STUB, "window": 43})
    with pytest.raises(DataError, match=r"windows of 43 bases; those of .* have 40"):
        evaluate(model=other, data=data)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (TARGETS[:3], "has 5 targets and .* has 3; .* target 3: 'rare' in the model, none in the"),
        (
            [*TARGETS[:1], TARGETS[1]._replace(name="B2"), *TARGETS[2:]],
            "has 5 targets and .* has 5; .* target 1: 'b' in the model, 'B2' in the dataset",
        ),
    ],
)
def test_other_targets(tmp_path: Path, model: Path, targets: list[Target], message: str) -> None:
    data = write_dataset(tmp_path / "data", targets=targets)
    with pytest.raises(DataError, match=message):
        evaluate(model=model, data=data)


def test_what_cannot_be(tmp_path: Path, model: Path, data: Path) -> None:
    with pytest.raises(DataError, match=r"the split 'valid' of .* has no rows"):
        evaluate(model=model, data=data, split="valid")
    with pytest.raises(UsageError, match="there is no split 'tset'"):
        evaluate(model=model, data=data, split="tset")
    with pytest.raises(UsageError, match="--among is 'some'"):
        evaluate(model=model, data=data, among="some")
    with pytest.raises(UsageError, match="--batch-size is 0"):
        evaluate(model=model, data=data, batch_size=0)
    with pytest.raises(NoInput, match="no model is called 'none'"):
        evaluate(model="none", data=data)
    with pytest.raises(NoInput):
        evaluate(model=model, data=tmp_path / "nothing", out=tmp_path / "made" / "x.parquet")
    assert not (tmp_path / "made").exists()


def test_negatives_must_be_known(tmp_path: Path, model: Path) -> None:
    unknown = write_dataset(tmp_path / "unknown", windows=False)
    for among in ("peaks", "negatives"):
        with pytest.raises(UsageError, match="records which windows lie outside every peak"):
            evaluate(model=model, data=unknown, among=among)
    none = write_dataset(tmp_path / "none", negatives=False)
    with pytest.raises(UsageError, match="'test' has no windows outside every peak"):
        evaluate(model=model, data=none, among="negatives")
    peaks = evaluate(model=model, data=none, among="peaks").table
    assert peaks == evaluate(model=model, data=none).table
