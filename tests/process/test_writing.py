"""What vrange writes ends no program: a file that may not grow, and a pipe without a reader."""

from __future__ import annotations

import textwrap

import pytest
from ranges.test_capabilities import FORBID, MACHINE, knows_syscalls
from support import python

READ = {"x86_64": 310, "aarch64": 270}.get(MACHINE)

PRELUDE = """
import os, resource, signal
import vrange

cache = vrange.VolatileCache(hot_bytes=0)
def use(cache):
    for n in range(20):
        assert cache.get_or_compute(n, lambda: bytes([n]) * 20_000) == bytes([n]) * 20_000
def in_child(work):
    pid = os.fork()
    if pid == 0:
        work()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
use(cache)
"""


@pytest.mark.parametrize("pends", [False, True])
def test_a_file_that_may_not_grow_raises_no_signal(pends: bool) -> None:
    """The child of a fork makes a file for its counts. A signal of the program's own stays."""
    code = f"""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    if {pends}:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGXFSZ])
        signal.raise_signal(signal.SIGXFSZ)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    def work():
        use(cache)
        use(vrange.VolatileCache(hot_bytes=0))
    in_child(work)
    use(vrange.VolatileCache(hot_bytes=0))
    assert (signal.SIGXFSZ in signal.sigpending()) is {pends}
    assert (signal.SIGXFSZ in signal.pthread_sigmask(signal.SIG_BLOCK, [])) is {pends}
    """
    done = python(PRELUDE + textwrap.dedent(code))
    assert done.returncode == 0, done.stderr


@knows_syscalls
def test_a_message_to_a_pipe_without_a_reader_raises_no_signal() -> None:
    code = f"""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    def work():
        reader, writer = os.pipe()
        os.dup2(writer, 2)
        os.close(writer)
        forbid([{READ}])  # it says once that it may not read its parent
        os.close(reader)
        use(cache)
    in_child(work)
    """
    done = python(PRELUDE + FORBID + textwrap.dedent(code))
    assert done.returncode == 0, done.stderr
