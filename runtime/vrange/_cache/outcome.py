"""What came of a computation that another thread or task led.

The native cache and the portable one wait with waiters of their own, which have the same states.
"""

from __future__ import annotations

from typing import Any, Protocol

ASK_AGAIN = object()  # the flight landed without a value or an error


class Waiter(Protocol):
    """A waiter whose flight has landed."""

    @property
    def state(self) -> int:
        """Return one of the states."""

    def result(self) -> Any:
        """Return the value or the error, once."""


class States(Protocol):
    """The module that has the waiter's states."""

    HAS_VALUE: int
    HAS_ERROR: int


def outcome_of(waiter: Waiter, states: States) -> Any:
    """Return the leader's value, or raise its error, or return ASK_AGAIN if it has neither."""
    if waiter.state == states.HAS_VALUE:
        return waiter.result()
    if waiter.state == states.HAS_ERROR:
        _raise(waiter.result())
    return ASK_AGAIN


def _raise(error: BaseException) -> None:
    try:
        raise error
    finally:
        del error  # its traceback refers to this frame from now on
