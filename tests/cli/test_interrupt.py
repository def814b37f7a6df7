"""A Ctrl-C ends a command, though a library swallows it."""

import os
import signal
import time

import pytest

from qwen_core.cli.interrupt import insistent_interrupt


def _swallow():
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)
    except KeyboardInterrupt:
        return True
    return False


def test_interrupt_that_was_swallowed_comes_again_and_handlers_are_as_before():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGALRM)
    with pytest.raises(KeyboardInterrupt), insistent_interrupt(0.1):
        assert _swallow()
        time.sleep(10)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGALRM)) == before
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_without_an_interrupt_nothing_is_touched():
    signal.setitimer(signal.ITIMER_REAL, 500)
    try:
        with insistent_interrupt():
            pass
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
