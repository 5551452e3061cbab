"""NumPy's compiled core, by whichever name this version has it."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def numpy_core() -> Any:
    """The module that exports `_ARRAY_API`. ImportError without NumPy."""
    import numpy

    major = int(numpy.__version__.partition(".")[0])
    return import_module(f"numpy.{'_core' if major >= 2 else 'core'}._multiarray_umath")
