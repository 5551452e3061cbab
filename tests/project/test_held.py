"""The check for leaks sees one, and is not disturbed by what comes and goes."""

from __future__ import annotations

import os
import threading

import pytest
from held import Held, descriptors_of
from support import succeeds

import vrange


def test_what_was_there_before_may_stay_or_go() -> None:
    number = os.open("/proc/self/status", os.O_RDONLY)
    before = Held()
    before.check()
    os.close(number)
    before.check()


def test_a_descriptor_that_stays_is_seen() -> None:
    went = os.open("/proc/self/status", os.O_RDONLY)
    before = Held()
    stayed = os.open("/proc/self/stat", os.O_RDONLY)
    with pytest.raises(AssertionError, match=rf"descriptor {stayed} of /proc/\d+/stat'"):
        before.check(patience=0.1)
    os.close(went)  # and the number of them is as before
    with pytest.raises(AssertionError, match=f"descriptor {stayed} of"):
        before.check(patience=0.1)
    os.close(stayed)
    before.check()


def test_a_descriptor_that_another_thread_closes_is_no_leak() -> None:
    before = Held()
    number = os.open("/proc/self/stat", os.O_RDONLY)
    closing = threading.Timer(0.1, os.close, (number,))
    closing.start()
    before.check(patience=30)
    closing.join()
    assert descriptors_of(f"/proc/{os.getpid()}/stat") == []


def test_an_account_that_stays_is_seen() -> None:
    before = Held()
    with (
        vrange.VolatileCache(name="a leak"),
        pytest.raises(AssertionError, match="account a leak"),
    ):
        before.check(patience=0.1)


def test_a_handler_that_stays_is_seen() -> None:
    """In a process in which no test before has left vrange's own."""
    code = """
    import signal
    from held import Held
    before = Held()
    signal.signal(signal.SIGBUS, lambda number, frame: None)
    try:
        before.check(patience=0.1)
    except AssertionError as error:
        assert "another handler of SIGBUS" in str(error)
    else:
        raise AssertionError("it is not seen")
    """
    # Counters in a file keep vrange's own.
    succeeds(code, environment={"VRANGE_RUNTIME_DIR": "/proc/fs", "PYTHONWARNINGS": "ignore"})
