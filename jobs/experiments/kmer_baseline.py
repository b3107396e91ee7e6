"""Predict the targets of a packed dataset from GC content and from k-mers: baselines for a net.

    python jobs/experiments/kmer_baseline.py DATASET --split test --k 6 --among negatives

There are two baselines per target. One is the GC content of the window, with the sign that fits the
train split. The other is a logistic regression on the k-mers of 1 to k letters, where both strands
count together (log counts, standardised, L2 penalty). The strength of the penalty is chosen per
target by AUROC on the valid split. Both use all rows of the train split, as a net does.
"""

import argparse
import json
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from raygenome.datasets.packed import Dataset, Split
from raygenome.errors import DataError
from raygenome.evaluation.evaluate import AMONG, negatives_among, score_targets
from raygenome.evaluation.metrics import auroc_auprc, mean
from raygenome.genome.sequence import N_CODE
from raygenome.progress.bars import LineProgress, NoProgress, Progress

#: Inverse strengths of the penalty to try, strongest first.
PENALTIES = (1e-4, 3e-4, 1e-3)
#: The default if the valid split cannot decide.
DEFAULT_PENALTY = 3e-4
#: Windows whose k-mers are counted at once.
_BLOCK = 256


def gc_content(codes: np.ndarray) -> np.ndarray:
    """Return the fraction of G and C among the known bases of windows (n, width): float32 (n,)."""
    known = (codes < N_CODE).sum(axis=1)
    gc = ((codes == 1) | (codes == 2)).sum(axis=1)
    return (gc / np.maximum(known, 1)).astype(np.float32)


def canonical_columns(k: int) -> np.ndarray:
    """Return the column of each k-mer, int64 (4**k,): a k-mer and its reverse complement share one.

    A k-mer is an integer whose base-4 digits are its codes, the first letter the highest digit.
    """
    numbers = np.arange(4**k)
    reverse = np.zeros_like(numbers)
    for position in range(k):
        digit = numbers >> (2 * position) & 3
        reverse |= (3 - digit) << (2 * (k - 1 - position))
    return np.unique(np.minimum(numbers, reverse), return_inverse=True)[1]


def kmer_counts(codes: np.ndarray, k: int) -> np.ndarray:
    """Return the count of each canonical k-mer in each window; k-mers with an N do not count.

    Args:
        codes: uint8 (n, width).
        k: letters per k-mer.

    Returns:
        float32 (n, canonical k-mers).
    """
    column = canonical_columns(k)
    columns = int(column.max()) + 1
    positions = codes.shape[1] - k + 1
    number = np.zeros((len(codes), positions), dtype=np.int64)
    known = np.ones((len(codes), positions), dtype=bool)
    for offset in range(k):
        letter = codes[:, offset : offset + positions]
        number = number * 4 + np.where(letter < N_CODE, letter, 0)
        known &= letter < N_CODE
    cell = column[number] + np.arange(len(codes))[:, None] * columns
    counts = np.bincount(cell[known], minlength=len(codes) * columns)
    return counts.reshape(len(codes), columns).astype(np.float32)


class Features:
    """Log counts of the k-mers of 1 to `k` letters, standardised by the train split.

    Args:
        train: the split that gives means and standard deviations.
        k: letters of the longest k-mers.
    """

    def __init__(self, train: Split, k: int) -> None:
        self._k = k
        self.train = self._raw(train)
        self._mean = self.train.mean(axis=0, dtype=np.float64).astype(np.float32)
        deviation = self.train.std(axis=0, dtype=np.float64).astype(np.float32)
        self._deviation = np.where(deviation > 0, deviation, 1)
        self._standardise(self.train)

    def of(self, split: Split) -> np.ndarray:
        """Return the features of a split: float32 (rows, features)."""
        return self._standardise(self._raw(split))

    def _raw(self, split: Split) -> np.ndarray:
        width = sum(int(canonical_columns(k).max()) + 1 for k in range(1, self._k + 1))
        values = np.empty((split.n_rows, width), dtype=np.float32)
        for begin in range(0, split.n_rows, _BLOCK):
            codes = split.codes(slice(begin, begin + _BLOCK))
            counts = [kmer_counts(codes, k) for k in range(1, self._k + 1)]
            np.log1p(np.hstack(counts), out=values[begin : begin + len(codes)])
        return values

    def _standardise(self, values: np.ndarray) -> np.ndarray:
        values -= self._mean
        values /= self._deviation
        return values


def gc_scores(train: Split, split: Split) -> np.ndarray:
    """Return GC content, negated for targets with low GC content: float32 (rows, T)."""
    gc = _gc_of(train)
    labels = train.labels(slice(None))
    auroc, _ = auroc_auprc(labels, np.repeat(gc[:, None], train.n_targets, axis=1))
    sign = np.where(auroc < 0.5, -1, 1).astype(np.float32)
    return _gc_of(split)[:, None] * sign


def kmer_scores(
    dataset: Dataset, split: Split, k: int, progress: Progress | None = None
) -> np.ndarray:
    """Return the log odds that logistic regression on k-mers gives: float32 (rows, T).

    A target that has the same label in every train window gets the score 0 everywhere.
    """
    progress = progress or NoProgress()
    train, valid = dataset.split("train"), dataset.split("valid")
    features = Features(train, k)
    of_valid, of_split = features.of(valid), features.of(split)
    labels, valid_labels = train.labels(slice(None)), valid.labels(slice(None))
    scores = np.zeros((split.n_rows, split.n_targets), dtype=np.float32)
    progress.begin("k-mer regression", split.n_targets, unit="targets")
    for target in range(split.n_targets):
        label = labels[:, target]
        if label.any() and not label.all():
            weights, bias = _fit(features.train, label, of_valid, valid_labels[:, target])
            scores[:, target] = of_split @ weights + bias
        progress.update(target + 1)
    progress.end()
    return scores


def _fit(
    train: np.ndarray, label: np.ndarray, valid: np.ndarray, valid_label: np.ndarray
) -> tuple[np.ndarray, float]:
    """Return weights and bias of one target, with the penalty that does best on the valid split."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    decided = valid_label.any() and not valid_label.all()
    model = LogisticRegression(warm_start=True, max_iter=100, tol=1e-3)
    best: tuple[float, np.ndarray, float] | None = None
    for penalty in PENALTIES if decided else (DEFAULT_PENALTY,):
        model.set_params(C=penalty)
        with warnings.catch_warnings():
            # Stopping early is fine for a baseline; the penalty matters more.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(train, label)
        weights, bias = model.coef_[0].astype(np.float32), float(model.intercept_[0])
        score = (valid @ weights)[:, None]
        auroc = float(auroc_auprc(valid_label[:, None], score)[0][0]) if decided else 0.0
        if best is None or auroc > best[0]:
            best = auroc, weights, bias
    assert best is not None
    return best[1], best[2]


def baseline(
    dataset: Dataset,
    *,
    split: str = "test",
    k: int = 6,
    among: Sequence[str] = ("all",),
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Return one row for each kind of negatives and target.

    Keys: among, target, name, category, positives, negatives, and for both baselines AUROC and
    AUPRC: gc_auroc, gc_auprc, kmer_auroc, kmer_auprc (None where it is undefined).

    Raises:
        DataError: `split` or the train split has no rows.
        UsageError: `among` asks for negatives that the dataset does not have.
    """
    rows, train = dataset.split(split), dataset.split("train")
    for needed in (rows, train):
        if needed.n_rows == 0:
            raise DataError(f"the split {needed.name!r} of {dataset.place} has no rows")
    negatives = {kind: negatives_among(rows, kind) for kind in among}
    scores = {"gc": gc_scores(train, rows), "kmer": kmer_scores(dataset, rows, k, progress)}
    labels = rows.labels(slice(None))
    found = []
    for kind, chosen in negatives.items():
        tables = {
            name: score_targets(dataset.targets, labels, values, chosen).to_pylist()
            for name, values in scores.items()
        }
        for gc, kmer in zip(tables["gc"], tables["kmer"], strict=True):
            row = {"among": kind} | {key: gc[key] for key in gc if key not in ("auroc", "auprc")}
            for name, measured in (("gc", gc), ("kmer", kmer)):
                row |= {f"{name}_{metric}": measured[metric] for metric in ("auroc", "auprc")}
            found.append(row)
    return found


def table(rows: Sequence[dict[str, Any]], methods: Sequence[str] = ("gc", "kmer")) -> str:
    """Return rows of `baseline`, or of more methods, as text: one table per kind of negatives."""
    columns = [f"{method}_{metric}" for metric in ("auroc", "auprc") for method in methods]
    labels = [row["name"] for row in rows] + [f"mean {row['category'] or 'none'}" for row in rows]
    width = max(map(len, labels))
    blocks = []
    for kind in dict.fromkeys(row["among"] for row in rows):
        chosen = [row for row in rows if row["among"] == kind]
        lines = [
            f"negatives among {kind}",
            f"{'target':<{width}} {'positives':>9} {'negatives':>9}"
            + "".join(f" {column:>10}" for column in columns),
        ]
        lines += [
            f"{row['name']:<{width}} {row['positives']:>9,} {row['negatives']:>9,}"
            + "".join(f" {_number(row[column])}" for column in columns)
            for row in chosen
        ]
        lines += [
            f"{label:<{width}} {'':>9} {'':>9}" + "".join(f" {_number(value)}" for value in means)
            for label, means in _means(chosen, columns)
        ]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _means(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> list[tuple[str, list[float]]]:
    """Return means over the targets of each category, if there are several, and over all."""
    categories = list(dict.fromkeys(row["category"] for row in rows))
    groups = [(f"mean {name or 'none'}", {name}) for name in categories if len(categories) > 1]
    return [
        (
            label,
            [
                mean(np.array([row[c] for row in rows if row["category"] in chosen], dtype=float))
                for c in columns
            ],
        )
        for label, chosen in [*groups, ("mean", set(categories))]
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table; write the rows as JSON if --out is given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="the packed dataset")
    parser.add_argument("--split", default="test", choices=("train", "valid", "test"))
    parser.add_argument("--k", type=int, default=6, choices=range(1, 9), help="longest k-mer")
    parser.add_argument("--among", nargs="+", default=["all"], choices=AMONG)
    parser.add_argument("--out", type=Path, help="JSON file to write the rows to")
    chosen = parser.parse_args(arguments)
    began = time.perf_counter()
    rows = baseline(
        Dataset.open(chosen.data),
        split=chosen.split,
        k=chosen.k,
        among=chosen.among,
        progress=LineProgress(sys.stderr),
    )
    print(table(rows))
    print(f"\n{time.perf_counter() - began:.0f} s")
    if chosen.out:
        chosen.out.write_text(json.dumps(rows, indent=1) + "\n")


def _gc_of(split: Split) -> np.ndarray:
    """Return the GC content of every window of a split: float32 (rows,)."""
    blocks = [
        gc_content(split.codes(slice(begin, begin + _BLOCK)))
        for begin in range(0, split.n_rows, _BLOCK)
    ]
    return np.concatenate([*blocks, np.empty(0, dtype=np.float32)])


def _number(value: float | None) -> str:
    return f"{'-':>10}" if value is None or np.isnan(value) else f"{value:>10.4f}"


if __name__ == "__main__":
    main()
