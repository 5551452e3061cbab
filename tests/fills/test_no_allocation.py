"""A touch that is answered allocates nothing: it may have come in the midst of malloc."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from textwrap import dedent

import pytest
from array_support import ends_well, on_refault

# Loaded before the C library, so that every allocation of the process comes by here.
COUNTING = """
#include <stdlib.h>
static __thread volatile int allocations __attribute__((tls_model("initial-exec")));
extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);
void *malloc(size_t n) { allocations++; return __libc_malloc(n); }
void *calloc(size_t m, size_t n) { allocations++; return __libc_calloc(m, n); }
void *realloc(void *p, size_t n) { allocations++; return __libc_realloc(p, n); }
void *memalign(size_t a, size_t n) { allocations++; return __libc_memalign(a, n); }
void *aligned_alloc(size_t a, size_t n) { allocations++; return __libc_memalign(a, n); }
int of_touch(const volatile char *address) {
    int before = allocations;
    (void)*address;
    return allocations - before;
}
int of_malloc(void) {
    int before = allocations;
    void *volatile taken = malloc(100);
    free(taken);
    return allocations - before;
}
"""


@pytest.fixture(scope="module")
def counting_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("counting")
    (folder / "counting.c").write_text(COUNTING)
    command = [os.environ.get("CC", "cc"), "-O1", "-shared", "-fPIC", "-fno-builtin"]
    built = folder / "counting.so"
    subprocess.run([*command, "-o", built, folder / "counting.c"], check=True)
    return built


@on_refault
def test_touches_allocate_nothing(counting_library: Path, tmp_path: Path) -> None:
    code = f"""
    import ctypes
    counting = ctypes.CDLL({str(counting_library)!r})
    counting.of_touch.argtypes = [ctypes.c_void_p]
    assert counting.of_malloc() == 1, "it counts"
    content = np.random.default_rng(6).integers(0, 99, 8 * MIB, dtype="u1")
    content.tofile({str(tmp_path / "content")!r})
    ffi, c = fill_functions()
    start = ffi.new("uint64_t *", 5)
    made = [
        vrange.VolatileArray(8 * MIB, "u1", fill=fill, name=name)
        for name, fill in {{
            "zero": vrange.fills.zero(),
            "pattern": vrange.fills.pattern(7),
            "file": vrange.fills.file({str(tmp_path / "content")!r}),
            "compressed": vrange.fills.compressed(content),
            "native": vrange.fills.native(c.count_from, start),
        }}.items()
    ]
    def touch():
        for a in made:
            address = address_of(np.asarray(a))
            for offset in (5 * MIB, MIB, *range(2 * MIB, 8 * MIB, 64 * KIB)):
                counted.append((a.name, counting.of_touch(address + offset)))
    counted = []
    touch()
    for a in made: a.discard()
    thread = threading.Thread(target=touch)  # its first touch, too
    thread.start()
    thread.join()
    assert len(counted) > 900 and all(a.refaults >= 4 for a in made)
    assert {{name for name, count in counted if count}} == set()
    """
    assert ends_well(dedent(code), environment={"LD_PRELOAD": str(counting_library)}) == ""
