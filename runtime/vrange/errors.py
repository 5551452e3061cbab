"""What vrange raises besides ValueError, TypeError and BufferError."""

from __future__ import annotations


class VrangeError(Exception):
    """The root of vrange's own exceptions."""


class ArenaFullError(VrangeError, MemoryError):
    """No place in the arena, or no memory to be had for it."""


class PurgedError(VrangeError):
    """Content is gone and there is nothing to regenerate it."""


class RegenerationError(VrangeError):
    """A regenerator failed; `__cause__` says how."""
