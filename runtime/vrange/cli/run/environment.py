"""The environment that makes a program start with vrange switched on.

Nothing else about how a program starts is changed, so `sys.argv`, `__main__`, tracebacks and exit
remain the interpreter's own work. It also works for commands that start the interpreter themselves.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import vrange._autostart
from vrange._autostart.deep import VARIABLE as DEEP
from vrange._autostart.settings import VARIABLE, Settings
from vrange.cli.run.mimalloc import mimalloc_options
from vrange.malloc import preload

__all__ = ["environment"]


def environment(settings: Settings, before: Mapping[str, str]) -> dict[str, str]:
    """Return `before` plus what the hook needs, and removes again (vrange/autostart/hook)."""
    hook = str(Path(vrange._autostart.__file__).with_name("hook"))
    path = before.get("PYTHONPATH")
    changed = {"PYTHONPATH": os.pathsep.join(filter(None, [hook, path]))}
    if settings.heap == "libc":
        changed["PYTHONMALLOC"] = "malloc"
    elif options := mimalloc_options(before, returns=settings.rss):
        changed |= options
        does = "returns freed pages" if settings.rss else "offers freed pages to the kernel"
        settings = replace(settings, mimalloc=does)
    if settings.malloc:
        changed["LD_PRELOAD"] = preload(before)
    restore = {name: before.get(name) for name in changed}
    told = replace(settings, restore=restore).told()
    if settings.deep is not None:
        changed[DEEP] = settings.deep
    return {**before, **changed, VARIABLE: json.dumps(told)}
