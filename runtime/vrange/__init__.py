"""vrange: memory that is there while it is spare, and the kernel's when it is not."""

from vrange.errors import ArenaFullError, PurgedError, RegenerationError, VrangeError
from vrange.stack import DeepStack, StackUnavailableError, deep_call, deep_recursion
from vrange.stack_trim import (
    StackInfo,
    StackUse,
    register_thread,
    stack_info,
    trim_idle_stacks,
    trim_stack,
)

__all__ = [
    "ArenaFullError",
    "DeepStack",
    "PurgedError",
    "RegenerationError",
    "StackInfo",
    "StackUnavailableError",
    "StackUse",
    "VrangeError",
    "deep_call",
    "deep_recursion",
    "register_thread",
    "stack_info",
    "trim_idle_stacks",
    "trim_stack",
]
