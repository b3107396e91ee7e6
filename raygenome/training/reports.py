"""What the workers of a training run report to the driver: how far they are, and errors.

On Ray, a `Reports` lives in an actor beside the driver. This module imports nothing heavy, so that
the actor starts fast. The actor ends with its driver, so it never holds reports of another run.
"""

from typing import NamedTuple

from raygenome.errors import RaygenomeError


class Position(NamedTuple):
    """How far training is, in samples.

    Attributes:
        done: samples trained on, including earlier processes of the same run.
        total: samples of the whole run.
        first: what `done` was when this group of workers started.
        note: text to show, such as the loss.
    """

    done: int
    total: int
    first: int
    note: str


class Reports:
    """The newest position, and the first error that another attempt would meet again."""

    def __init__(self) -> None:
        self._position: Position | None = None
        self._error: RaygenomeError | None = None

    def progress(self, position: Position) -> None:
        """Report how far training is."""
        self._position = position

    def fail(self, error: RaygenomeError) -> None:
        """Report an error that ends the run."""
        self._error = self._error or error

    def failed(self) -> bool:
        """Return whether an error was reported."""
        return self._error is not None

    def newest(self) -> tuple[Position | None, RaygenomeError | None]:
        """Return the newest position and the error, None where there is none."""
        return self._position, self._error
