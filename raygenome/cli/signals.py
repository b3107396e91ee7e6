"""Signals that end a command, as exceptions."""

import signal
from types import FrameType
from typing import NoReturn


class Terminated(BaseException):
    """SIGTERM or SIGHUP: like KeyboardInterrupt, but sent by a program."""


def _raise(_signum: int, _frame: FrameType | None) -> NoReturn:
    raise Terminated


def raise_on_termination() -> None:
    """Let SIGTERM raise `Terminated`, and SIGHUP too unless it is ignored, as by nohup."""
    signal.signal(signal.SIGTERM, _raise)
    if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
        signal.signal(signal.SIGHUP, _raise)
