"""SIGTERM around Ray, which replaces the handler and swallows what other handlers raise."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Self

#: What Ray exits with if SIGTERM arrives during ray.init: the signal's number, or 1 from C++.
_RAY_CODES = (signal.SIGTERM, 1)


class Stopped(BaseException):
    """SIGTERM has arrived; raised by `HeldSigterm.check` and caught within the block."""


class HeldSigterm:
    """Holds SIGTERM back within a block until `check` is called, and delivers it at the end.

    A handler that ends the program with `raise SystemExit(143)` must not run while Ray waits in
    C++: its exception would become SystemExit(1). A second SIGTERM is delivered at once.
    """

    def __init__(self) -> None:
        self._arrived = False
        self._before = signal.getsignal(signal.SIGTERM)
        self._holds = False

    def __enter__(self) -> Self:
        self._holds = _in_main_thread() and self._before not in (None, signal.SIG_IGN)
        if self._holds:
            signal.signal(signal.SIGTERM, self._hold)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._holds:
            signal.signal(signal.SIGTERM, self._before)
        if self._arrived:
            deliver()

    def check(self) -> None:
        """Raise Stopped if SIGTERM has arrived."""
        if self._arrived:
            raise Stopped

    def _hold(self, _number: int, _frame: FrameType | None) -> None:
        if self._arrived:
            signal.signal(signal.SIGTERM, self._before)
            deliver()
        self._arrived = True


def deliver() -> None:
    """Call the current handler of SIGTERM; if it does not end the program, exit with 143.

    Raises:
        SystemExit: with 143, or whatever the handler raises.
    """
    handler = signal.getsignal(signal.SIGTERM)
    if callable(handler):
        handler(signal.SIGTERM, None)
    else:
        signal.raise_signal(signal.SIGTERM)
    raise SystemExit(128 + signal.SIGTERM)


@contextmanager
def kept_handler() -> Iterator[None]:
    """Restore the caller's SIGTERM handler after ray.init, which replaces it."""
    if not _in_main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit as stop:
        signal.signal(signal.SIGTERM, before)
        if stop.code in _RAY_CODES:
            deliver()
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
