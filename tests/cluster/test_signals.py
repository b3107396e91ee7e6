"""SIGTERM held back, delivered, and kept from Ray's own handler."""

import signal
from collections.abc import Iterator
from types import FrameType

import pytest

from raygenome.cluster.signals import HeldSigterm, Stopped, kept_handler


def handler(number: int, frame: FrameType | None) -> None:
    raise SystemExit(143)


@pytest.fixture(autouse=True)
def own_handler() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, handler)
    yield
    signal.signal(signal.SIGTERM, before)


def stopped(signals: int, story: list[str] | None = None) -> None:
    """Send `signals` signals inside a block that then checks for them; return the events."""
    story = [] if story is None else story
    with HeldSigterm() as sigterm:
        try:
            sigterm.check()
            for _ in range(signals):
                signal.raise_signal(signal.SIGTERM)
            story.append("held")
            sigterm.check()
            story.append("unnoticed")
        except Stopped:
            story.append("stopped")
            raise
        finally:
            story.append("cleaned")


def test_the_handler_runs_after_the_block_has_cleaned_up() -> None:
    story: list[str] = []
    with pytest.raises(SystemExit) as caught:
        stopped(1, story)
    assert caught.value.code == 143
    assert story == ["held", "stopped", "cleaned"]
    assert signal.getsignal(signal.SIGTERM) is handler


def test_a_signal_that_nobody_checked_for_is_not_lost() -> None:
    with pytest.raises(SystemExit), HeldSigterm():
        signal.raise_signal(signal.SIGTERM)


def test_a_second_signal_is_delivered_at_once() -> None:
    story: list[str] = []
    with pytest.raises(SystemExit) as caught:
        stopped(2, story)
    assert caught.value.code == 143
    assert story == ["cleaned"]


def test_other_errors_pass_and_the_handler_is_restored() -> None:
    with pytest.raises(OSError, match="other"), HeldSigterm():
        raise OSError("other")
    assert signal.getsignal(signal.SIGTERM) is handler


def test_an_ignored_signal_stays_ignored() -> None:
    story: list[str] = []
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    stopped(1, story)
    assert story == ["held", "unnoticed", "cleaned"]


def test_a_handler_that_returns_still_ends_the_run() -> None:
    signal.signal(signal.SIGTERM, lambda *_: None)
    with pytest.raises(SystemExit) as caught:
        stopped(1)
    assert caught.value.code == 143


def as_ray_init(code: int) -> None:
    """Act like ray.init on SIGTERM: replace the handler, and exit with its own code."""
    with kept_handler():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise SystemExit(code)


@pytest.mark.parametrize("code", [15, 1])
def test_the_exit_of_ray_becomes_that_of_the_handler(code: int) -> None:
    with pytest.raises(SystemExit) as caught:
        as_ray_init(code)
    assert caught.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is handler


def test_the_handler_is_restored_after_another_was_set() -> None:
    with kept_handler():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGTERM) is handler
