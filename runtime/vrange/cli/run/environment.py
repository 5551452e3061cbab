"""The environment in which a program finds vrange switched on.

Everything else of the way a program starts is left as it is, so `sys.argv`, `__main__`, tracebacks
and exit are the interpreter's own work; and it works for commands that start the interpreter
themselves.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import vrange.autostart
from vrange.autostart.settings import VARIABLE, Settings

__all__ = ["environment"]


def environment(settings: Settings, before: Mapping[str, str]) -> dict[str, str]:
    """Add to `before` what the hook needs; it takes it out again (vrange/autostart/hook)."""
    hook = str(Path(vrange.autostart.__file__).with_name("hook"))
    path = before.get("PYTHONPATH")
    changed = {"PYTHONPATH": os.pathsep.join(filter(None, [hook, path]))}
    if settings.heap == "libc":
        changed["PYTHONMALLOC"] = "malloc"
    restore = {name: before.get(name) for name in changed}
    told = replace(settings, restore=restore).told()
    return {**before, **changed, VARIABLE: json.dumps(told)}
