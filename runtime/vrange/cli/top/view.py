"""The display of `vrange top`: one panel a process, with sparklines of the last readings."""

from __future__ import annotations

from collections import deque
from itertools import compress
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from vrange.cli.durations import duration
from vrange.cli.printable import printable
from vrange.cli.top.figures import (
    SORTS,
    AccountFigures,
    ProcessFigures,
    ServiceFigures,
    filtered,
    services_of,
    sorted_by,
)
from vrange.cli.top.window import Window
from vrange.sizes import format_bytes

__all__ = ["View", "sparkline"]

_BARS = "▁▂▃▄▅▆▇█"
_ASCII_BARS = "_.:-=+*#"  # where the output isn't UTF-8
_REMEMBERED = 8
_NAME_COLUMNS = 12  # of a name, at least
# The columns of the table of caches, and the least width of a terminal that shows each: a name that
# can be read is worth more than a figure.
_FIGURES = (
    ("pinned", 0),
    ("hot", 72),
    ("idle", 0),
    ("offered", 44),
    ("asked/s", 48),
    ("", 104),
    ("hits", 56),
    ("", 104),
    ("lost/s", 80),
    ("compute", 80),
)


def sparkline(values: deque[float], bars: str = _BARS) -> str:
    """Return the values as bars; the tallest has the height of a line."""
    most = max(values, default=0)
    if most <= 0:
        return bars[0] * len(values)
    return "".join(bars[min(7, int(value / most * 7.999))] for value in values)


class View:
    """A live screen, and the past values for its sparklines.

    Parameters
    ----------
    console : rich.console.Console, optional
        Where it is drawn.
    sort : str, optional
        The order of a process's caches, one of SORTS.
    text : str, optional
        Only what has this in its name is shown.

    """

    # Arrows as terminals send them, in both of their modes
    _UP, _DOWN = ("k", "\x1b[A", "\x1bOA"), ("j", "\x1b[B", "\x1bOB")
    KEYS = (*_UP, *_DOWN, " ", "s", "/")

    def __init__(
        self, console: Console | None = None, sort: str | None = None, text: str = ""
    ) -> None:
        self._console = console or Console()
        self._sort = sort
        self._text = text
        self.is_typing = False  # the text: then every key belongs to it
        self._processes: list[ProcessFigures] = []
        self._remembers = True
        self._window = Window()
        self._live = Live(console=self._console, auto_refresh=False, screen=False)
        self._bars = _BARS if self._console.encoding.startswith("utf") else _ASCII_BARS
        self._past: dict[tuple[int, str, str], deque[float]] = {}

    def __enter__(self) -> View:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.stop()

    def show(self, processes: list[ProcessFigures]) -> None:
        """Draw over the previous drawing."""
        self._processes = processes
        self._window.content = self.render(processes)
        cursor = "_ (Enter: keep, Esc: show all)" if self.is_typing else ""
        shown = printable(self._text)
        self._window.note = f"filter: {shown}{cursor}" if self._text or self.is_typing else ""
        self._live.update(self._window, refresh=True)

    def press(self, key: str) -> None:
        """Do what one of KEYS is for, or what is typed, and draw the same figures again."""
        if self.is_typing:
            self._type(key)
        elif key == "/":
            self.is_typing = True
        elif key == "s":
            orders = (None, *SORTS)
            self._sort = orders[(orders.index(self._sort) + 1) % len(orders)]
        elif key == " ":
            self._window.scroll(max(1, self._console.height - 2))
        else:
            self._window.scroll(-1 if key in self._UP else 1)
        self._remembers = False
        try:
            self.show(self._processes)
        finally:
            self._remembers = True

    def _type(self, typed: str) -> None:
        if typed.startswith("\x1b"):  # Esc; an arrow's code begins so as well, and changes nothing
            if typed == "\x1b":
                self.is_typing, self._text = False, ""
            return
        for character in typed:
            if character in "\r\n":
                self.is_typing = False
                return
            if character in "\x7f\b":
                self._text = self._text[:-1]
            elif character.isprintable():
                self._text += character

    def print(self, processes: list[ProcessFigures]) -> None:
        """Draw once."""
        self._console.print(self.render(processes))

    def render(self, processes: list[ProcessFigures]) -> Group:
        """Return the panels."""
        alive = {0, *(process.pid for process in processes)}  # 0: services
        self._past = {key: past for key, past in self._past.items() if key[0] in alive}
        if not processes:
            return Group(Text("no process of this user uses vrange"))
        processes = filtered(processes, self._text) if self._text else processes
        if not processes:
            return Group(Text(f"no process or cache has {printable(self._text)!r} in its name"))
        panels = []
        for service in services_of(processes):
            if len(service.processes) > 1:
                panels.append(self._service(service))
            panels += [self._panel(process) for process in service.processes]
        return Group(*panels)

    def _service(self, service: ServiceFigures) -> Panel:
        """Return what the processes have together; their own panels follow."""
        count = len(service.processes)
        return Panel(
            self._accounts(0, service.accounts, service.name),
            title=Text(printable(f"{service.name}, {count} processes together")),
            title_align="left",
            border_style="bold",
        )

    def _panel(self, process: ProcessFigures) -> Panel:
        service = f" of {process.service}" if process.service else ""
        parts = [self._head(process)]
        if process.accounts:
            parts.append(self._accounts(process.pid, process.accounts))
        if any(process.latencies.values()):
            parts.append(_latencies(process))
        return Panel(
            Group(*parts),
            # Text, not str: rich would take brackets in a name for markup.
            title=Text(printable(f"{process.name}{service}, process {process.pid}")),
            title_align="left",
        )

    def _head(self, process: ProcessFigures) -> Table:
        table = Table.grid(padding=(0, 2))
        usage = (
            "?" if process.memory_usage_bytes is None else format_bytes(process.memory_usage_bytes)
        )
        limit = (
            "none"
            if process.memory_limit_bytes is None
            else format_bytes(process.memory_limit_bytes)
        )
        past = self._remember(process.pid, "", "purged", process.purged_bytes_per_second)
        table.add_row("rung", process.rung or "not decided yet")
        table.add_row("memory", f"{usage} of {limit}")
        table.add_row("purged", f"{format_bytes(process.purged_bytes_per_second)}/s", past)
        table.add_row(
            "refaults",
            f"{process.refaults_per_second:.0f}/s",
            self._remember(process.pid, "", "refaults", process.refaults_per_second),
        )
        if process.stack_limit_bytes or process.stack_returned_bytes:
            table.add_row(
                "deep stacks",
                f"{format_bytes(process.stack_high_water_bytes)} of "
                f"{format_bytes(process.stack_limit_bytes)} used at most, "
                f"{format_bytes(process.stack_returned_bytes)} returned",
            )
        return table

    def _accounts(self, pid: int, accounts: list[AccountFigures], service: str = "") -> Table:
        table = Table(box=None, padding=(0, 1), header_style="bold")
        name = "name" if self._sort is None else f"name (by {self._sort})"
        table.add_column(name, overflow="ellipsis", no_wrap=True, min_width=_NAME_COLUMNS)
        shown = [self._console.width >= least for _, least in _FIGURES]
        for title, _ in compress(_FIGURES, shown):
            table.add_column(title, justify="right" if title else "left", no_wrap=True)
        for account in sorted_by(accounts, self._sort):
            figures = compress(self._account(pid, account, service), shown)
            table.add_row(Text(printable(account.name)), *figures)
        return table

    def _account(self, pid: int, account: AccountFigures, service: str) -> list[str]:
        states = ("pinned", "hot", "idle", "offered")
        sizes = [_short(account.bytes[state]) for state in states]
        key = f"{service}\0{account.name}" if service else account.name
        asked = self._remember(pid, key, "asked", account.requests_per_second)
        hits = self._remember(pid, key, "hits", account.hit_ratio or 0)
        return [
            *sizes,
            f"{account.requests_per_second:.0f}",
            asked,
            "" if account.hit_ratio is None else f"{account.hit_ratio:.1%}",
            hits,
            f"{account.purged_per_second:.0f}",
            _duration(account.regenerate_p50_seconds),
        ]

    def _remember(self, pid: int, name: str, what: str, value: float) -> str:
        past = self._past.setdefault((pid, name, what), deque(maxlen=_REMEMBERED))
        if self._remembers:
            past.append(value)
        return sparkline(past, self._bars)


def _latencies(process: ProcessFigures) -> Table:
    table = Table(box=None, padding=(0, 1), header_style="bold")
    for title in ("latency", "", "count", "p50", "p99"):
        table.add_column(title, justify="left" if title in ("latency", "") else "right")
    for metric, found in process.latencies.items():
        for which, told in found.items():
            table.add_row(
                metric.replace("_", "-"),
                which,
                str(told["count"]),
                _duration(told["p50_seconds"]),
                _duration(told["p99_seconds"]),
            )
    return table


def _short(count: int) -> str:
    number, unit = format_bytes(count).split()
    return f"{float(number):.3g}{unit[0]}" if count else "0"


def _duration(seconds: float | None) -> str:
    return "" if seconds is None else duration(seconds)
