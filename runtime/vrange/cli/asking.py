"""Ask a running process to trim, or what holds its memory: the way that the process allows."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator
from typing import Any

from vrange._counters.ask import NotListeningError, NotPreparedError, ask
from vrange._counters.processes import running
from vrange.cli.options import seconds
from vrange.cli.remote import ask_remotely
from vrange.errors import VrangeError

__all__ = ["add_arguments", "answer_of", "print_answer"]

_PID_MOST = (1 << 31) - 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `vrange trim` and `vrange why` have in common."""
    parser.add_argument("pid", type=int, help="the process")
    parser.add_argument(
        "--depth",
        choices=("light", "deep", "holes"),
        default="deep",
        help="light: libc and libraries' pools; deep: the interpreter's free pools too (default); "
        "holes: also holes in pools that are in use",
    )
    parser.add_argument("--json", action="store_true", help="print an object")
    parser.add_argument(
        "--timeout",
        metavar="TIME",
        type=seconds,
        default=60.0,
        help="how long the process may take to answer: 30s, 5m, never to give up (default 1m)",
    )


def answer_of(args: argparse.Namespace, request: dict[str, Any]) -> dict[str, Any]:
    """Return the answer of the process. Raise VrangeError, with what to do, if there is none."""
    request = {**request, "depth": args.depth}
    patience = args.timeout or math.inf  # never
    try:
        return ask(args.pid, request, patience)
    except NotListeningError as unprepared:
        refusal, answer = ask_remotely(args.pid, request, patience)
        if answer is None and not (0 < args.pid <= _PID_MOST and running(args.pid)):
            raise VrangeError(f"there is no process {args.pid}") from None
        if answer is None and not isinstance(unprepared, NotPreparedError):
            raise  # to be started by `vrange run` would not help it
        if answer is None:
            raise VrangeError(
                f"{unprepared}. Start the program by `vrange run`, which prepares it. Without "
                f"that, only CPython 3.14 and later can be asked, and {refusal}"
            ) from None
        return answer


def print_answer(
    args: argparse.Namespace,
    told: dict[str, Any],
    lines: Callable[[int, dict[str, Any]], Iterator[str]],
) -> None:
    """Print an answer as an object (`--json`), or as `lines` words it."""
    print(json.dumps({"pid": args.pid, **told}) if args.json else "\n".join(lines(args.pid, told)))
