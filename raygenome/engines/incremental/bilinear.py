"""Convolution with fewer multiplications: y = A [(G w) o (B x)].

A correlation of `taps` numbers, y[m] = sum over k of w[k] x[m + k], costs `taps` products for each
output when it is computed by the definition. For sequences taken modulo a length N, the discrete
Fourier transform needs one product for each of N frequencies. All three transforms are *linear*,
with constant matrices. So the correlation is three matrices and one elementwise product, for
anything that can be added and multiplied. Here the elementwise products are rows times matrices:
x[j] is a row of Cin channels at lattice point j, w[k] is a (Cout, Cin) matrix, and each of the Q
products is a matrix multiplication. The matrices A, G and B are small. The number of large products
falls from `taps` per output to Q / M:

    direct  N = k,  Q = k   M = 1             k products per output
    DFT     N = 32, Q = 47, M = 25 (k = 8)    1.88 products per output
    DFT     N = 128, Q = 191, M = 76 (k = 53) 2.51 products per output

`valid` keeps the M = N - taps + 1 points of a circular correlation that did not wrap around. `full`
gives all outputs to which a few rows among zeros contribute, with even fewer products. The DFT of
real rows has one real product at frequency 0, one at N / 2 if N is even, and complex products
between, each of three real products (Gauss). If a + ib is the spectrum of x, and c + id the
conjugated spectrum of w, then

    k1 = c (a + b)    k2 = a (d - c)    k3 = b (c + d)    real part k1 - k3, imaginary part k1 + k2.

Float32 errors are about twice those of one long matrix product, and for wide layers smaller than
those of torch's own convolution. They scale with the largest row of a block, not with the output.
"""

import contextlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


@dataclass(frozen=True, eq=False)
class Bilinear:
    """The constant matrices of one algorithm, float64.

    Attributes:
        to_outputs: A, (M, Q).
        to_weights: G, (Q, taps).
        to_inputs: B, (Q, N).
    """

    to_outputs: np.ndarray
    to_weights: np.ndarray
    to_inputs: np.ndarray

    def __str__(self) -> str:
        """Return the number of products per output, of this algorithm and of the definition."""
        return f"{self.products / self.outputs:.1f} of {self.taps}"

    @property
    def points(self) -> int:
        """N, the input rows of a block."""
        return self.to_inputs.shape[1]

    @property
    def products(self) -> int:
        """Q, the matrix products of a block."""
        return self.to_weights.shape[0]

    @property
    def taps(self) -> int:
        """Taps of the filter."""
        return self.to_weights.shape[1]

    @property
    def outputs(self) -> int:
        """M, the output rows of a block."""
        return self.to_outputs.shape[0]

    def bias(self) -> tuple[int, float]:
        """Return (q, scale) such that adding b / scale to product q adds b to every output."""
        constant = np.flatnonzero((self.to_outputs == self.to_outputs[0]).all(axis=0))
        return int(constant[0]), float(self.to_outputs[0, constant[0]])


class Size(NamedTuple):
    """The sizes of an algorithm, without its matrices; see `Bilinear`."""

    points: int
    products: int
    outputs: int


def valid_size(points: int, taps: int) -> Size:
    """Return the size of `valid(points, taps)`."""
    return Size(points, 1 + (points % 2 == 0) + 3 * ((points - 1) // 2), points - taps + 1)


def direct(taps: int) -> Bilinear:
    """Return the definition as an algorithm: one output per block, one product per tap."""
    eye = np.eye(taps)
    return Bilinear(np.ones((1, taps)), eye, eye)


def circular(points: int, taps: int) -> Bilinear:
    """Return all `points` outputs of y[m] = sum over k of w[k] x[(m + k) mod points], by DFT."""
    angles = 2 * np.pi * np.outer(np.arange((points + 1) // 2), np.arange(points)) / points
    inputs, weights, outputs = [], [], []

    def real_frequency(row: np.ndarray) -> None:
        inputs.append(row)
        weights.append(row[:taps])
        outputs.append(row / points)

    real_frequency(np.ones(points))
    if points % 2 == 0:
        real_frequency(np.cos(np.pi * np.arange(points)).round())
    for c, s in zip(np.cos(angles[1:]), np.sin(angles[1:]), strict=True):
        # a = x cos, b = - x sin; conjugated, c = w cos, d = w sin. With re = k1 - k3 and
        # im = k1 + k2, frequency f adds 2/N (re cos - im sin) to y.
        inputs += [c - s, c, -s]
        weights += [c[:taps], (s - c)[:taps], (c + s)[:taps]]
        outputs += [2 * (c - s) / points, -2 * s / points, -2 * c / points]
    return Bilinear(np.stack(outputs, axis=1), np.stack(weights), np.stack(inputs))


def valid(points: int, taps: int) -> Bilinear:
    """Return the algorithm for the points - taps + 1 outputs that have all their taps."""
    algorithm = circular(points, taps)
    return Bilinear(
        algorithm.to_outputs[: points - taps + 1], algorithm.to_weights, algorithm.to_inputs
    )


#: Real points, best first: those near 1 in size add the least noise.
_REAL_POINTS = (1.0, -1.0, 2.0, -2.0, 0.5, -0.5)


def full(rows: int, taps: int, most_noise: float) -> Bilinear:
    """Return the algorithm for all rows + taps - 1 outputs to which `rows` rows contribute.

    All other rows are zeros. Output t is sum over k of w[k] x[t + k - (taps - 1)]. This is
    coefficient t of the product of the polynomials sum x[i] z^i and sum w[k] z^(taps - 1 - k). A
    product of polynomials is determined by its values at as many points as it has coefficients
    (Toom and Cook). A real point, 0 and infinity take one product each, a pair of complex points
    three. With points on the unit circle only, this is the DFT. Real points are cheaper, but
    noisier far from the circle.

    Args:
        rows: number of input rows.
        taps: number of taps of the filter.
        most_noise: at least 1. Among the algorithms with at most this `noise`, the one with the
            fewest products is returned.
    """
    length = rows + taps - 1
    algorithms = [_written(rows, taps)]
    for ends in range(min(3, length)):
        for real in range(1, len(_REAL_POINTS) + 1):
            pairs, odd = divmod(length - ends - real, 2)
            if pairs < 0 or odd:
                continue
            with contextlib.suppress(np.linalg.LinAlgError):  # powers of 2 beyond float64
                algorithms.append(_evaluated(rows, taps, ends, _REAL_POINTS[:real], pairs))
    algorithms.sort(key=lambda algorithm: algorithm.products)
    return next(algorithm for algorithm in algorithms if noise(algorithm) <= most_noise)


def noise(algorithm: Bilinear) -> float:
    """Return how much a full algorithm magnifies the rounding errors of its products, at worst.

    The unit is the longest sum of the definition, for inputs and weights of random sign: the
    definition has 1, a DFT about 1.4, and float32 errors are proportional. The result is infinite
    if the matrices, solved for in float64, are not accurate.
    """
    made = np.einsum(
        "tq,qk,qi->tki",
        algorithm.to_outputs,
        algorithm.to_weights,
        algorithm.to_inputs,
        optimize=True,
    )
    t, k, i = np.indices(made.shape)
    if not abs(made - (i - k + algorithm.taps - 1 == t)).max() < 1e-10:
        return np.inf
    size = (algorithm.to_weights**2).sum(axis=1) * (algorithm.to_inputs**2).sum(axis=1)
    longest = min(algorithm.points, algorithm.taps)
    return float(np.sqrt((algorithm.to_outputs**2 @ size).max() / longest))


def _written(rows: int, taps: int) -> Bilinear:
    """Return the full algorithm with one product per row and tap."""
    row, tap = (index.ravel() for index in np.indices((rows, taps)))
    outputs = np.arange(rows + taps - 1)[:, None] == row - tap + taps - 1
    return Bilinear(outputs.astype(float), np.eye(taps)[tap], np.eye(rows)[row])


def _evaluated(rows: int, taps: int, ends: int, real: tuple[float, ...], pairs: int) -> Bilinear:
    """Return a full algorithm from values at 0 (ends 1), infinity (ends 2), reals and pairs."""
    length = rows + taps - 1
    powers = np.arange(rows), taps - 1 - np.arange(taps), np.arange(length)
    last = rows - 1, taps - 1, length - 1
    # Inputs, weights and outputs have one row per real value; outputs have two rows per pair.
    values: tuple[list[np.ndarray], ...] = ([], [], [])
    for value, power, top in zip(values, powers, last, strict=True):
        value += [(power == end).astype(float) for end in (0, top)[:ends]]
        value += [point**power for point in real]
    combine = [np.eye(ends + len(real))]
    # Evenly spaced on the circle, with 1 and, if it is among the points, -1.
    step = np.pi / (pairs + 1) if -1.0 in real else 2 * np.pi / (2 * pairs + 1)
    for angle in step * np.arange(1, pairs + 1):
        a, c, y = (np.cos(angle * power) for power in powers)
        b, d, z = (np.sin(angle * power) for power in powers)
        values[0].extend([a + b, a, b])
        values[1].extend([c, d - c, c + d])
        values[2].extend([y, z])
        combine.append(np.array([[1.0, 0.0, -1.0], [1.0, 1.0, 0.0]]))  # k1 - k3, k1 + k2
    to_values = _block_diagonal(combine)
    outputs = np.linalg.solve(np.stack(values[2]), to_values)
    return Bilinear(outputs, np.stack(values[1]), np.stack(values[0]))


def _block_diagonal(blocks: list[np.ndarray]) -> np.ndarray:
    out = np.zeros(tuple(np.sum([block.shape for block in blocks], axis=0)))
    row = column = 0
    for block in blocks:
        out[row : row + block.shape[0], column : column + block.shape[1]] = block
        row, column = row + block.shape[0], column + block.shape[1]
    return out
