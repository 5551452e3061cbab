"""The exceptions and warnings of vrange, besides ValueError, TypeError and BufferError."""

from __future__ import annotations


class VrangeError(Exception):
    """The base class of vrange's own exceptions."""


class ArenaFullError(VrangeError, MemoryError):
    """The arena has no place left, or there is no memory for it."""


class PurgedError(VrangeError):
    """The content is gone, and nothing can regenerate it."""


class NotKeptWarning(RuntimeWarning):
    """A cache returned a value and did not keep it: it can't be pickled, or told from others."""


class CostlyHitWarning(RuntimeWarning):
    """A cached value is so heavy that it is decoded at each hit, which takes long."""


class RegenerationError(VrangeError):
    """A regenerator failed; `__cause__` is its error."""
