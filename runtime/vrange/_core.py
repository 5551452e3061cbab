"""The native core: `lib` and `ffi` by cffi, the others for what must keep the GIL.

All are modules of one shared library, so that the process has one core. cffi's calls give the GIL
up; the others' keep it (native/python/module.c says why).
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_loader
from typing import TYPE_CHECKING

if sys.platform != "linux":
    raise ImportError("this part of vrange is made of what Linux has, and needs it")


def _check_that_the_native_part_is_there() -> None:
    from pathlib import Path  # here: `import vrange` stays quick

    package = Path(__file__).parent
    if not package.is_dir():
        raise ImportError(
            "vrange has libraries that the system can't load out of an archive, and is in "
            f"{package}: install it as files (pip install vrange), or pack the program with a tool "
            "that unpacks itself when it is started, such as shiv or pex"
        )
    if not any(package.glob("_native*.so")):
        raise ImportError(
            f"vrange's native part is not in {package}: install vrange with pip, or build it there "
            "(pip install --editable, in a checkout)"
        )


try:
    from vrange import _native
    from vrange._native import ffi, lib
except ImportError:
    _check_that_the_native_part_is_there()
    raise

if TYPE_CHECKING:
    from vrange import _deep as deep
    from vrange import _hit as hit
    from vrange import _numpy_handler as numpy_handler
    from vrange import _pymalloc as pymalloc
else:

    def _load(name):
        loader = ExtensionFileLoader(name, _native.__file__)
        module = module_from_spec(spec_from_loader(name, loader))
        loader.exec_module(module)
        sys.modules[name] = module
        return module

    hit = _load("vrange._hit")
    deep = _load("vrange._deep")
    numpy_handler = _load("vrange._numpy_handler")
    pymalloc = _load("vrange._pymalloc")

if sys.version_info >= (3, 12):
    # The interpreter warns of a fork in a process with threads: vrange's end for this moment.
    os.register_at_fork(before=hit.fork_begins, after_in_parent=hit.fork_ended)

__all__ = ["deep", "ffi", "hit", "lib", "names", "numpy_handler", "pymalloc"]


def names(which: int) -> tuple[str, ...]:
    """Return a list of names of the native side; a name's place in it is its native number."""
    found: list[str] = []
    while (name := lib.vrange_name(which, len(found))) != ffi.NULL:
        found.append(ffi.string(name).decode())
    return tuple(found)
