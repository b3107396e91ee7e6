"""The learning curves of a training run: loss, AUROC and AUPRC by epoch, as one PNG.

The same log gives the same bytes: the file holds no time, host or program version.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LOSSES = {"train_loss": ("train", "C0"), "valid_loss": ("valid", "C1")}
_SCORES = {"valid_auroc": ("AUROC, valid", "C2"), "valid_auprc": ("AUPRC, valid", "C3")}


def draw(log: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the curves of a run as a PNG.

    Args:
        log: the lines of log.jsonl, one mapping per epoch: `epoch`, and those of `train_loss`,
            `valid_loss`, `valid_auroc` and `valid_auprc` that were measured (others are absent,
            None or nan); `best` is true where the model was the best so far.
        path: path of the PNG.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), dpi=120, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    loss, scores = figure.subplots(1, 2)
    best = _best_epoch(log)
    _panel(loss, log, _LOSSES, title="loss", best=best)
    _panel(scores, log, _SCORES, title="mean over targets", best=best)
    canvas.print_png(path, metadata={"Software": None})


def _panel(
    axes: "Axes",
    log: Sequence[Mapping[str, Any]],
    lines: Mapping[str, tuple[str, str]],
    *,
    title: str,
    best: float | None,
) -> None:
    """Draw the measured lines of one panel, and mark the best epoch."""
    from matplotlib.ticker import MaxNLocator

    axes.set(title=title, xlabel="epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    drawn = False
    for key, (label, colour) in lines.items():
        points = [(row["epoch"], row[key]) for row in log if _measured(row.get(key))]
        if not points:
            continue
        epochs, values = zip(*points, strict=True)
        axes.plot(epochs, values, color=colour, label=label, marker=".")
        drawn = True
    if not drawn:
        axes.text(0.5, 0.5, "not measured", ha="center", va="center", transform=axes.transAxes)
        return
    if best is not None:
        axes.axvline(best, color="0.5", linestyle="--", linewidth=1, label=f"best, epoch {best:g}")
    axes.legend(frameon=False)


def _best_epoch(log: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the best epoch; None if no line of the log is marked."""
    epochs = [float(row["epoch"]) for row in log if row.get("best")]
    return epochs[-1] if epochs else None


def _measured(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
