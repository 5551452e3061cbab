"""The `vrange` command. Each module in here that has `add_parser` is a subcommand.

A subcommand has `add_parser(subparsers)` and `run(args)`, which returns the exit status. So a new
subcommand is one new file. A subcommand whose argument is another command line also has
`split(words)`: it separates the subcommand's own words from that command line, which `run` finds as
`args.rest`. Only the subcommand that is called is imported, unless it says `DESCRIBES_ALL = True`.
"""

from __future__ import annotations

import argparse
import os
import pkgutil
import sys
from collections.abc import Sequence
from importlib import import_module

import vrange
from vrange.cli.printable import prepare_output, printable
from vrange.errors import VrangeError

__all__ = ["main"]

_INTERRUPTED = 130  # the exit status with which shells report a process that SIGINT ended


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line, and return the exit status.

    Parameters
    ----------
    argv : sequence of str, optional
        The words after `vrange`. The default is this process's own command line.

    Returns
    -------
    int
        0: done. 1: done, but the outcome isn't what it should be. 2: it can't be run, and standard
        error says why. 130: interrupted.

    Examples
    --------
    >>> main(["doctor"])  # doctest: +SKIP
    0

    """
    parser = argparse.ArgumentParser(
        prog="vrange", description="Caches whose memory the kernel may take back at any moment."
    )
    parser.add_argument("--version", action=_Version, nargs=0)
    subparsers = parser.add_subparsers(dest="command", required=True)
    words = list(sys.argv[1:] if argv is None else argv)
    commands = {}
    for name in _names(words):
        found = import_module(f"{__name__}.{name}")
        if hasattr(found, "add_parser"):  # else a tool of theirs
            commands[name] = found
            found.add_parser(subparsers)
    split = getattr(commands.get(words[0]), "split", None) if words else None
    rest: list[str] = []
    if split is not None:
        words, rest = split(words)
    args, unknown = parser.parse_known_args(words, argparse.Namespace(rest=rest))
    if unknown:  # argparse would show the usage of `vrange` alone
        subparsers.choices[args.command].error(f"unrecognized arguments: {' '.join(unknown)}")
    prepare_output()
    try:
        status: int = commands[args.command].run(args)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has closed the pipe. Python flushes once more at exit, so give it a sink.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return _INTERRUPTED
    except (VrangeError, OSError, ValueError) as error:
        print(f"vrange {args.command}: {printable(str(error))}", file=sys.stderr)
        return 2
    return status


def _names(words: Sequence[str]) -> list[str]:
    """Return the modules in here that a command line needs: its subcommand's, or all of them.

    `vrange run` would pay for what each of the others imports, before the program begins.
    """
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    names = [name for name in names if not name.startswith("_")]
    if not words or words[0] not in names:
        return names
    found = import_module(f"{__name__}.{words[0]}")
    return names if getattr(found, "DESCRIBES_ALL", False) else [words[0]]


class _Version(argparse.Action):
    """Print the version and exit; argparse takes a string, and finding it takes 30 ms."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(f"vrange {vrange.__version__}")
        parser.exit()
