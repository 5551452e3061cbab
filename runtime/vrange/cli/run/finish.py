"""What `vrange run` does once the program that it watched has ended: it tells, and ends alike."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vrange.cli.printable import prepare_output, printable
from vrange.cli.run.compare import as_table, compared
from vrange.cli.run.report import Report, as_json, as_text
from vrange.cli.run.supervise import Ending, end_alike, endings
from vrange.cli.run.target import CannotRunError, Target
from vrange.errors import VrangeError

__all__ = ["finish"]

_BY_USER = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def finish(directory: str, number: int) -> int:
    """Report what watch.py left in a descriptor and processes in `directory`, and remove both.

    A report that fails, for example because the disk is full, changes nothing about how the program
    ended.

    Returns
    -------
    int
        The program's exit status, unless this process ends by the program's signal.

    """
    prepare_output()
    try:
        found, kept = _endings(number)
        _tell(kept, found, Path(directory))
    except CannotRunError as error:
        _say(f"vrange run: {printable(str(error))}")
        return error.status
    except (VrangeError, OSError, ValueError) as error:
        _say(f"vrange run: {printable(str(error))}")
        return 2
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return end_alike(found[-1])


def _say(text: str) -> None:
    try:
        print(text, file=sys.stderr)
    except OSError:
        # Its reader has gone, or its disk is full. Python flushes once more at exit, and would end
        # with another status.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _endings(number: int) -> tuple[list[Ending], dict[str, Any]]:
    try:
        return endings(number)
    except OSError as error:
        refused = CannotRunError.of(Target(str(error.filename), []), error)
        raise refused or error from None


def _tell(kept: dict[str, Any], found: list[Ending], directory: Path) -> None:
    if kept["compare"]:
        if found[0].signal in _BY_USER:
            return
        _say(as_table(compared(found[0], found[1])))
    report = Report.gather(kept["arguments"], found[-1], directory)
    if kept["json"]:
        _write(kept["json"], lambda file: Path(file).write_text(as_json(report)))
    if kept["plot"]:
        _write(kept["plot"], lambda file: _draw(report, file))
    if kept["report"]:
        _say(as_text(report))


def _write(file: str, write: Callable[[str], object]) -> None:
    try:
        write(file)
    except Exception as error:  # matplotlib's, too
        _say(f"vrange run: {printable(f'{file}: {error}')}")


def _draw(report: Report, file: str) -> None:
    from vrange.cli.run.picture import draw

    draw(report, file)
