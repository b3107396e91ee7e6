"""AUROC and AUPRC, compared with scikit-learn, including ties and edge cases."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from raygenome.errors import DataError
from raygenome.evaluation.metrics import auroc_auprc, mean, median


def oracle(labels: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    if labels.all() or not labels.any():
        return float("nan"), float("nan")
    return roc_auc_score(labels, scores), average_precision_score(labels, scores)


def check(labels: np.ndarray, scores: np.ndarray) -> None:
    auroc, auprc = auroc_auprc(labels, scores)
    assert auroc.dtype == auprc.dtype == np.float64
    expected = [oracle(labels[:, t], scores[:, t]) for t in range(labels.shape[1])]
    np.testing.assert_allclose(auroc, [a for a, _ in expected], rtol=1e-12)
    np.testing.assert_allclose(auprc, [p for _, p in expected], rtol=1e-12)


@pytest.mark.parametrize("levels", [1, 2, 5, 100, None])
@pytest.mark.parametrize("rate", [0.0, 0.01, 0.5, 1.0])
def test_random_targets(levels: int | None, rate: float) -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((300, 70)) < rate).astype(np.uint8)
    scores = rng.random((300, 70), dtype=np.float32)
    if levels is not None:
        scores = np.floor(scores * levels).astype(np.float32) - np.float32(levels // 2)
    check(labels, scores)


floats = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-45, -1e-45, 3.4e38, -3.4e38]),
    st.floats(allow_nan=False, allow_infinity=False, width=32),
)


@given(st.lists(st.tuples(st.booleans(), floats), min_size=1, max_size=30))
def test_any_scores(rows: list[tuple[bool, float]]) -> None:
    labels = np.array([[label] for label, _ in rows], dtype=np.uint8)
    scores = np.array([[score] for _, score in rows], dtype=np.float32)
    # Differences overflow in scikit-learn; both metrics depend on ranks only.
    ranks = np.unique(scores[:, 0], return_inverse=True)[1].astype(np.float32)[:, None]
    check(labels, ranks)
    np.testing.assert_array_equal(auroc_auprc(labels, scores), auroc_auprc(labels, ranks))


def test_corners() -> None:
    labels = np.array([[1, 0, 1, 1], [0, 0, 1, 0], [0, 0, 1, 0]], dtype=np.uint8)
    scores = np.array([[3, 3, 3, 1], [2, 2, 2, 1], [1, 1, 1, 1]], dtype=np.float32)
    auroc, auprc = auroc_auprc(labels, scores)
    np.testing.assert_array_equal(auroc, [1, np.nan, np.nan, 0.5])
    np.testing.assert_array_equal(auprc, [1, np.nan, np.nan, 1 / 3])
    nothing = np.zeros((0, 3))
    for values in auroc_auprc(nothing.astype(np.uint8), nothing.astype(np.float32)):
        np.testing.assert_array_equal(values, [np.nan] * 3)


def test_rows_that_may_be_negatives() -> None:
    rng = np.random.default_rng(1)
    labels = (rng.random((200, 40)) < 0.2).astype(np.uint8)
    scores = rng.random((200, 40), dtype=np.float32).round(1)
    negatives = rng.random(200) < 0.3
    auroc, auprc = auroc_auprc(labels, scores, negatives=negatives)
    for t in range(40):
        rows = labels[:, t].astype(bool) | negatives
        expected = oracle(labels[rows, t], scores[rows, t])
        np.testing.assert_allclose((auroc[t], auprc[t]), expected, rtol=1e-12)
    for values in auroc_auprc(labels, scores, negatives=np.zeros(200, dtype=bool)):
        assert np.isnan(values).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_is_named(bad: float) -> None:
    scores = np.zeros((4, 40), dtype=np.float32)
    scores[2, 35] = bad
    with pytest.raises(DataError, match=f"row 2 for target 35 is {bad}"):
        auroc_auprc(np.zeros((4, 40), dtype=np.uint8), scores)


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="labels"):
        auroc_auprc(np.zeros((4, 2), dtype=np.uint8), np.zeros((4, 1), dtype=np.float32))


def test_mean_and_median_skip_nan() -> None:
    values = np.array([np.nan, 1.0, 2.0, 6.0])
    assert (mean(values), median(values)) == (3.0, 2.0)
    assert np.isnan([mean(values[:1]), median(values[:0])]).all()


@pytest.mark.slow
def test_published_size_takes_seconds() -> None:
    """A tenth of DeepSEA's targets on all test rows; the limit is generous for noisy machines."""
    rng = np.random.default_rng(2)
    labels = (rng.random((227_512, 92), dtype=np.float32) < 0.02).astype(np.uint8)
    scores = rng.random((227_512, 92), dtype=np.float32)
    began = time.perf_counter()
    auroc_auprc(labels, scores)
    assert time.perf_counter() - began < 20
