"""Progress on stderr: a bar for a person, lines for a log."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raygenome.progress.bars import Progress


def make_progress() -> "Progress":
    """Return a bar where stderr is a terminal; elsewhere a line every 30 seconds."""
    from raygenome.progress.bars import BarProgress, LineProgress

    return BarProgress() if sys.stderr.isatty() else LineProgress(sys.stderr)
