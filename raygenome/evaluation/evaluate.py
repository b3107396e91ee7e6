"""How well a model predicts the labels of a dataset's split: AUROC and AUPRC per target.

The positives of a target are always the same. `among` chooses its negatives:

    all        every window that is not in a peak of the target
    peaks      windows in a peak of another target: Basset's own test, and harder
    negatives  windows outside every peak
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raygenome.cluster.compute import Compute, Precision, require_choice
from raygenome.datasets.packed import Dataset, Split
from raygenome.errors import DataError, OutputError, UsageError
from raygenome.evaluation.metrics import auroc_auprc, mean, median
from raygenome.genome.targets import Target
from raygenome.progress.bars import Progress
from raygenome.registry.model import Model
from raygenome.storage.bucket import require_local
from raygenome.storage.files import atomic_file

AMONG = ("all", "peaks", "negatives")
#: Older names of `AMONG`.
_OLD_NAMES = {"background": "negatives"}
#: The category of the last row of a summary.
OVERALL = "all"
#: Key of `Evaluation.about`, as JSON, in the footer of the Parquet file.
FOOTER = b"raygenome"


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation.

    Attributes:
        table: one row per target: target (0-based), name, category, positives, negatives, auroc,
            auprc; the last two are null where a target has no positives or no negatives.
        about: the model, the data and the options; plain values, without time or host.
    """

    table: pa.Table
    about: dict[str, Any]

    def summary(self) -> list[dict[str, Any]]:
        """Return one row per category, in the order of the targets, and a last row for all targets.

        Keys: category, targets, scored (targets that have scores), auroc_mean, auroc_median,
        auprc_mean, auprc_median; the four are None where no target is scored.
        """
        category = np.array(self.table["category"].to_pylist(), dtype=object)
        rows = [(name, category == name) for name in dict.fromkeys(category.tolist())]
        return [
            self._summary_row(name, chosen)
            for name, chosen in [*rows, (OVERALL, np.ones(len(category), dtype=bool))]
        ]

    def _summary_row(self, category: str, chosen: np.ndarray) -> dict[str, Any]:
        row: dict[str, Any] = {"category": category, "targets": int(chosen.sum()), "scored": 0}
        for metric in ("auroc", "auprc"):
            values = self.table[metric].to_numpy()[chosen]
            row["scored"] = int((~np.isnan(values)).sum())
            for name, average in (("mean", mean), ("median", median)):
                row[f"{metric}_{name}"] = average(values) if row["scored"] else None
        return row


def evaluate(
    *,
    model: str | Path,
    data: str | Path,
    split: str = "test",
    out: str | Path | None = None,
    among: str = "all",
    strands: str = "both",
    device: str = "auto",
    precision: str = "fp32",
    batch_size: int = 256,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Evaluation:
    """Evaluate a model on a split of a packed dataset.

    Args:
        model: name of a model, or a model directory.
        data: folder of the dataset.
        split: "train", "valid" or "test".
        out: Parquet file to write the table to; None writes no file.
        among: which windows are negatives, one of `AMONG`.
        strands: "both" or "forward".
        device: "auto", "cpu" or "cuda".
        precision: "fp32", "tf32" or "bf16".
        batch_size: windows per forward pass.
        overwrite: replace `out` if it exists.
        progress: shown how many windows are done.

    Raises:
        UsageError: an option that cannot be used as given, or not with this dataset.
        DataError: the dataset's windows or targets are not the model's, or the split has no rows.
        NoInput: no such model or dataset.
        OutputError: `out` exists, or cannot be written.
    """
    from raygenome.evaluation.predict import predict

    if batch_size < 1:
        raise UsageError(f"--batch-size is {batch_size}; it must be 1 or larger")
    among = _OLD_NAMES.get(among, among)
    if out is not None:
        require_local(out, "--out")
    device = choose_device(device, precision)
    opened = Model.open(model)
    spec, targets = opened.spec, opened.targets
    dataset = Dataset.open(data)
    _require_same(opened.directory, spec.window, targets, dataset)
    rows = dataset.split(split)
    if rows.n_rows == 0:
        raise DataError(f"the split {split!r} of {data} has no rows", "choose another --split")
    negatives = negatives_among(rows, among)
    final = None if out is None else _free(Path(out), overwrite=overwrite)

    probabilities = predict(
        opened.net(),
        spec,
        rows,
        strands=strands,
        device=device,
        precision=precision,
        batch_size=batch_size,
        progress=progress,
    )
    about = {
        "model": {"name": spec.name, "weights_sha256": spec.weights_sha256},
        "dataset": {"digest": dataset.digest, "recipe": dataset.manifest.recipe},
        "split": split,
        "rows": rows.n_rows,
        "among": among,
        "strands": strands,
        "precision": precision,
    }
    table = score_targets(targets, rows.labels(slice(None)), probabilities, negatives)
    evaluation = Evaluation(table, about)
    if final is not None:
        write_table(evaluation, final)
    return evaluation


def choose_device(device: str, precision: str) -> str:
    """Return "cpu" or "cuda": `device`, with "auto" replaced by what this machine has.

    Raises:
        UsageError: an unknown value; or there is no GPU, and `device` or `precision` needs one.
    """
    import torch

    require_choice("precision", precision, get_args(Precision))
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    compute = Compute(workers=0, device=device)  # type: ignore[arg-type]  # checked by Compute
    return compute.resolved(precision, gpus=gpus).device


def negatives_among(split: Split, among: str) -> np.ndarray:
    """Return which rows of a split may be negatives, bool (n_rows,).

    Raises:
        UsageError: `among` is none of `AMONG`, or the split has no such rows.
    """
    require_choice("among", among, AMONG)
    if among == "all":
        return np.ones(split.n_rows, dtype=bool)
    negatives = split.negatives()
    if split.windows() is None:
        raise UsageError(
            f"--among {among} needs a dataset that records which windows lie outside every peak; "
            "this one does not (imported datasets never do)",
            "use --among all",
        )
    if among == "peaks":
        return ~negatives
    if not negatives.any():
        raise UsageError(
            f"--among {among}: the split {split.name!r} has no windows outside every peak",
            "build the dataset with --negatives N, or use --among peaks",
        )
    return negatives


def score_targets(
    targets: Sequence[Target], labels: np.ndarray, scores: np.ndarray, negatives: np.ndarray
) -> pa.Table:
    """Return an evaluation's table.

    Args:
        targets: T of them.
        labels: uint8 (n, T), 0 or 1.
        scores: float32 (n, T).
        negatives: bool (n,), the rows that may be negatives.

    Raises:
        DataError: a score that is not finite.
    """
    auroc, auprc = auroc_auprc(labels, scores, negatives=negatives)
    positives = labels.sum(axis=0, dtype=np.int64)
    among_negatives = labels[negatives].sum(axis=0, dtype=np.int64)
    return pa.table(
        {
            "target": pa.array([target.target for target in targets], pa.int32()),
            "name": pa.array([target.name for target in targets], pa.string()),
            "category": pa.array([target.category for target in targets], pa.string()),
            "positives": positives,
            "negatives": int(negatives.sum()) - among_negatives,
            # Null and not nan: an average in SQL skips nulls, but one nan makes it nan.
            "auroc": pa.array(auroc, mask=np.isnan(auroc)),
            "auprc": pa.array(auprc, mask=np.isnan(auprc)),
        }
    )


def write_table(evaluation: Evaluation, final: Path) -> None:
    """Write the table as Parquet, whole or not at all, with `about` in its footer.

    Raises:
        OutputError: it cannot be written.
    """
    footer = json.dumps(evaluation.about, sort_keys=True).encode()
    table = evaluation.table.replace_schema_metadata({FOOTER: footer})
    try:
        with atomic_file(final) as temporary:
            pq.write_table(table, temporary, compression="zstd", write_page_checksum=True)
    except OSError as error:
        raise OutputError(
            f"cannot write {final} ({error.strerror})", "choose another --out"
        ) from None


def _free(out: Path, *, overwrite: bool) -> Path:
    """Return `out` if a file can be written there; make its folder if needed.

    Raises:
        OutputError: it exists and may not be replaced, or its folder cannot be written to.
    """
    if out.is_dir():
        raise OutputError(
            f"{out} is a directory; --out needs a file", f"give a file such as {out}/scores.parquet"
        )
    if out.exists() and not overwrite:
        raise OutputError(f"{out} exists", "add --overwrite, or choose another --out")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot make {out.parent} ({error.strerror})", "choose another --out"
        ) from None
    if not os.access(out.parent, os.W_OK):
        raise OutputError(f"{out.parent} cannot be written to", "choose another --out")
    return out


def _require_same(model: Path, window: int, targets: Sequence[Target], dataset: Dataset) -> None:
    """Refuse a dataset whose windows or targets are not the model's.

    Raises:
        DataError: they differ.
    """
    if dataset.window_size != window:
        raise DataError(
            f"{model} takes windows of {window} bases; those of {dataset.place} have "
            f"{dataset.window_size}",
            "use the dataset that it was trained on, or one built like it",
        )
    ours, theirs = ([target.name for target in each] for each in (targets, dataset.targets))
    if ours == theirs:
        return
    first = next(
        (i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b),
        min(len(ours), len(theirs)),
    )
    names = [repr(each[first]) if first < len(each) else "none" for each in (ours, theirs)]
    raise DataError(
        f"{model} has {len(ours)} targets and {dataset.place} has {len(theirs)}; the first that "
        f"differs is target {first}: {names[0]} in the model, {names[1]} in the dataset",
        "use a dataset with the same targets in the same order",
    )
