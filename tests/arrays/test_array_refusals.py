"""Where the kernel refuses what arrays need: errors in words, and none that waits for ever."""

from __future__ import annotations

import errno
import os
from textwrap import dedent

import pytest
from array_support import ends_well, on_refault, python

LOCK = """
import ctypes
def lock(flags):
    assert ctypes.CDLL(None, use_errno=True).mlockall(flags) == 0
"""

# Makes madvise(MADV_POPULATE_WRITE) fail from here on, for every thread.
REFUSE = """
import platform, struct
def refuse_populating(error):
    libc = ctypes.CDLL(None, use_errno=True)
    madvise, seccomp = {"x86_64": (28, 317), "aarch64": (233, 277)}[platform.machine()]
    program = [
        (0x20, 0, 0, 0), (0x15, 0, 3, madvise), (0x20, 0, 0, 32), (0x15, 0, 1, 23),
        (0x06, 0, 0, 0x50000 | error), (0x06, 0, 0, 0x7FFF0000),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in program))
    filter = struct.pack("HxxxxxxQ", len(program), ctypes.addressof(code))
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    assert libc.syscall(seccomp, 1, 1, ctypes.c_char_p(filter)) == 0
def count(start, out):
    out[:] = np.arange(start, start + len(out))
"""


@on_refault
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may lock so much memory")
def test_discarding_locked_memory() -> None:
    code = """
    a = vrange.VolatileArray(1 << 16, "f8", fill=vrange.fills.pattern(2.0), name="locked")
    assert np.asarray(a).sum() == 2 << 16
    lock(1 | 2)
    a.discard()
    assert a.resident_bytes == 0
    assert np.asarray(a).sum() == 2 << 16
    """
    ends_well(LOCK + dedent(code))


@on_refault
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may lock so much memory")
def test_an_array_after_all_memory_was_locked() -> None:
    code = """
    lock(1 | 2)
    try:
        vrange.VolatileArray(10, "f8", fill=vrange.fills.zero(), eager=False)
    except vrange.VrangeError as error:
        assert "locked its memory (mlockall)" in str(error), error
    else:
        raise AssertionError("it can't be discarded")
    """
    ends_well(LOCK + dedent(code), environment={"VRANGE_RUNG": ""})


@on_refault
@pytest.mark.parametrize("error", [errno.EFAULT, errno.EPERM, errno.EINVAL, errno.ENOMEM])
@pytest.mark.parametrize("fill", ["count", "vrange.fills.pattern(2.0)"])
def test_populating_fails_for_good(error: int, fill: str) -> None:
    code = f"""
    a = vrange.VolatileArray(1 << 16, "f8", fill={fill}, name="refused")
    with a.pin(slice(0, 10)) as part:
        before = part.tolist()
    refuse_populating({error})
    pin = lambda: a.pin(slice(0, 10)).__enter__()
    for use in pin, a.fill_ahead, lambda: __import__("hashlib").sha256(a):
        try:
            use()
        except vrange.RegenerationError as failure:
            assert "block 0 of array 'refused' can't be" in str(failure), failure
            assert "MADV_POPULATE_WRITE" in str(failure), failure
        else:
            raise AssertionError("a page that is missing would not be found")
    print("told")
    """
    done = python(LOCK + REFUSE + dedent(code))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "told\n"
