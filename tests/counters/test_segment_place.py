"""Where a stats segment is made; where none can be, metrics go on in memory, with one warning."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from segment_support import run

COUNTS = """
import json, warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import vrange
    from vrange._core import ffi, lib
    cache = vrange.VolatileCache(name="one")
    vrange.VolatileCache(name="two")
    cache.get_or_compute("k", lambda: b"v")
refusal = lib.vrange_segment_refusal()
print(json.dumps({
    "warned": [str(w.message) for w in caught],
    "misses": cache.info().misses,
    "latencies": sum(h.count for h in vrange.stats().time_to_free.values()),
    "in_memory": lib.vrange_segment_path() == ffi.NULL,
}))
"""


def check_counts_in_memory(**environment: str) -> str:
    done = run(COUNTS, **environment)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["in_memory"]
    assert told["misses"] == 1
    assert told["latencies"] >= 1
    (warning,) = told["warned"]  # of two caches, one warns
    return str(warning)


def test_without_a_directory_it_counts_on_with_one_warning(directory: Path) -> None:
    missing = directory / "not" / "there"
    assert "No such file" in check_counts_in_memory(VRANGE_RUNTIME_DIR=str(missing))
    (directory / "file").write_text("")
    warning = check_counts_in_memory(VRANGE_RUNTIME_DIR=str(directory / "file"))
    assert "Not a directory" in warning


def test_in_a_directory_that_others_may_write_it_makes_no_file(directory: Path) -> None:
    directory.chmod(0o777)
    warning = check_counts_in_memory(VRANGE_RUNTIME_DIR=str(directory))
    assert "not permitted" in warning
    assert list(directory.iterdir()) == []


def test_in_a_read_only_directory_it_counts_on() -> None:
    # Not even root can make a file there.
    assert "/proc/fs" in check_counts_in_memory(VRANGE_RUNTIME_DIR="/proc/fs")


def test_a_path_that_is_too_long_is_not_cut_short(directory: Path) -> None:
    deep = directory
    while len(str(deep)) < 700:
        deep /= "x" * 50
    deep.mkdir(mode=0o700, parents=True)
    before = sorted(directory.rglob("*"))
    assert "File name too long" in check_counts_in_memory(VRANGE_RUNTIME_DIR=str(deep))
    assert sorted(directory.rglob("*")) == before


def test_falls_back_from_the_runtime_directory(directory: Path) -> None:
    done = run(
        "import vrange; from vrange._core import ffi, lib\n"
        "print(ffi.string(lib.vrange_segment_path()).decode())",
        XDG_RUNTIME_DIR=str(directory / "missing"),
        VRANGE_RUNTIME_DIR="",
    )
    assert done.stdout.startswith("/dev/shm/vrange-"), done
    done = run(
        "import vrange; from vrange._core import ffi, lib\n"
        "print(ffi.string(lib.vrange_segment_path()).decode())",
        XDG_RUNTIME_DIR=str(directory),
        VRANGE_RUNTIME_DIR="",
    )
    assert done.stdout.startswith(f"{directory}/vrange/"), done


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
def test_a_full_file_system_is_no_sigbus(directory: Path) -> None:
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "none", str(directory)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("may not mount here")
    try:
        warning = check_counts_in_memory(VRANGE_RUNTIME_DIR=str(directory))
        assert "No space left" in warning
        subprocess.run(["mount", "-o", "remount,size=128k", str(directory)], check=True)
        done = run(
            "import vrange, os\n"
            "caches = [vrange.VolatileCache(name=f'c{n}', arena_bytes='1MiB') for n in range(60)]\n"
            "for n, cache in enumerate(caches): cache.get_or_compute(n, lambda: n)\n"
            "from vrange._counters import segment; from vrange._core import ffi, lib\n"
            "accounts = segment.read(ffi.string(lib.vrange_segment_path())).accounts\n"
            "assert sum(a.requests['miss'] for a in accounts) == 60\n"
            "assert [a.name for a in accounts].count('other') == 1\n"
            "pid = os.fork()\n"
            "if pid == 0: caches[59].get_or_compute('x', lambda: 1); os._exit(0)\n"
            "assert os.waitpid(pid, 0)[1] == 0\n",
            VRANGE_RUNTIME_DIR=str(directory),
        )
        assert done.returncode == 0, done
    finally:
        subprocess.run(["umount", str(directory)], check=True)
