"""The library that serves malloc from vrange's heap, for any program: where it is.

`LD_PRELOAD=$(python -m vrange.malloc) program` runs a program with it. The program need not be a
Python program.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from vrange.errors import VrangeError

__all__ = ["library", "preload", "refuse_sanitizer"]

_LIBRARY = Path(__file__).with_name("libvrange_malloc.so.0")
# The first allocator that is preloaded serves all requests, so a second one is of no use.
_SANITIZERS = ("libasan", "libtsan", "libmsan", "clang_rt.asan")
_SANITIZER_STARTS = (b"__asan_init", b"__tsan_init", b"__msan_init", b"__hwasan_init")
_NAMES_BYTES = 4 << 20  # within which an executable names the functions that it needs


def library() -> str:
    """Return the path of the library to preload.

    Returns
    -------
    str
        The value for `LD_PRELOAD`.

    Raises
    ------
    VrangeError
        If this machine has no glibc, or the path can't stand in `LD_PRELOAD`.

    Examples
    --------
    >>> import vrange.malloc
    >>> vrange.malloc.library().endswith("libvrange_malloc.so.0")
    True

    """
    if not _LIBRARY.exists():
        import platform

        libc = platform.libc_ver()[0]
        if libc in ("", "libc"):  # where Python does not know it, which is so with musl
            libc = "another C library"
        raise VrangeError(
            f"vrange's malloc stands on glibc's, and this Python has {sys.platform} with {libc}"
        )
    path = str(_LIBRARY)
    if any(separator in path for separator in " :"):
        raise VrangeError(
            f"LD_PRELOAD separates its files by spaces and colons, and {path!r} has one: "
            "install vrange at another path"
        )
    return path


def _others() -> list[str]:
    """Return what the file names of other allocators contain."""
    from vrange._core import ffi, lib  # here: this module can be imported without Linux

    known = map(lib.vrange_allocator_known, range(lib.VRANGE_ALLOCATORS))
    names = [ffi.string(name).decode() for name in known]
    return [*(name for name in names if name != "glibc"), *_SANITIZERS]


def preload(environment: Mapping[str, str]) -> str:
    """Return `LD_PRELOAD` of this environment, with the library first.

    Parameters
    ----------
    environment : Mapping[str, str]
        The environment that the program would get.

    Returns
    -------
    str
        The library, then what was preloaded before.

    Raises
    ------
    VrangeError
        If another allocator is preloaded already, or the library can't be.

    Examples
    --------
    >>> import vrange.malloc
    >>> vrange.malloc.preload({"LD_PRELOAD": "/opt/lib/trace.so"}).split(":")[1]
    '/opt/lib/trace.so'

    """
    before = environment.get("LD_PRELOAD", "").replace(" ", ":").split(":")
    own, others = library(), _others()
    for name in filter(None, before):
        for other in others:
            if other in os.path.basename(name):
                raise VrangeError(
                    f"LD_PRELOAD has {name}, and only one allocator can serve malloc: "
                    "run the program without that one, or without vrange's"
                )
    return ":".join([own, *(name for name in before if name and name != own)])


def refuse_sanitizer(program: str) -> None:
    """Refuse a program that is built with a sanitizer, which ends where it is not loaded first.

    Parameters
    ----------
    program : str
        The path of an executable.

    Raises
    ------
    VrangeError
        If it names one of the sanitizers that serve malloc themselves.

    Examples
    --------
    >>> import sys
    >>> import vrange.malloc
    >>> vrange.malloc.refuse_sanitizer(sys.executable)

    """
    try:
        with open(program, "rb") as file:
            names = file.read(_NAMES_BYTES)
    except OSError:
        return  # it is executed anyway, or its name is reported
    if names.startswith(b"\x7fELF") and any(start in names for start in _SANITIZER_STARTS):
        raise VrangeError(f"{program} is built with a sanitizer, which serves malloc itself")


if __name__ == "__main__":
    try:
        print(library())
    except VrangeError as error:
        sys.exit(f"vrange.malloc: {error}")
