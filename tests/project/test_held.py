"""The check for leaks sees one, and is not disturbed by what comes and goes."""

from __future__ import annotations

import os
import signal
import threading

import pytest
from held import Held, descriptors_of

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


def test_an_account_and_a_handler_that_stay_are_seen() -> None:
    before = Held()
    with (
        vrange.VolatileCache(name="a leak"),
        pytest.raises(AssertionError, match="account a leak"),
    ):
        before.check(patience=0.1)
    was = signal.signal(signal.SIGBUS, lambda number, frame: None)
    try:
        with pytest.raises(AssertionError, match="another handler of SIGBUS"):
            before.check(patience=0.1)
    finally:
        signal.signal(signal.SIGBUS, was)
