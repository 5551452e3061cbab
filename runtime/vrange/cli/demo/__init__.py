"""`vrange demo`: a cache that gives way beside a growing application, and two that don't.

The volatile cache, an unbounded dict, and an LRU that is sized for the worst hour get the same
requests. Each runs in a process of its own under the same memory limit. An application in the same
process takes most of that limit for a while. Every figure shown was measured in these runs.
"""

from __future__ import annotations

import argparse
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType

from vrange.cli.demo.child import Child
from vrange.cli.demo.messages import Contender, Job, Result, Sample, Sizing
from vrange.cli.demo.outcome import Run, summary
from vrange.cli.demo.view import View, make_view
from vrange.cli.memory_cgroup import MemoryCgroup
from vrange.errors import VrangeError
from vrange.sizes import parse_bytes

__all__ = ["add_parser", "run"]

_SECONDS = 50.0
_PHASES_IN_SECONDS = 12
_FILLS_IN_SECONDS = 5  # filling takes at most 1/5 of the time; it ends once there are enough values
_FILL_SECONDS_LEAST = 6.0
_QUICK_SECONDS, _QUICK_LIMIT = 12.0, "128MiB"
_LIMIT = "256MiB"
_LEAST_LIMIT = 96 << 20  # an interpreter with NumPy needs 40 MiB of that
_INTERPRETER_BYTES = 48 << 20
_VALUES_SHARE = 0.6  # of what the interpreter leaves: values fit, but not beside the application
_LRU_SHARE = 0.8  # of what the application leaves: freed memory is fragmented


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `vrange demo`."""
    parser = subparsers.add_parser(
        "demo",
        help="show a cache beside an application that takes its memory and returns it",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seconds", type=float, help=f"about how long; default {_SECONDS:g}")
    parser.add_argument("--limit", help=f"memory limit of each run; default {_LIMIT}")
    parser.add_argument(
        "--quick", action="store_true", help=f"{_QUICK_SECONDS:g} seconds and {_QUICK_LIMIT}"
    )
    parser.add_argument(
        "--no-cgroup",
        action="store_true",
        help="don't make a memory cgroup; have the kernel discard what a limit would reclaim",
    )
    parser.add_argument("--plain", action="store_true", help="lines instead of a live table")


def run(args: argparse.Namespace) -> int:
    """Run the three contenders and show them side by side.

    Return 0 if the volatile cache finished with every value right, else 1.
    """
    seconds = (_QUICK_SECONDS if args.quick else _SECONDS) if args.seconds is None else args.seconds
    limit_bytes = parse_bytes(args.limit or (_QUICK_LIMIT if args.quick else _LIMIT), "--limit")
    if seconds <= 0:
        raise ValueError(f"--seconds must be more than 0, not {seconds:g}")
    if limit_bytes < _LEAST_LIMIT:
        raise ValueError(f"--limit must be {_LEAST_LIMIT >> 20}MiB or more, not {args.limit}")
    try:
        import numpy  # noqa: F401
    except ImportError:
        raise VrangeError('the demo needs NumPy: pip install "vrange[numpy,cli]"') from None
    refusal = "--no-cgroup" if args.no_cgroup else MemoryCgroup.unavailable()
    view = make_view(limit_bytes, refusal, plain=args.plain)

    value_bytes = int((limit_bytes - _INTERPRETER_BYTES) * _VALUES_SHARE)
    job = Job(
        "vrange",
        limit_bytes,
        refusal is None,
        value_bytes,
        phase_seconds=seconds / _PHASES_IN_SECONDS,
        fill_seconds=max(seconds / _FILLS_IN_SECONDS, _FILL_SECONDS_LEAST),
    )
    runs: list[Run] = []
    with _terminable(), view:
        runs.append(_follow(job, view))
        sizing = runs[0].sizing
        if sizing is not None:
            left = max(0, limit_bytes - sizing.base_bytes - sizing.app_bytes)
            others: tuple[Contender, ...] = ("dict", "LRU")
            for contender in others:
                job = replace(
                    job,
                    contender=contender,
                    values=sizing.values,
                    app_bytes=sizing.app_bytes,
                    lru_bytes=int(left * _LRU_SHARE) if contender == "LRU" else 0,
                )
                runs.append(_follow(job, view))
    print()
    print(summary(runs))
    ending = runs[0].ending
    wrong = sum(sample.wrong for one in runs for sample in one.phases.values())
    return 0 if ending is not None and ending.finished and not wrong else 1


def _follow(job: Job, view: View) -> Run:
    """Run one contender to its end, and show its messages."""
    this = Run(job.contender, lru_bytes=job.lru_bytes)
    view.begin(job)
    with Child(job) as child:
        for message in child.messages():
            match message:
                case Sample():
                    this.phases[message.phase] = message
                    this.most_bytes = max(this.most_bytes, message.usage_bytes)
                    view.sample(job, message)
                case Sizing():
                    this.sizing = message
                    view.sizing(job, message)
                case Result():
                    this.latencies = message.latencies
        this.ending = child.ending
    view.end(job, this)
    return this


@contextmanager
def _terminable() -> Iterator[None]:
    """Make SIGTERM end this process as Ctrl-C does, so that every `finally` runs."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
