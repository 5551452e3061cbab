"""What `--deep` does before the program starts: RLIMIT_STACK, which exec reads."""

from __future__ import annotations

import argparse
import resource
import sys

from vrange._autostart.deep import encoded_setting
from vrange.errors import VrangeError
from vrange.sizes import format_bytes

__all__ = ["raise_stack_limit", "stack"]


def stack(text: str) -> int | str:
    """Parse the size of `--deep`."""
    from vrange._stacks.deep_threads import main_bytes  # here: few programs are run with it

    try:
        return "auto" if text == "auto" else main_bytes(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def raise_stack_limit(asked: int | str) -> str:
    """Raise RLIMIT_STACK of this process, which the program inherits.

    The kernel leaves a gap of this size below the main thread's stack when it executes the program.

    Returns
    -------
    str
        The setting for the program.

    Raises
    ------
    VrangeError
        If the hard limit is lower than a size that was asked for, or leaves no room at all.

    """
    from vrange._stacks.deep_threads import LEAST_BYTES, main_bytes

    size = main_bytes(asked)
    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    if hard != resource.RLIM_INFINITY and hard < size:
        if asked != "auto" or hard < LEAST_BYTES:
            raise VrangeError(
                f"--deep needs {format_bytes(size if asked != 'auto' else LEAST_BYTES)} of stack, "
                f"but the hard limit of RLIMIT_STACK is {format_bytes(hard)} (ulimit -Hs). Raise "
                "it, or give a smaller size"
            )
        print(
            f"vrange run: --deep: stacks have {format_bytes(hard)}, the hard limit of RLIMIT_STACK",
            file=sys.stderr,
        )
        size = hard
    resource.setrlimit(resource.RLIMIT_STACK, (size, hard))
    return encoded_setting(size, soft)
