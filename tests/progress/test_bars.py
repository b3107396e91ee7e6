"""Progress: a line every 30 seconds in a log, a bar on a terminal, and readable durations."""

import io

import pytest

from raygenome.progress.bars import BarProgress, LineProgress, duration


def test_a_line_every_thirty_seconds() -> None:
    now = [100.0]
    stream = io.StringIO()
    progress = LineProgress(stream, clock=lambda: now[0])
    progress.begin("scoring", total=1000, done=200)
    for second in range(100, 201):
        now[0] = float(second)
        progress.update(200 + 4 * (second - 100))
    progress.end()
    lines = stream.getvalue().splitlines()
    assert lines == [
        "scoring: 320 of 1,000 variants (32.0 %), 4 variants/s, 2 min 50 s left",
        "scoring: 440 of 1,000 variants (44.0 %), 4 variants/s, 2 min 20 s left",
        "scoring: 560 of 1,000 variants (56.0 %), 4 variants/s, 1 min 50 s left",
    ]


def test_no_rate_yet() -> None:
    now = [0.0]
    stream = io.StringIO()
    progress = LineProgress(stream, clock=lambda: now[0])
    progress.begin("scoring", total=10)
    now[0] = 31.0
    progress.update(0)
    assert stream.getvalue() == "scoring: 0 of 10 variants (0.0 %), 0 variants/s, unknown left\n"


def test_a_bar_moves_and_is_removed() -> None:
    progress = BarProgress()
    progress.begin("scoring", 10, 2)
    progress.update(5, "loss 0.1")
    (task,) = progress._bar.tasks
    assert (task.completed, task.total, task.fields["note"]) == (5, 10, "loss 0.1")
    progress.end()
    assert progress._bar.tasks == []
    assert not progress._bar.live.is_started


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.42, "0.4 s"),
        (42, "42 s"),
        (185, "3 min 5 s"),
        (3600, "1 h 0 min"),
        (26_400, "7 h 20 min"),
        (273_600, "3 d 4 h"),
    ],
)
def test_duration(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown
