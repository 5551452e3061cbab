"""`vrange why`: what a running process's memory is held by, and what a trim would return of it.

The process itself finds out, on a thread of its own, and changes nothing. It has to be prepared: it
was started by `vrange run`, or it uses vrange.

  live      in use, as far as vrange can see
  cached    values of vrange's caches and blocks of its arrays that nothing holds. The kernel
            reclaims these when it needs memory, and a trim leaves them
  others    what each allocator keeps and nothing uses: `vrange trim` returns it
  offered   how much of all this the kernel can take now without asking (LazyFree)

glibc's part is computed from the sizes of its freed blocks, and is exact on average only.
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
    """Add `vrange why`."""
    parser = subparsers.add_parser(
        "why",
        help="what a running process's memory is held by, and what a trim would return",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Ask, and print the answer."""
    told = answer_of(args, {"what": "why"})
    told["trim"] = sum(told["unused"].values())
    print_answer(args, told, _lines)
    return 0


def _lines(pid: int, told: dict[str, Any]) -> Iterator[str]:
    rss = told["rss"]

    def line(name: str, nbytes: int, note: str = "") -> str:
        share = nbytes / rss if rss else 0.0
        return f"  {printable(name):<12} {format_bytes(nbytes):>10} {share:>4.0%}  {note}".rstrip()

    yield f"process {pid}: {format_bytes(rss)} resident"
    yield line("live", told["live"], "in use, as far as vrange can see")
    yield line("cached", told["cached"], "values that nothing holds: a trim leaves them")
    for name, nbytes in sorted(told["unused"].items(), key=lambda one: -one[1]):
        yield line(name, nbytes, "held and unused")
    for name, why in told["unknown"].items():
        yield f"  {printable(name):<12} {'unknown':>10}       {printable(str(why))}"
    yield line("offered", told["offered"], "of all this, the kernel's at any moment")
    yield line("trim", told["trim"], "what `vrange trim` would return")
