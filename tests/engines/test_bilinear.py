"""Bilinear algorithms, compared with numpy's correlations."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raygenome.engines.incremental.bilinear import (
    Bilinear,
    circular,
    direct,
    full,
    noise,
    valid,
    valid_size,
)


def apply_algorithm(algorithm: Bilinear, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    return algorithm.to_outputs @ ((algorithm.to_weights @ w) * (algorithm.to_inputs @ x))


def check(
    algorithm: Bilinear, expected_shape: tuple[int, int, int], slow: object, seed: int
) -> None:
    """Compare an algorithm with `slow(x, w)` on random numbers; its shape is (N, taps, M)."""
    assert (algorithm.points, algorithm.taps, algorithm.outputs) == expected_shape
    assert algorithm.to_outputs.shape == (algorithm.outputs, algorithm.products)
    rng = np.random.default_rng(seed)
    x, w = rng.normal(size=algorithm.points), rng.normal(size=algorithm.taps)
    np.testing.assert_allclose(apply_algorithm(algorithm, x, w), slow(x, w), atol=1e-8, rtol=0)  # type: ignore[operator]


def slow_circular(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    return np.array([w @ x[(m + np.arange(len(w))) % len(x)] for m in range(len(x))])


def slow_valid(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    return np.correlate(x, w, "valid")


def slow_full(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    around = np.zeros(len(w) - 1)
    return np.correlate(np.concatenate([around, x, around]), w, "valid")


SEEDS = st.integers(0, 99)


@settings(max_examples=200, deadline=None)
@given(data=st.data(), points=st.integers(1, 70), seed=SEEDS)
def test_circular(data: st.DataObject, points: int, seed: int) -> None:
    taps = data.draw(st.integers(1, points))
    check(circular(points, taps), (points, taps, points), slow_circular, seed)


@settings(max_examples=200, deadline=None)
@given(data=st.data(), points=st.integers(1, 70), seed=SEEDS)
def test_valid(data: st.DataObject, points: int, seed: int) -> None:
    taps = data.draw(st.integers(1, points))
    algorithm = valid(points, taps)
    check(algorithm, (points, taps, points - taps + 1), slow_valid, seed)
    assert valid_size(points, taps) == (algorithm.points, algorithm.products, algorithm.outputs)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(
    rows=st.integers(1, 40),
    taps=st.integers(1, 30),
    most_noise=st.sampled_from([1.0, 1.6, 5.0, 100.0]),
    seed=SEEDS,
)
def test_full(rows: int, taps: int, most_noise: float, seed: int) -> None:
    algorithm = full(rows, taps, most_noise)
    check(algorithm, (rows, taps, rows + taps - 1), slow_full, seed)
    assert algorithm.products <= rows * taps
    assert noise(algorithm) <= most_noise


@pytest.mark.parametrize("most_noise", [1.0, 1.6, 5.0, 100.0])
def test_noise_is_that_of_float32(most_noise: float) -> None:
    """Compare the measured rounding error with `noise`, in units of the definition's error."""
    rows, taps, channels = 3, 8, 480
    rng = np.random.default_rng(0)

    def error(algorithm: Bilinear) -> float:
        squares = 0.0
        for _ in range(300):
            x, w = rng.normal(size=(rows, channels)), rng.normal(size=(taps, channels))
            exact = (algorithm.to_weights @ w * (algorithm.to_inputs @ x)).sum(axis=1)
            rounded = exact * (1 + 1e-6 * rng.normal(size=exact.shape))
            squares = squares + (algorithm.to_outputs @ (rounded - exact)) ** 2
        return float(np.sqrt(np.max(squares)))

    algorithm = full(rows, taps, most_noise)
    ratio = error(algorithm) / error(full(rows, taps, 1.0))
    assert 0.5 * noise(algorithm) < ratio < 2 * noise(algorithm)


@pytest.mark.parametrize("taps", [1, 2, 8, 53])
def test_direct(taps: int) -> None:
    algorithm = direct(taps)
    check(algorithm, (taps, taps, 1), slow_valid, taps)
    assert algorithm.products == taps


def test_all_small_sizes_of_full() -> None:
    for rows in range(1, 13):
        for taps in range(1, 13):
            check(full(rows, taps, 5.0), (rows, taps, rows + taps - 1), slow_full, rows * taps)


@pytest.mark.parametrize(
    ("points", "taps", "products", "outputs"),
    [(32, 8, 47, 25), (128, 53, 191, 76), (34, 8, 50, 27), (31, 8, 46, 24), (16, 8, 23, 9)],
)
def test_products_of_valid(points: int, taps: int, products: int, outputs: int) -> None:
    algorithm = valid(points, taps)
    assert (algorithm.products, algorithm.outputs) == (products, outputs)
    assert str(algorithm) == f"{products / outputs:.1f} of {taps}"


@pytest.mark.parametrize("points", range(1, 40))
def test_products_of_circular(points: int) -> None:
    """There is one product per real frequency, and three per pair of complex ones."""
    real = 2 if points % 2 == 0 else 1
    assert circular(points, 1).products == real + 3 * (points - real) // 2


@pytest.mark.parametrize(
    ("rows", "taps", "quiet", "noisy"), [(2, 8, 12, 10), (3, 8, 13, 11), (5, 7, 14, 13)]
)
def test_products_of_full(rows: int, taps: int, quiet: int, noisy: int) -> None:
    """The sizes are those that substitutions of DeepSEA and Basset need."""
    assert full(rows, taps, 1.6).products == quiet
    assert full(rows, taps, 5.0).products == noisy


@settings(max_examples=200, deadline=None)
@given(points=st.integers(1, 60), taps=st.integers(1, 60), amount=st.floats(-9, 9), seed=SEEDS)
def test_bias_is_added_to_every_output(points: int, taps: int, amount: float, seed: int) -> None:
    for algorithm in (direct(taps), valid(max(points, taps), taps)):
        rng = np.random.default_rng(seed)
        x, w = rng.normal(size=algorithm.points), rng.normal(size=algorithm.taps)
        products = (algorithm.to_weights @ w) * (algorithm.to_inputs @ x)
        plain = algorithm.to_outputs @ products
        q, scale = algorithm.bias()
        products[q] += amount / scale
        np.testing.assert_allclose(
            algorithm.to_outputs @ products, plain + amount, atol=1e-8, rtol=0
        )


@pytest.mark.slow
@pytest.mark.parametrize("taps", [8, 53, 101])
@pytest.mark.parametrize("rows", [2, 7, 20, 60])
def test_full_of_long_filters(rows: int, taps: int) -> None:
    """Powers of real points exceed float64's range: such algorithms are left out."""
    assert noise(full(rows, taps, 5.0)) <= 5.0
