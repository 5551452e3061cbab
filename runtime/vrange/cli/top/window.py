"""The part of a long display that fits into the terminal."""

from __future__ import annotations

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.segment import Segment

__all__ = ["Window"]


class Window:
    """Shows as many lines of its content as the terminal has, from where the user scrolled to."""

    def __init__(self) -> None:
        self.content = Group()
        self.note = ""  # in the last line
        self._above = 0  # lines

    def scroll(self, lines: int) -> None:
        """Move down by so many lines, or up if it is negative; the next drawing stays within."""
        self._above = max(0, self._above + lines)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(self.content, options, pad=False)
        room = max(1, options.size.height - 1) if console.is_terminal else len(lines)
        if self.note or len(lines) > room:
            room = max(1, room - 1)  # the last line says how much there is
        self._above = max(0, min(self._above, len(lines) - room))
        shown = lines[self._above : self._above + room]
        for line in shown:
            yield from line
            yield Segment.line()
        notes = [self.note] if self.note else []
        if len(shown) < len(lines):
            last = self._above + len(shown)
            notes.append(f"lines {self._above + 1} to {last} of {len(lines)}")
        if notes:
            yield Segment(", ".join(notes)[: max(1, options.max_width - 1)])
