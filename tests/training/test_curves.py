"""The picture of a run exists, shows the measured values, and has the same bytes each time."""

from pathlib import Path

import numpy as np
import pytest

from raygenome.training.curves import draw


def entry(epoch: int, **more: object) -> dict[str, object]:
    return {
        **{"epoch": epoch, "train_loss": 0.7 / epoch, "valid_loss": 0.75 / epoch},
        **{"valid_auroc": 1 - 0.5 / epoch, "valid_auprc": 0.5, "best": epoch < 4},
        **more,
    }


LOG = [entry(epoch) for epoch in range(1, 6)]


def pixels(path: Path) -> np.ndarray:
    from matplotlib.image import imread

    return imread(path)


def colours(path: Path) -> set[tuple[int, ...]]:
    return set(map(tuple, (pixels(path)[..., :3].reshape(-1, 3) * 255).round().astype(int)))


#: matplotlib's C0 to C3: train, valid, AUROC, AUPRC.
C0, C1, C2, C3 = (31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40)


@pytest.mark.slow
def test_same_log_same_bytes(tmp_path: Path) -> None:
    draw(LOG, tmp_path / "curves.png.tmp")
    draw(LOG, tmp_path / "b.png")
    first = (tmp_path / "curves.png.tmp").read_bytes()
    assert first == (tmp_path / "b.png").read_bytes()
    assert b"atplotlib" not in first
    draw(LOG[:3], tmp_path / "b.png")
    assert first != (tmp_path / "b.png").read_bytes()


@pytest.mark.slow
def test_all_four_lines_are_drawn(tmp_path: Path) -> None:
    draw(LOG, tmp_path / "x.png")
    assert pixels(tmp_path / "x.png").shape[:2] == (432, 1080)
    assert {C0, C1, C2, C3} <= colours(tmp_path / "x.png")


@pytest.mark.slow
@pytest.mark.parametrize("nothing", [{}, None, float("nan")])
def test_what_was_not_measured_is_left_out(tmp_path: Path, nothing: object) -> None:
    log = [{"epoch": 1, "train_loss": 0.5}, {"epoch": 2, "train_loss": 0.4}]
    if nothing != {}:
        for row in log:
            row |= dict.fromkeys(("valid_loss", "valid_auroc", "valid_auprc"), nothing)
    draw(log, tmp_path / "x.png")
    found = colours(tmp_path / "x.png")
    assert C0 in found
    assert not {C1, C2, C3} & found


@pytest.mark.parametrize("log", [LOG[:1], []])
def test_short_logs(tmp_path: Path, log: list[dict[str, object]]) -> None:
    draw(log, tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 1000


@pytest.mark.slow
def test_the_last_best_epoch_is_marked(tmp_path: Path) -> None:
    """Each of the epochs 1 to 3 was the best so far; only 3, the best of all, is marked."""
    draw(LOG, tmp_path / "three.png")
    draw([{**row, "best": row["epoch"] == 3} for row in LOG], tmp_path / "only.png")
    draw([{**row, "best": row["epoch"] == 2} for row in LOG], tmp_path / "two.png")
    three = (tmp_path / "three.png").read_bytes()
    assert three == (tmp_path / "only.png").read_bytes()
    assert three != (tmp_path / "two.png").read_bytes()
