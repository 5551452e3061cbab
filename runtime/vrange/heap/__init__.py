"""The heap of a Python process: return the memory that allocators hold and nothing uses.

>>> import vrange.heap
>>> int(vrange.heap.trim()) >= 0
True
"""

from vrange.heap import interpreter
from vrange.heap.numpy_allocator import HeapInfo, info, return_idle, use_for_numpy
from vrange.heap.trim import Trimmed, trim

__all__ = ["HeapInfo", "Trimmed", "info", "interpreter", "return_idle", "trim", "use_for_numpy"]
