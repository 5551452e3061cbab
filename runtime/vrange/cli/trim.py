"""`vrange trim`: make a running process return the memory that its allocators hold unused.

The process does it itself, on a thread of its own, as `vrange.heap.trim(deep=True)` does. It has to
be prepared: it was started by `vrange run`, or it uses vrange. A CPython of 3.14 or later can be
asked without that; then its own interpreter's memory is left alone.

Cached values are left alone. The kernel reclaims those when it needs memory.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from vrange.cli.asking import add_arguments, answer_of, print_answer
from vrange.cli.printable import printable
from vrange.sizes import format_bytes

__all__ = ["add_parser", "run"]


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `vrange trim`."""
    parser = subparsers.add_parser(
        "trim",
        help="make a running process return memory that it holds unused",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    parser.add_argument(
        "--collect",
        action="store_true",
        help="collect garbage first, which runs finalizers on the thread that trims",
    )


def run(args: argparse.Namespace) -> int:
    """Ask for a trim, and print what it returned."""
    told = answer_of(args, {"what": "trim", "collect": args.collect})
    print_answer(args, told, _lines)
    return 0


def _lines(pid: int, told: dict[str, Any]) -> Iterator[str]:
    before, now = told["rss_before"], told["rss"]
    yield (
        f"process {pid}: {format_bytes(max(0, before - now))} returned in {told['seconds']:.3f} s; "
        f"resident {format_bytes(before)}, now {format_bytes(now)}"
    )
    returned = sorted(told["returned"].items(), key=lambda one: -one[1])
    for name, nbytes in returned:
        yield f"  {printable(name):<12} {format_bytes(nbytes)}"
    for name, why in told["refused"].items():
        yield f"  {printable(name):<12} refused: {printable(str(why))}"
