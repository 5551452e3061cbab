"""Pools of memory that libraries keep for themselves and give back through a call of their own.

Only of what the program has imported already: nothing is imported to be trimmed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any


def _pyarrow(pyarrow: Any) -> None:
    pyarrow.default_memory_pool().release_unused()


# By the module that must have been imported. The next library goes here.
KNOWN: dict[str, Callable[[Any], None]] = {"pyarrow": _pyarrow}


def imported() -> dict[str, Callable[[], None]]:
    """The libraries with pools that are in use, each with the call that gives back what is free."""
    found = ((name, sys.modules.get(name), release) for name, release in KNOWN.items())
    return {
        name: lambda module=module, release=release: release(module)  # type: ignore[misc]
        for name, module, release in found
        if module is not None
    }
