"""Code of tests in which the children of a fork read what their parent cached."""

from __future__ import annotations

import textwrap

from fork_child import FORKING
from support import succeeds

PRELUDE = (
    FORKING
    + """
import subprocess

def report(check, to):
    '''Ends a process that nobody waits for, and writes whether the check succeeded.'''
    signal.alarm(30)
    code = 1
    try:
        check()
        code = 0
    except BaseException:
        traceback.print_exc()
    os.write(to, bytes([code]))
    os._exit(code)

def fifty(cache):
    for n in range(50):
        cache[n] = bytes([n]) * 20_000
        cache["small", n] = n
    return cache

class Turn:
    '''What one process waits for and another one gives.'''
    def __init__(self): self.ends = os.pipe()
    def give(self): os.write(self.ends[1], b"x")
    def wait(self): assert os.read(self.ends[0], 1) == b"x"

def never(): raise AssertionError("it is computed again")
"""
)


def forking(code: str, *arguments: object) -> None:
    """Run `code` after the prelude."""
    succeeds(PRELUDE + textwrap.dedent(code), *arguments)
