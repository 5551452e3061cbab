"""The `vrange` command. Each module in here whose name begins with a letter is a subcommand.

A subcommand has `add_parser(subparsers)` and `run(args)`, which returns the exit status. So a new
one is a new file and nothing else. One that takes a command line as its argument has `split(words)`
too: what is its own, and what is that command line, which `run` finds as `args.rest`.
"""

from __future__ import annotations

import argparse
import os
import pkgutil
import sys
from collections.abc import Sequence
from importlib import import_module

from vrange.errors import VrangeError

__all__ = ["main"]

_INTERRUPTED = 130  # what shells say of a process that SIGINT ended


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv`, this process's own by default, and return the exit status.

    0: done. 1: done, and the outcome isn't what it should be. 2: it can't be run, and standard
    error says why. 130: interrupted.

    Example:
        >>> main(["doctor"])  # doctest: +SKIP
        0

    """
    parser = argparse.ArgumentParser(
        prog="vrange", description="Caches whose memory the kernel may take back at any moment."
    )
    subparsers = parser.add_subparsers(dest="command", required=True)
    commands = {}
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda module: module.name):
        if not module.name.startswith("_"):
            commands[module.name] = import_module(f"{__name__}.{module.name}")
            commands[module.name].add_parser(subparsers)
    words = list(sys.argv[1:] if argv is None else argv)
    split = getattr(commands.get(words[0]), "split", None) if words else None
    rest: list[str] = []
    if split is not None:
        words, rest = split(words)
    args = parser.parse_args(words, argparse.Namespace(rest=rest))
    try:
        status: int = commands[args.command].run(args)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read us has seen enough. Python flushes once more at exit, into nowhere then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return _INTERRUPTED
    except (VrangeError, OSError, ValueError) as error:
        print(f"vrange {args.command}: {error}", file=sys.stderr)
        return 2
    return status
