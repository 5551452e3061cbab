"""Raising at every instruction of vrange's Python code in turn, as a signal's handler may."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import vrange

PACKAGE = str(Path(vrange.__file__).parent)


class Interrupted(BaseException):
    """What the handler raises."""


class TimeIsUp(Exception):
    """As Celery's SoftTimeLimitExceeded is one: an ordinary exception."""


def interrupted_at(
    instruction: int, call: Callable[[], object], error: type[BaseException] = Interrupted
) -> bool:
    """Whether call() came as far as to that instruction of vrange's; there `error` was raised."""
    left = instruction
    raised = False

    def trace(frame: Any, event: str, argument: object) -> Any:
        nonlocal left, raised
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        if event == "opcode" or event == "call":
            if left == 0 and not raised:
                raised = True
                raise error
            left -= 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except error:
        assert raised
    finally:
        sys.settrace(before)
    return raised


def everywhere(
    prepare: Callable[[], Callable[[], object]], error: type[BaseException] = Interrupted
) -> Iterator[int]:
    """Does what prepare() returns, interrupted at one instruction, then anew at a later one, and so
    on to its end; yields after each. INTERRUPTS_STEP=1 in the environment tries them all.
    """
    step = int(os.environ.get("INTERRUPTS_STEP", 11))
    instruction = random.randrange(step)
    while interrupted_at(instruction, prepare(), error):
        yield instruction
        instruction += step
