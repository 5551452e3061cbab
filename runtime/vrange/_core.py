"""The native core: `lib` and `ffi` by cffi, `hit` for what must keep the GIL.

Both are modules of one shared library, so that the process has one core. cffi's calls give the GIL
up; those of `hit` keep it (native/hit.c says why).
"""

from __future__ import annotations

import sys
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_loader
from typing import TYPE_CHECKING

from vrange import _native
from vrange._native import ffi, lib

if TYPE_CHECKING:
    from vrange import _hit as hit
else:
    _loader = ExtensionFileLoader("vrange._hit", _native.__file__)
    hit = module_from_spec(spec_from_loader(_loader.name, _loader))
    _loader.exec_module(hit)
    sys.modules[_loader.name] = hit

__all__ = ["ffi", "hit", "lib"]
