"""`vrange run`: run an unchanged Python program with vrange switched on.

  vrange run [options] program.py [arguments]
  vrange run [options] -m module [arguments]
  vrange run [options] -c code [arguments]
  vrange run [options] command [arguments]      such as gunicorn, pytest, python, ./program

These are on in the program: large blocks of every library and array data of NumPy from vrange's
heap, the memory pressure watcher, trims of the heap at intervals, trims of the stacks of waiting
executor threads, and the counters that `vrange top` shows. Options come before the program;
everything after it belongs to the program.

The process becomes the program, with the same process id and nothing in between. Only with
--report, --json or --plot does vrange stay as the parent process: it measures, and passes on
signals and the program's exit status. A program file is run by the interpreter that vrange is
installed for. A command uses its own interpreter; if that one can't import vrange, it says so and
runs without vrange.
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from vrange._autostart.settings import Settings
from vrange.cli.options import listen_address, seconds
from vrange.cli.printable import printable
from vrange.cli.run.deep import raise_stack_limit, stack
from vrange.cli.run.environment import environment
from vrange.cli.run.target import CannotRunError, Target, find_target
from vrange.errors import VrangeError
from vrange.malloc import preload, refuse_sanitizer

__all__ = ["add_parser", "run"]

_WITH_VALUE = ("--heap", "--trim-every", "--trim", "--metrics", "--json", "--plot")
_PICTURES = (".png", ".svg")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `vrange run`."""
    parser = subparsers.add_parser(
        "run",
        help="run an unchanged Python program with vrange on",
        usage="vrange run [options] program.py | -m module | -c code | command [arguments ...]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # split() must know which options take a value
        epilog="Exit status: the program's own; 127 if there is no such program, 126 if it can't "
        "be executed,\n2 if vrange refuses an option. docs/run.md has the details.",
    )
    on = parser.add_argument_group("what is switched on")
    on.add_argument(
        "--heap",
        choices=("pymalloc", "libc"),
        default="pymalloc",
        help="the allocator of Python's objects: pymalloc, Python's own (default), whose free "
        "pools are returned; or libc (PYTHONMALLOC=malloc), which returns most and is slower",
    )
    on.add_argument(
        "--malloc",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="large blocks of every library from vrange's heap (LD_PRELOAD; see docs/malloc.md). "
        "On where nothing is against it; --malloc refuses to run without, --no-malloc: never",
    )
    on.add_argument(
        "--rss",
        action="store_true",
        help="return freed blocks that were idle for a second, instead of offering them: for "
        "programs that are judged by their resident set",
    )
    on.add_argument("--no-numpy", action="store_true", help="leave NumPy's allocator alone")
    on.add_argument("--no-watch", action="store_true", help="no memory pressure watcher")
    on.add_argument("--no-stacks", action="store_true", help="leave executors' stacks alone")
    on.add_argument(
        "--trim-every",
        metavar="TIME",
        type=seconds,
        help="how often the heap is trimmed: 30s, 5ms, never. Default: every 5 s while the program "
        "works, less often if trims take more than 1%% of the time",
    )
    on.add_argument(
        "--trim",
        choices=("light", "deep", "holes"),
        default="deep",
        help="light: libc and libraries' pools; deep: the interpreter's free pools too (default); "
        "holes: also holes in pools that are in use",
    )
    on.add_argument(
        "--metrics",
        metavar="[ADDR:]PORT",
        type=listen_address,
        help="serve /metrics for Prometheus, by default on 127.0.0.1",
    )
    on.add_argument(
        "--deep",
        metavar="SIZE",
        nargs="?",
        const="auto",
        type=stack,
        help="recursion as deep as memory allows, in the main thread, in every thread that the "
        "program starts, and in its workers; --deep=SIZE bounds each stack (default 4GiB)",
    )
    on.add_argument(
        "--children",
        action="store_true",
        help="also in interpreters that the program starts; forked children have it anyway",
    )
    tell = parser.add_argument_group("what is reported afterwards")
    tell.add_argument("--report", action="store_true", help="a summary on standard error")
    tell.add_argument(
        "--compare",
        action="store_true",
        help="run the program twice, first without vrange, and print a table of both runs on "
        "standard error",
    )
    tell.add_argument("--json", metavar="FILE", help="the summary as JSON")
    tell.add_argument(
        "--plot", metavar="FILE", help="a picture of memory over time, .png or .svg (matplotlib)"
    )


def split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split options from the command line to run, which begins at -m, -c, -- or a non-option."""
    at = 1
    while at < len(words):
        word = words[at]
        if not word.startswith("-") or word in ("-", "--") or word[:2] in ("-m", "-c"):
            break
        at += 2 if word in _WITH_VALUE else 1
    return list(words[:at]), list(words[at:])


def run(args: argparse.Namespace) -> int:
    """Run the program. Return its exit status, unless this process becomes the program."""
    _check(args)
    try:
        target = find_target(args.rest)
    except CannotRunError as error:
        return _refuse(error)
    refusal = None if args.malloc is False else _malloc_refusal(target)
    if args.malloc and refusal is not None:
        raise VrangeError(refusal)
    if (option := target.skips_start()) is not None:
        on = "nothing is on" if args.malloc is False or refusal else "only malloc is on"
        print(
            f"vrange run: {option} has {Path(target.path).name} skip what starts vrange in it, so "
            f"{on}",
            file=sys.stderr,
        )
    reported = bool(args.report or args.json or args.plot or args.compare)
    try:
        if reported:
            _supervised(args, target, refusal)
        _as_the_program(args, target, refusal)
    except OSError as error:
        refused = CannotRunError.of(target, error)
        if refused is None:
            raise
        return _refuse(refused)


def _as_the_program(args: argparse.Namespace, target: Target, refusal: str | None) -> NoReturn:
    variables = environment(_settings(args, refusal, None), os.environ)
    sys.stdout.flush()
    _as_before_python()
    os.execve(target.path, target.arguments, variables)


def _supervised(args: argparse.Namespace, target: Target, refusal: str | None) -> NoReturn:
    # What only this needs is imported here: a program that is run plainly begins sooner.
    import shutil

    from vrange.cli.run.supervise import Run, supervise

    records = _directory_for_records()
    try:
        plain = Run(target.path, target.arguments, os.environ, _stack_limit())
        variables = environment(_settings(args, refusal, records), os.environ)
        sys.stdout.flush()
        # --deep has raised the limit, and the plain run is without it.
        within = Run(target.path, target.arguments, variables, _stack_limit())
        supervise(
            [plain, within] if args.compare else [within],
            records,
            {
                "arguments": target.arguments,
                **{name: getattr(args, name) for name in ("report", "compare", "json", "plot")},
            },
            lazyfree=bool(args.json or args.plot or args.compare),
        )
    finally:
        shutil.rmtree(records, ignore_errors=True)


def _directory_for_records() -> str:
    """Make it; where no file system of the usual ones can be written to, in memory."""
    import tempfile

    refusals = []
    for place in (None, "/dev/shm"):
        try:
            return tempfile.mkdtemp(prefix="vrange-run-", dir=place)
        except OSError as error:
            refusals.append(str(error))
    raise VrangeError(f"a report needs a directory that can be written to: {'; '.join(refusals)}")


def _stack_limit() -> tuple[int, int]:
    return resource.getrlimit(resource.RLIMIT_STACK)


def _settings(args: argparse.Namespace, refusal: str | None, records: str | None) -> Settings:
    return Settings(
        heap=args.heap,
        malloc=args.malloc is not False and refusal is None,
        malloc_refused=refusal,
        rss=args.rss,
        numpy=not args.no_numpy,
        watch=not args.no_watch,
        stacks=not args.no_stacks,
        trim_every=args.trim_every,
        depth=args.trim,
        metrics=args.metrics,
        children=args.children,
        records=records,
        deep=None if args.deep is None else raise_stack_limit(args.deep),
    )


def _malloc_refusal(target: Target) -> str | None:
    """Return why vrange's malloc can't serve this program."""
    try:
        preload(os.environ)
        refuse_sanitizer(target.path)
    except VrangeError as error:
        return str(error)
    return None


def _refuse(error: CannotRunError) -> int:
    print(f"vrange run: {printable(str(error))}", file=sys.stderr)
    return error.status


def _check(args: argparse.Namespace) -> None:
    """Refuse, before the program starts, what could not be done after it."""
    for option, name in (("--json", args.json), ("--plot", args.plot)):
        if name and Path(name).is_dir():
            raise VrangeError(f"{option} {name}: this is a directory")
        if name and not _can_be_written(Path(name)):
            raise VrangeError(f"{option} {name}: its directory is missing or can't be written to")
    if args.plot:
        if Path(args.plot).suffix.lower() not in _PICTURES:
            raise ValueError(f"--plot takes a file that ends in .png or .svg, not {args.plot}")
        from importlib.util import find_spec

        if find_spec("matplotlib") is None:
            raise VrangeError('--plot needs matplotlib: pip install "vrange[plot]"')


def _can_be_written(file: Path) -> bool:
    return os.access(file if file.exists() else file.absolute().parent, os.W_OK)


def _as_before_python() -> None:
    """Reset the signals that this interpreter ignores, because exec would keep them ignored."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
