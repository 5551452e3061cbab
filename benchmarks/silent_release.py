"""The proof that a release makes no system call: the kernel kills the process at the first one.

A child prepares arrays and installs a seccomp filter that allows its releasing thread only write
and exit. Then it releases all arrays, writes a line and exits. If it survives, the releases called
nothing. The control is the same with MADV_FREE at the release: that child must be killed by SIGSYS.

Where vrange's thread is late, on a busy machine, the releasing thread takes its turn, which makes
system calls. So a child that was killed is tried again: one that survives is the proof.
"""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import signal
import struct
import subprocess
import sys
from typing import Any

from benchmarks.contender import ROOT

CASES = ("vrange", "MADV_FREE")
RELEASES = 1000
_TRIES = 4
_SILENT = b"silent\n"
_WRITE_AND_EXIT_GROUP = {"x86_64": (1, 231), "aarch64": (64, 94)}
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_ALLOW, _KILL_PROCESS = 0x7FFF0000, 0x80000000
_LOAD_WORD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06  # BPF, of a word, with a constant


def made_no_system_call(case: str) -> bool:
    """Return whether a child released `RELEASES` arrays and made no other system call."""
    return any(_is_silent(case) for _ in range(_TRIES))


def _is_silent(case: str) -> bool:
    command = [sys.executable, "-m", "benchmarks.silent_release", case]
    child = subprocess.run(command, capture_output=True, cwd=ROOT, timeout=60)
    if child.returncode == -signal.SIGSYS:
        return False
    if child.returncode != 0 or child.stdout != _SILENT:
        raise RuntimeError(f"{case} ended with {child.returncode}: {child.stderr.decode()}")
    return True


def _allow_only(*numbers: int) -> None:
    """Make every other system call of this thread end the process, from now on."""
    code = [(_LOAD_WORD, 0, 0, 0)]  # the first word that a filter sees is the call's number
    for place, number in enumerate(numbers):
        code.append((_JUMP_IF_EQUAL, len(numbers) - place, 0, number))
    code += [(_RETURN, 0, 0, _KILL_PROCESS), (_RETURN, 0, 0, _ALLOW)]
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in code))
    fields = struct.pack("HxxxxxxP", len(code), ctypes.addressof(program))
    header = ctypes.create_string_buffer(fields)
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    no = ctypes.c_ulong(0)
    for call in (
        (_PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), no, no, no),
        (_PR_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_MODE_FILTER), header, no, no),
    ):
        if prctl(*call) != 0:
            raise OSError(ctypes.get_errno(), "prctl")


def main() -> None:
    import numpy as np

    import vrange
    from benchmarks import memory

    case = sys.argv[1]
    with vrange.VolatileCache[int, Any](name="silent", hot_bytes=0) as cache:
        sizes = [64 << 10, 1 << 20, 64 << 20]
        for key, size in enumerate(sizes):
            cache[key] = np.ones(size, np.uint8)
        for key in range(len(sizes), RELEASES):
            cache[key] = np.ones(sizes[0], np.uint8)
        views = [cache[key] for key in range(RELEASES)]
        assert cache.info().pinned_bytes >= sum(sizes)
        mapping = memory.map_private(1 << 20)
        gc.disable()
        _allow_only(*_WRITE_AND_EXIT_GROUP[platform.machine()])
        if case == "MADV_FREE":
            memory.madvise(mapping, 1 << 20, memory.MADV_FREE)
        views.clear()
        os.write(1, _SILENT)
        os._exit(0)


if __name__ == "__main__":
    main()
