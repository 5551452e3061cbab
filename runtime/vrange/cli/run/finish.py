"""What `vrange run` does once the program that it watched has ended: it tells, and ends alike."""

from __future__ import annotations

import shutil
import signal
import sys
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

    Returns
    -------
    int
        The program's exit status, unless this process ends by the program's signal.

    """
    prepare_output()
    try:
        found, kept = _endings(number)
        _tell(kept, found, Path(directory))
        sys.stdout.flush()
    except CannotRunError as error:
        print(f"vrange run: {printable(str(error))}", file=sys.stderr)
        return error.status
    except (VrangeError, OSError, ValueError) as error:
        print(f"vrange run: {printable(str(error))}", file=sys.stderr)
        return 2
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return end_alike(found[-1])


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
        print(as_table(compared(found[0], found[1])), file=sys.stderr)
    report = Report.gather(kept["arguments"], found[-1], directory)
    if kept["json"]:
        Path(kept["json"]).write_text(as_json(report))
    if kept["plot"]:
        from vrange.cli.run.picture import draw

        draw(report, kept["plot"])
    if kept["report"]:
        print(as_text(report), file=sys.stderr)
