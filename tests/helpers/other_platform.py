"""Runs code in a process that takes itself for another system's."""

from __future__ import annotations

import subprocess
import sys
import textwrap

PRETEND = """
sys.platform = "darwin"
platform.system = lambda: "Darwin"
sys.modules["vrange._native"] = None  # as it is not built there
import vrange
"""


def elsewhere(code: str, *, imports: str, prelude: str = "") -> str:
    """Return what `code` prints. What others import by the system's name belongs to `imports`."""
    first = f"import platform, sys\nimport {imports}\n"
    child = subprocess.run(
        [sys.executable, "-c", first + PRETEND + prelude + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    return child.stdout
