"""NumPy's compiled core, whose name depends on NumPy's version."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def numpy_core() -> Any:
    """Return the module that exports `_ARRAY_API`. Raise ImportError without NumPy."""
    import numpy

    major = int(numpy.__version__.partition(".")[0])
    return import_module(f"numpy.{'_core' if major >= 2 else 'core'}._multiarray_umath")
