"""Convolution with fewer multiplications: y = A [(G w) o (B x)].

A correlation of `taps` numbers, y[m] = sum over k of w[k] x[m + k], costs `taps` products for each
output when it is done as written. Between polynomials, or between sequences taken modulo a length
N, the discrete Fourier transform turns it into one product for each of N frequencies; and since
all three transforms are *linear* with constant matrices, a correlation of whatever can be added and
multiplied is three matrices and one elementwise product. Here what is multiplied elementwise are
not numbers but rows by matrices: x[j] is a row of Cin channels at lattice point j, w[k] a (Cout,
Cin) matrix, and each of the Q products is a matrix multiplication. The matrices A, G and B are
small, and the number of the large products falls from `taps` an output to Q / M:

    direct  N = k,  Q = k   M = 1             k products an output
    DFT     N = 32, Q = 47, M = 25 (k = 8)    1.88 products an output
    DFT     N = 128, Q = 191, M = 76 (k = 53) 2.51 products an output

Of N points of a circular correlation, the M = N - taps + 1 that did not wrap around are kept
(`valid`); a few rows among zeros have all that they reach kept (`full`). The DFT of real rows has
one real product at frequency 0, one at N / 2 if N is even, and complex ones between, each in three
real products (Gauss): with a + ib the spectrum of x and c + id that of w, conjugated,

    k1 = c (a + b)    k2 = a (d - c)    k3 = b (c + d)    real part k1 - k3, imaginary part k1 + k2.

Sums are shorter than those of the direct form, so float32 errors are smaller, not larger.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


@dataclass(frozen=True, eq=False)
class Bilinear:
    """The constant matrices of one form, float64.

    Attributes:
        to_outputs: A, (M, Q).
        to_weights: G, (Q, taps).
        to_inputs: B, (Q, N).
    """

    to_outputs: np.ndarray
    to_weights: np.ndarray
    to_inputs: np.ndarray

    def __str__(self) -> str:
        """Return N, Q and M in words."""
        return f"{self.points} points in {self.products} products for {self.outputs} outputs"

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
        """Return (q, scale): product q plus b / scale adds b to every output, whatever b is."""
        constant = np.flatnonzero((self.to_outputs == self.to_outputs[0]).all(axis=0))
        return int(constant[0]), float(self.to_outputs[0, constant[0]])


class Size(NamedTuple):
    """What a form takes and gives, without its matrices; see `Bilinear`."""

    points: int
    products: int
    outputs: int


def valid_size(points: int, taps: int) -> Size:
    """Return the size of `valid(points, taps)`."""
    return Size(points, 1 + (points % 2 == 0) + 3 * ((points - 1) // 2), points - taps + 1)


def direct(taps: int) -> Bilinear:
    """Return the form that is the definition: one output a block, one product a tap."""
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
    """Return the outputs of `points` rows that have all their taps: points - taps + 1."""
    form = circular(points, taps)
    return Bilinear(form.to_outputs[: points - taps + 1], form.to_weights, form.to_inputs)


def full(rows: int, taps: int) -> Bilinear:
    """Return all outputs that any of `rows` rows reaches, zeros around them: rows + taps - 1.

    Output t is sum over k of w[k] x[t + k - (taps - 1)]. Up to two outputs may wrap around onto
    others: the first is w[taps - 1] x[0] and the last w[0] x[rows - 1], so that two products
    tell apart what has been added up, where those of two more frequencies would be three.
    """
    least = max(rows, taps, 2)
    wraps = [w for w in range(3) if rows + taps - 1 - w >= least]
    forms = [_full_written(rows, taps), *(_full_wrapped(rows, taps, w) for w in wraps)]
    return min(forms, key=lambda form: form.products)


def _full_written(rows: int, taps: int) -> Bilinear:
    """Return the form with one product for each row and tap."""
    row, tap = (index.ravel() for index in np.indices((rows, taps)))
    outputs = np.arange(rows + taps - 1)[:, None] == row - tap + taps - 1
    return Bilinear(outputs.astype(float), np.eye(taps)[tap], np.eye(rows)[row])


def _full_wrapped(rows: int, taps: int, wrapped: int) -> Bilinear:
    length = rows + taps - 1
    circle = length - wrapped
    form = circular(circle, taps)
    ends = np.zeros((wrapped, circle)), np.zeros((wrapped, taps))
    place = (np.arange(rows) + taps - 1) % circle  # of each input row on the circle
    outputs = np.zeros((length, form.products + wrapped))
    outputs[:circle, : -wrapped or None] = form.to_outputs
    first, last = form.products, form.products + 1  # the products that give these outputs alone
    if wrapped >= 1:
        ends[0][0, place[0]], ends[1][0, taps - 1] = 1, 1
        outputs[circle] = outputs[0]  # y[0] + y[circle]
        outputs[circle, first] = -1
        outputs[0] = 0
        outputs[0, first] = 1
    if wrapped == 2:
        ends[0][1, place[rows - 1]], ends[1][1, 0] = 1, 1
        outputs[1, last] = -1  # y[1] + y[circle + 1], less the last
        outputs[circle + 1, last] = 1
    return Bilinear(
        outputs,
        np.concatenate([form.to_weights, ends[1]]),
        np.concatenate([form.to_inputs, ends[0]])[:, place],
    )
