"""`vrange run --deep` inside the program: main's stack and those of the threads to come are deep.

The settings are in one environment variable, which stays for the interpreters that the program
starts: workers of multiprocessing (spawn, forkserver) are deep, too. exec keeps RLIMIT_STACK.
"""

from __future__ import annotations

import resource

from vrange._core import deep, lib
from vrange.sizes import format_bytes

__all__ = ["VARIABLE", "deepen_program", "encoded_setting", "restore_default"]

VARIABLE = "VRANGE_DEEP"


def encoded_setting(bytes_: int, soft_limit: int) -> str:
    """Return the variable's value: the bytes of a stack, and RLIMIT_STACK without `--deep`."""
    return f"{bytes_}:{soft_limit}"


def restore_default(value: str) -> None:
    """Let threads that C libraries start have the stack that they would have without `--deep`."""
    deep.set_default_stack(_read(value)[1])


def deepen_program(value: str) -> str:
    """Switch it on, and return what is on.

    Raises
    ------
    OSError
        If main's stack can't be made deep. Threads are not deep then, either.

    """
    from vrange._stacks.deep_threads import deepen  # here: most programs run without `--deep`

    bytes_, usual = _read(value)
    restore_default(value)
    main, threads, reason = deepen(bytes_, usual)
    each = f"threads {format_bytes(threads)}" if threads else f"threads are not deep: {reason}"
    return f"on, main {format_bytes(main)}, {each}"


def _read(value: str) -> tuple[int, int]:
    bytes_, _, soft = value.partition(":")
    usual = int(soft) if soft else resource.RLIM_INFINITY
    if usual == resource.RLIM_INFINITY:
        usual = int(lib.VRANGE_STACK_USUAL_BYTES)
    return int(bytes_), usual
