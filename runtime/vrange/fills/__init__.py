"""Fills: they put the content of a `VolatileArray` back, in native code, while a touch waits.

Pass one as `fill=` to VolatileArray. A new fill consists of a C function in a file of its own
(native/core/arrays/regenerate_*.c) and a class here that binds the function to an array's size.

>>> import vrange
>>> a = vrange.VolatileArray(1000, "f8", fill=vrange.fills.pattern(2.5), eager=True)
>>> float(a[999])
2.5
"""

from vrange.fills.base import NativeFill
from vrange.fills.compressed import compressed
from vrange.fills.file import file
from vrange.fills.native import native
from vrange.fills.pattern import pattern
from vrange.fills.zero import zero

__all__ = ["NativeFill", "compressed", "file", "native", "pattern", "zero"]
