"""Which Python functions a call runs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any


def functions_called(call: Callable[[], object]) -> list[str]:
    """The names of the Python functions it calls, itself first."""
    called: list[str] = []

    def note(frame: Any, event: str, argument: object) -> None:
        if event == "call":
            called.append(frame.f_code.co_name)

    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    return called
