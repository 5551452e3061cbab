"""`vrange top`: caches, stacks and latencies of any process that uses vrange, from outside.

It reads the stats segments of this user's processes. It neither asks nor slows a process, so it
shows a hanging process as well as a running one. Rates cover the last interval, latencies a
process's whole life. Keys of the live view: q ends it, s sorts the caches by another figure, /
shows only the names that have what is typed, the arrows, or j and k, and space scroll.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from vrange._counters.processes import living
from vrange._counters.segment import Snapshot
from vrange.cli.top.figures import SORTS, ProcessFigures, figures, filtered
from vrange.errors import VrangeError

if TYPE_CHECKING:
    from vrange.cli.top.view import View

__all__ = ["add_parser", "run"]


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `vrange top`."""
    parser = subparsers.add_parser(
        "top",
        help="show caches, stacks and latencies of any process, live",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("pid", type=int, nargs="?", help="one process; by default all")
    parser.add_argument("--interval", type=float, default=1.0, help="seconds between two readings")
    parser.add_argument(
        "--sort", choices=SORTS, help="the order of a process's caches, the largest first"
    )
    parser.add_argument(
        "--filter", default="", metavar="TEXT", help="only processes and caches with it in the name"
    )
    parser.add_argument("--once", action="store_true", help="show one interval and exit")
    parser.add_argument("--json", action="store_true", help="print an array of processes each time")


def run(args: argparse.Namespace) -> int:
    """Show until q is pressed, or once. Return 1 if no process, or not the one named, is found."""
    if not 0.01 <= args.interval <= 3600:
        raise ValueError(f"--interval must be 0.01 to 3600 seconds, not {args.interval:g}")
    if args.json:
        for found in _looks(args.pid, args.interval):
            chosen = filtered(found, args.filter) if args.filter else found
            print(json.dumps([asdict(process) for process in chosen]), flush=True)
            if args.once:
                return 0 if found else 1
        return 1
    view = _view(args.sort, args.filter)
    if args.once:
        found = next(_looks(args.pid, args.interval))
        view.print(found)
        return 0 if found else 1
    from vrange.cli.top.keys import Keys

    with Keys() as keys, view:

        def wait(seconds: float) -> bool:
            until = time.monotonic() + seconds
            while (left := until - time.monotonic()) > 0:
                typing = view.is_typing
                pressed = keys.wait(left, None if typing else ("q", "Q", *view.KEYS))
                if pressed in ("q", "Q") and not typing:
                    return True
                if pressed:
                    view.press(pressed)
            return False

        for found in _looks(args.pid, args.interval, wait):
            view.show(found)
            if args.pid is not None and not found:
                break
        else:
            return 0
    print(f"process {args.pid} has ended")
    return 0


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return False


def _looks(
    pid: int | None, interval: float, wait: Callable[[float], bool] = _sleep
) -> Iterator[list[ProcessFigures]]:
    """Yield the figures of each interval, until `wait` returns True."""
    before = _snapshots(pid)
    if pid is not None and not before:
        raise VrangeError(
            f"process {pid} is none of this user's that uses vrange and lets itself be seen"
        )
    looked = time.monotonic()
    while not wait(interval):
        now, at = _snapshots(pid), time.monotonic()
        seconds, looked = at - looked, at
        yield [figures(before.get(key, one), one, seconds) for key, one in now.items()]
        before = now


def _snapshots(pid: int | None) -> dict[tuple[int, int], Snapshot]:
    return {(one.pid, one.start_ticks): one for one in living() if pid is None or one.pid == pid}


def _view(sort: str | None, text: str) -> View:
    try:
        from vrange.cli.top.view import View
    except ImportError:
        raise VrangeError("the view needs rich (pip install vrange[cli]); --json doesn't") from None
    return View(sort=sort, text=text)
