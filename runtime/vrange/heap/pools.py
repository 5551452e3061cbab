"""Memory pools that libraries keep for themselves, and return through a call of their own.

Only libraries that the program has already imported count: vrange imports nothing to trim it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any


def _pyarrow(pyarrow: Any) -> None:
    pyarrow.default_memory_pool().release_unused()


# Keyed by the module that must have been imported. Add the next library here.
KNOWN: dict[str, Callable[[Any], None]] = {"pyarrow": _pyarrow}


def imported() -> dict[str, Callable[[], None]]:
    """Return the imported libraries that have pools, each with the call that trims its pool."""
    found = ((name, sys.modules.get(name), release) for name, release in KNOWN.items())
    return {
        name: lambda module=module, release=release: release(module)  # type: ignore[misc]
        for name, module, release in found
        if module is not None
    }
