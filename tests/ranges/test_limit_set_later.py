"""A program that limits its own address space has most of it, whatever vrange reserved before."""

from __future__ import annotations

import subprocess
import sys

import pytest

BEGUN = {
    "heap": """
import numpy as np
vrange.heap.use_for_numpy()
kept = np.ones(1 << 20)
del kept
""",
    "large blocks that were freed": """
import numpy as np
vrange.heap.use_for_numpy()
kept = [np.ones(1 << 24) for _ in range(12)]
del kept
""",
    "a cache": """
cache = vrange.VolatileCache()
cache["small"] = b"x" * 1000
cache["large"] = bytes(1 << 20)
""",
    "a cache of a gigabyte": """
import numpy as np
cache = vrange.VolatileCache()
for i in range(1100):
    cache[i] = np.full(1 << 17, float(i))
""",
    "a shared cache": """
import os
cache = vrange.VolatileCache(name=f"limit{os.getpid()}", shared=True)
cache["k"] = b"x" * 100000
""",
    "deep calls": "assert vrange.deep_call(lambda: 1) == 1",
    "an arena": "arena = vrange.Arena('16MiB'); r = arena.allocate(1 << 20)",
}

LIMITED = {
    "setrlimit": "resource.setrlimit(resource.RLIMIT_AS, (LIMIT, -1))",
    "prlimit": "resource.prlimit(0, resource.RLIMIT_AS, (LIMIT, -1))",
    "child": """
child = os.fork()
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
resource.setrlimit(resource.RLIMIT_AS, (LIMIT, -1))
""",
    "data": "resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, -1))",
}

IN_C = """
import ctypes
class Limit(ctypes.Structure):
    _fields_ = [("soft", ctypes.c_uint64), ("hard", ctypes.c_uint64)]
assert ctypes.CDLL(None).setrlimit(resource.RLIMIT_AS, ctypes.byref(Limit(LIMIT, 2**64 - 1))) == 0
"""
FROM_OUTSIDE = """
import subprocess
code = f"import resource; resource.prlimit({os.getpid()}, resource.RLIMIT_AS, ({LIMIT}, -1))"
subprocess.run([sys.executable, "-c", code], check=True)
"""

USED = """
import mmap
first = bytearray(LIMIT // 5 * 2)
second = mmap.mmap(-1, LIMIT // 10 * 3)
print("has it")
"""


def run(begun: str, limited: str) -> None:
    code = (
        "import os, resource, sys\nimport vrange, vrange.heap\nLIMIT = 2 << 30\n"
        + begun
        + "\n"
        + limited
        + "\n"
        + USED
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.returncode) == ("has it\n", 0), done.stderr


@pytest.mark.parametrize("what", BEGUN)
def test_a_limit_that_python_sets(what: str) -> None:
    run(BEGUN[what], LIMITED["setrlimit"])


@pytest.mark.parametrize("how", ["prlimit", "child", "data"])
def test_each_way_to_set_it(how: str) -> None:
    run("".join(BEGUN[what] + "\n" for what in ("heap", "a cache", "deep calls")), LIMITED[how])


@pytest.mark.parametrize("how", [IN_C, FROM_OUTSIDE], ids=["c", "outside"])
def test_a_limit_that_vrange_is_not_told_of(how: str) -> None:
    """At once: so the heap and the caches may not have reserved much that they don't use."""
    run(BEGUN["heap"] + BEGUN["a cache"] + BEGUN["a shared cache"], how)


def test_the_heap_goes_on_below_the_limit() -> None:
    code = """
import resource
import numpy as np, vrange.heap
vrange.heap.use_for_numpy()
a = np.arange(1 << 20)
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, -1))
reserved = vrange.heap.info().reserved_bytes
b = [np.arange(1 << 20) for _ in range(12)]
assert (b[-1] == a).all() and (b[0] == a).all()
now = vrange.heap.info()
assert now.used_bytes > 13 * a.nbytes - (1 << 20), now
assert reserved < now.reserved_bytes < 1 << 30, now
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_the_preloaded_malloc_gives_way_to_its_own_program() -> None:
    """What was freed below the last block stays reserved; an allocation that needs it gets it."""
    code = """
import os, resource, sys
blocks = [bytearray(1 << 26) for _ in range(8)]
del blocks
code = f"import resource; resource.prlimit({os.getpid()}, resource.RLIMIT_AS, ({1 << 30}, -1))"
import subprocess
subprocess.run([sys.executable, "-c", code], check=True)
kept = bytearray(700 << 20)
print("has it")
"""
    import vrange.malloc

    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"LD_PRELOAD": str(vrange.malloc.library())},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.stdout, done.returncode) == ("has it\n", 0), done.stderr


def test_a_limit_of_another_kind_changes_nothing() -> None:
    code = """
import resource, vrange
from vrange._core import ffi, lib
vrange.deep_call(lambda: 1)
def space():
    now = ffi.new("vrange_address_space *")
    lib.vrange_address_space_read(now)
    return now.own_bytes
before = space()
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.prlimit(0, resource.RLIMIT_AS)
assert space() == before
resource.setrlimit(resource.RLIMIT_AS, (1 << 36, -1))
assert space() < before
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
