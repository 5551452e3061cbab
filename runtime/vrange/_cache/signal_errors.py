"""Tells an exception of a signal handler from one of the code that the handler interrupted."""

from __future__ import annotations

import _thread
import signal
import threading
from types import CodeType, FunctionType, TracebackType
from typing import Any

__all__ = ["is_of_signal"]

_WRAPPERS_MOST = 16


def is_of_signal(error: BaseException) -> bool:
    """Return whether a signal handler that is installed now raised the error.

    Such an error is not about the code that it happened to interrupt: a time limit or a request to
    stop is meant for the program. A handler written in C leaves no trace, and is not recognised.
    """
    # Handlers run in the main thread only.
    if _thread.get_ident() != threading.main_thread().ident:
        return False
    codes = {code for number in signal.valid_signals() for code in _codes(number)}
    at: TracebackType | None = error.__traceback__
    while at is not None:
        if at.tb_frame.f_code in codes:
            return True
        at = at.tb_next
    return False


def _codes(number: int) -> list[CodeType]:
    """Return the code of a signal's handler, and of what it wraps."""
    handler: Any = signal.getsignal(number)
    codes: list[CodeType] = []
    for _ in range(_WRAPPERS_MOST):
        code = getattr(handler, "__code__", None)
        if isinstance(code, CodeType):
            codes.append(code)
        for name in (
            "__func__",
            "func",
            "__wrapped__",
        ):  # a method, a partial, a decorated function
            inner = getattr(handler, name, None)
            if callable(inner):
                break
        else:
            inner = vars(type(handler)).get("__call__")
            if code is not None or not isinstance(inner, FunctionType):
                return codes
        handler = inner
    return codes
