"""The keys that a user presses while `vrange top` shows, read without waiting for Enter."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Iterable
from types import TracebackType
from typing import Any

__all__ = ["Keys"]


class Keys:
    """The keyboard, if standard input is a terminal; else nothing is ever pressed.

    The terminal's settings are put back at exit, whatever ended the block.
    """

    def __init__(self) -> None:
        self._terminal: int | None = None
        self._settings: list[Any] = []

    def __enter__(self) -> Keys:
        # A process in the background that reads from its terminal is stopped (SIGTTIN).
        if sys.stdin is not None and sys.stdin.isatty():
            terminal = sys.stdin.fileno()
            if os.tcgetpgrp(terminal) == os.getpgrp():
                self._terminal, self._settings = terminal, termios.tcgetattr(terminal)
                tty.setcbreak(terminal, termios.TCSADRAIN)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._terminal is not None:
            termios.tcsetattr(self._terminal, termios.TCSADRAIN, self._settings)
            self._terminal = None

    def wait(self, seconds: float, keys: Iterable[str] | None) -> str:
        """Wait, and return at once if one of `keys` is pressed: that key, or "" after `seconds`.

        Without `keys` it returns what is typed, whatever it is.
        """
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self._terminal is None:
                time.sleep(left)
                return ""
            if select.select([self._terminal], [], [], left)[0]:
                pressed = os.read(self._terminal, 64)
                if not pressed:  # hung up
                    self._terminal = None
                if keys is None:
                    return pressed.decode(errors="ignore")
                for key in keys:
                    if key.encode() in pressed:
                        return key
        return ""
