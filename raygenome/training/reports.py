"""The reports of the workers of a training run to the driver: progress and errors.

On Ray, a `Reports` lives in an actor on the driver's node. This module imports nothing heavy, so
that the actor starts fast. It ends with its driver, so it never holds reports of another run.
"""

from typing import NamedTuple

from raygenome.errors import RaygenomeError


class Position(NamedTuple):
    """The position of training, in samples.

    Attributes:
        done: samples trained on, including earlier processes of the same run.
        total: samples of the whole run.
        first: the value of `done` when this group of workers started.
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
        """Report the position of training."""
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
