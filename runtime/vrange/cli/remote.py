"""Ask a CPython of 3.14 or later that was not prepared, through `sys.remote_exec`.

The request must come from an interpreter of the same version, so the process's own executable makes
it. The process then runs a script, which starts a thread that answers with the means of the
standard library alone, because the process need not have vrange.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vrange._counters.processes import running
from vrange.errors import VrangeError

__all__ = ["ask_remotely"]

_SCRIPT = Path(__file__).with_name("remote_script.py")
_LOOK_SECONDS = 0.02
_START_SECONDS = 60.0  # within which another interpreter starts
_TOO_OLD, _REFUSED = 3, 4
_START = f"""
import sys
if not hasattr(sys, "remote_exec"):
    sys.exit({_TOO_OLD})
try:
    sys.remote_exec(int(sys.argv[1]), sys.argv[2])
except Exception as error:
    print(error, file=sys.stderr)
    sys.exit({_REFUSED})
"""


def ask_remotely(
    pid: int, request: Mapping[str, Any], patience: float
) -> tuple[str, dict[str, Any] | None]:
    """Return why the process can't be asked this way, or its answer.

    Raises
    ------
    VrangeError
        If it takes the request, and then ends or does not answer in time.

    """
    executable = f"/proc/{pid}/exe"
    try:
        name = os.path.basename(os.readlink(executable))
        owner = os.stat(f"/proc/{pid}").st_uid
    except OSError as error:
        return f"process {pid}: {error.strerror}", None
    if owner != os.geteuid():
        return f"process {pid} belongs to user {owner}, not this one ({os.geteuid()})", None
    if not name.startswith("python"):
        return f"process {pid} runs {name}, which is no Python", None
    directory = Path(tempfile.mkdtemp(prefix="vrange-"))
    answer, script = directory / "answer.json", directory / "script.py"
    script.write_text(f"{_SCRIPT.read_text()}\nbegin({dict(request)!r}, {os.fspath(answer)!r})\n")
    is_pending = False
    try:
        refusal = _start(executable, pid, script, patience)
        if refusal is not None:
            return refusal, None
        is_pending = True
        found = _wait(pid, answer, patience)
        is_pending = found is None and running(pid) is not None
    finally:
        # Without the file, the process would complain on its standard error once it runs it.
        if is_pending:
            script.write_text("")
        else:
            shutil.rmtree(directory, ignore_errors=True)
    if found is None:
        raise VrangeError(
            f"process {pid} has not answered within {patience:g} s: it runs a request once its "
            "main thread runs Python code"
        )
    if "error" in found:
        raise VrangeError(f"process {pid} answers: {found['error']}")
    return "", found


def _start(executable: str, pid: int, script: Path, patience: float) -> str | None:
    command = [executable, "-I", "-S", "-c", _START, str(pid), str(script)]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=min(patience, _START_SECONDS),
            check=False,
        )
    except OSError as error:
        return f"its interpreter can't be started from here: {error.strerror}"
    except subprocess.TimeoutExpired:
        return "its interpreter does not start from here"
    if done.returncode == _TOO_OLD:
        return f"process {pid} runs an older one"
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        return f"process {pid} refuses: {last}"
    return None


def _wait(pid: int, answer: Path, patience: float) -> dict[str, Any] | None:
    """Return the answer, or None if there is none within this time."""
    deadline = time.monotonic() + patience
    while not answer.exists():
        if running(pid) is None:
            raise VrangeError(f"process {pid} has ended before it answered")
        if time.monotonic() > deadline:
            return None
        time.sleep(_LOOK_SECONDS)
    found: dict[str, Any] = json.loads(answer.read_text())
    return found
