"""Code that forks, run in a process of its own: a child would run the rest of the tests."""

from __future__ import annotations

import textwrap

from support import succeeds

FORKING = """
import faulthandler, gc, multiprocessing, os, signal, sys, threading, time, traceback, warnings
warnings.simplefilter("ignore")   # from 3.12 on, that forking with threads may end badly
import numpy as np
from support import *

def in_child(check, seconds=30):
    pid = os.fork()
    if pid == 0:
        signal.alarm(seconds)
        try:
            check()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return pid

def join(*pids):
    for pid in pids:
        status = os.waitpid(pid, 0)[1]
        assert status == 0, os.waitstatus_to_exitcode(status)
"""

_CACHE = """
vrange.set_reserve("1GiB", tick=0.001)
N = 40
fresh = lambda n: np.full(20_000, n, np.uint16)
cache = vrange.VolatileCache(arena_bytes="512MiB", hot_bytes=0)
for n in range(N):
    cache[n] = fresh(n)
handle = lambda n: handle_of(cache, n)
"""


def forking_succeeds(code: str, *args: str, timeout: float = 60) -> None:
    """Run `code` after the prelude; `in_child`, `join`, `cache`, `fresh` and `handle` are there."""
    succeeds(FORKING + _CACHE + textwrap.dedent(code), *args, timeout=timeout)
