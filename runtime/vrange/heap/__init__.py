"""The heap of a Python process: memory that allocators hold and nothing uses, given back.

>>> import vrange.heap
>>> int(vrange.heap.trim()) >= 0
True
"""

from vrange.heap import interpreter
from vrange.heap.trim import Trimmed, trim

__all__ = ["Trimmed", "interpreter", "trim"]
