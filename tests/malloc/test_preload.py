"""Unchanged programs with vrange's malloc do what they did before, and what they free goes."""

from __future__ import annotations

import ctypes.util
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from preload_support import LIBRARY, compiled, start
from support import MIB, wait_until

import vrange.malloc
from vrange._counters.lazyfree import lazyfree_bytes
from vrange.cli.memory_cgroup import MemoryCgroup

HERE = Path(__file__).parent
PARTS = ["kinds", "resizes", "refusals", "threads", "forks", "vforks", "signals"]


def alike(*command: object) -> subprocess.CompletedProcess[bytes]:
    without, within = start(*command, preloaded=False), start(*command)
    assert (within.returncode, within.stderr) == (without.returncode, without.stderr)
    assert within.stdout == without.stdout
    return within


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(HERE / "blocks.c", tmp_path_factory.mktemp("blocks") / "blocks")


@pytest.mark.parametrize("part", PARTS)
def test_a_c_program_that_uses_malloc_in_every_way(blocks: Path, part: str) -> None:
    done = start(blocks, part)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"done\n", b"")


def test_freed_memory_is_the_kernel_s_and_is_used_again(blocks: Path) -> None:
    """One block in eight is alive, so glibc returns nothing of the others."""
    done = start(blocks, "freed")
    assert done.returncode == 0, done.stderr
    figures = {line.split()[0]: int(line.split()[1]) for line in done.stdout.splitlines()[:-1]}
    freed = 896 * 100
    assert figures[b"lazyfree_kib"] > 0.85 * freed
    assert figures[b"rss_kib"] < 1024 * 100 + 16 * 1024  # the same pages again
    plain = start(blocks, "freed", preloaded=False)
    assert b"lazyfree_kib 0\n" in plain.stdout


GREEDY = """
import sys
held = [bytearray(b"x") * (1 << 20) for _ in range(int(sys.argv[1]))]
"""
HOLDER = """
import sys
blocks = [bytearray(b"x") * (100 << 10) for _ in range(2400)]
kept = blocks[::8]
del blocks
print("freed", flush=True)
sys.stdin.readline()
assert all(one == b"x" * (100 << 10) for one in kept)
"""


@pytest.mark.memory_cgroup
def test_another_process_gets_what_was_freed() -> None:
    group = MemoryCgroup(320 * MIB)
    try:
        with subprocess.Popen(
            [sys.executable, "-I", "-c", HOLDER],
            env={**os.environ, "LD_PRELOAD": LIBRARY},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            preexec_fn=lambda: group.add(os.getpid()),
        ) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"freed\n"
            wait_until(lambda: (lazyfree_bytes(holder.pid) or 0) > 180 * MIB, "it is offered")
            # Together they have had more than the limit.
            other = subprocess.run(
                [sys.executable, "-I", "-c", GREEDY, "200"],
                preexec_fn=lambda: group.add(os.getpid()),
                timeout=60,
                check=False,
            )
            assert other.returncode == 0
            holder.communicate(b"\n", timeout=60)
            assert holder.returncode == 0
    finally:
        group.close()


def test_what_the_program_does_not_use_again_is_returned() -> None:
    """Nothing needs the memory, so the kernel takes none of it."""
    with subprocess.Popen(
        [sys.executable, "-I", "-c", HOLDER],
        env={**os.environ, "LD_PRELOAD": LIBRARY},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"freed\n"
        statm = Path(f"/proc/{holder.pid}/statm")

        def resident() -> int:
            return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

        assert resident() > 200 * MIB
        wait_until(lambda: resident() < 60 * MIB, "it is returned")
        holder.communicate(b"\n", timeout=60)
        assert holder.returncode == 0


def survives(limit: int, code: str, *arguments: object) -> None:
    with MemoryCgroup(limit) as group:
        done = subprocess.run(
            [sys.executable, "-I", "-c", code, *map(str, arguments)],
            env={**os.environ, "LD_PRELOAD": LIBRARY},
            preexec_fn=lambda: group.add(os.getpid()),
            timeout=60,
            check=False,
        )
        assert group.oom_kills == 0
    assert done.returncode == 0


LARGE_THEN_SMALL = """
import time
LARGE, SMALL = 38 << 20, 36 << 20
for turn in range(6):
    block = bytearray(LARGE)
    del block
    held = [bytes(400) for _ in range(SMALL // 440)]  # blocks that glibc serves
    del held
    time.sleep(0.2 * (turn % 2))
"""


@pytest.mark.memory_cgroup
def test_a_program_with_little_memory_left_needs_what_it_has_just_freed() -> None:
    """With glibc, which returns a large block at its free, it survives."""
    survives(64 * MIB, LARGE_THEN_SMALL)


SMALL_THEN_LARGE = """
import sys
small_bytes, large_bytes = (int(size) << 20 for size in sys.argv[1:])
kept = []
for turn in range(4):
    small = [bytearray(b"s" * 4000) for _ in range(small_bytes // 4096)]  # glibc's
    kept.append(small[::200])  # so that glibc can't give the end of its memory back
    del small
    large = [bytearray(b"l") * ((256 << 10) - 64) for _ in range(large_bytes >> 18)]
    del large
"""


@pytest.mark.memory_cgroup
@pytest.mark.parametrize("sizes", [(90, 60), (60, 90), (70, 70)])
def test_what_glibc_keeps_of_small_blocks_is_there_for_large_ones(sizes: tuple[int, int]) -> None:
    """Glibc alone makes large blocks of it. Together both kinds need more than there is."""
    survives(128 * MIB, SMALL_THEN_LARGE, *sizes)


def test_programs_that_are_not_python(tmp_path: Path) -> None:
    source = tmp_path / "large.c"
    source.write_text("".join(f"int f{i}(int x) {{ return x * {i}; }}\n" for i in range(4000)))
    alike("gcc", "-O1", "-S", source, "-o", "-")
    if shutil.which("git"):
        repository = tmp_path / "repository"
        start("git", "init", "-q", repository)
        (repository / "large").write_bytes(os.urandom(3 * MIB) + b"a" * 3 * MIB)
        git = ["git", "-C", repository, "-c", "user.name=a", "-c", "user.email=a@b"]
        assert start(*git, "add", "large").returncode == 0
        assert start(*git, "commit", "-q", "-m", "one").returncode == 0
        alike(*git, "log", "--stat", "-p")
        assert start(*git, "fsck", "--full").returncode == 0
    alike("sh", "-c", "for i in 1 2 3; do seq 100000 | sort -R | sort -n | md5sum; done")


@pytest.mark.parametrize(
    "code",
    [
        "import json; d = {str(i): [i] * 9 for i in range(90000)}\n"
        "print(json.loads(json.dumps(d)) == d)",
        "import zlib, os; d = os.urandom(9) * 900000\n"
        "print(zlib.decompress(zlib.compress(d)) == d)",
        "import sqlite3; c = sqlite3.connect(':memory:'); c.execute('create table t (a, b)')\n"
        "c.executemany('insert into t values (?, ?)', ((i, b'x' * i) for i in range(3000)))\n"
        "print(c.execute('select count(*), sum(length(b)) from t').fetchall())\n"
        "print(len(c.serialize()))",
        "import numpy, pandas\n"
        "d = pandas.DataFrame({str(i): numpy.arange(3e5) % 97 for i in range(6)})\n"
        "print(d.groupby('0').sum().to_csv(), d.sort_values(['3', '1']).iloc[::9999])",
        "import pyarrow, numpy\nt = pyarrow.table({'a': numpy.arange(3e5)})\n"
        "print(t.to_pandas().sum(), t.take(numpy.arange(0, 300000, 7)).nbytes)",
        "import multiprocessing\nif __name__ == '__main__':\n"
        "    with multiprocessing.get_context('fork').Pool(3) as p:\n"
        "        print(sum(map(len, p.map(bytes, [300000] * 60))))",
        "import threading\ndef f(n):\n    for i in range(300): bytearray(70000 + n * i)\n"
        "a = [threading.Thread(target=f, args=(n,)) for n in range(8)]\n"
        "[t.start() for t in a]; [t.join() for t in a]; print('joined')",
    ],
)
def test_python_programs(code: str, tmp_path: Path) -> None:
    file = tmp_path / "program.py"
    file.write_text(code)
    assert alike(sys.executable, file).returncode == 0


def test_tests_of_cpython() -> None:
    parts = [
        "test_bytes",
        "test_array",
        "test_zlib",
        "test_memoryview",
        "test_resource",
        "test_fork1",
    ]
    done = start(sys.executable, "-I", "-m", "test", "-q", *parts)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_the_process_has_one_core() -> None:
    look = (
        "import vrange.heap, sys\n"
        "a = bytearray(10 << 20); b = vrange.heap.info().used_bytes\n"
        "print(b >= 10 << 20, len({l.split()[-1] for l in open('/proc/self/maps') "
        "if l.rstrip().endswith('libvrange.so.0')}))"
    )
    done = start(sys.executable, "-c", look)
    assert done.stdout == b"True 1\n", done.stderr


def test_numpy_s_handler_and_malloc_share_the_heap() -> None:
    look = (
        "import numpy, vrange.heap\n"
        "a = bytearray(10 << 20)\n"
        "vrange.heap.use_for_numpy()\n"
        "b = numpy.ones(10 << 20, 'u1'); print(vrange.heap.info().used_bytes >= 20 << 20)\n"
        "account = [one for one in vrange.stats().accounts if one.kind == 'heap'][0]\n"
        "print(account.pinned_bytes >= 20 << 20)\n"
        "import os\n"
        "if (child := os.fork()) == 0: del a, b; os._exit(0)\n"
        "print(os.waitpid(child, 0)[1], b.sum())"
    )
    done = start(sys.executable, "-c", look)
    assert done.stdout == b"True\nTrue\n0 10485760\n", done.stderr


def test_a_program_that_limits_itself_gets_the_address_space() -> None:
    code = (
        "import resource, os\n"
        "a = [bytearray(1 << 20) for _ in range(50)]\n"
        "now = int(open('/proc/self/statm').read().split()[0]) * os.sysconf('SC_PAGESIZE')\n"
        "most = 1 << 30\n"
        "resource.setrlimit(resource.RLIMIT_AS, (most, most))\n"
        "now = int(open('/proc/self/statm').read().split()[0]) * os.sysconf('SC_PAGESIZE')\n"
        "print(now < most // 2)\n"
        "b = [bytearray(1 << 20) for _ in range(100)]; del a, b\n"
        "try: bytearray(2 << 30)\n"
        "except MemoryError: print('MemoryError')\n"
    )
    done = start(sys.executable, "-I", "-c", code)
    assert done.stdout == b"True\nMemoryError\n", done.stderr


OWN = """
#include <stddef.h>
#include <stdio.h>
#include <string.h>
static char memory[64 << 20]; static size_t used;
void *malloc(size_t n) { void *p = memory + used; used += (n + 31) & ~(size_t)15; return p; }
void free(void *p) {}
void *calloc(size_t a, size_t b) { return malloc(a * b); }
void *realloc(void *p, size_t n) { void *q = malloc(n); if (p) memmove(q, p, n); return q; }
void *reallocarray(void *, size_t, size_t);
int main(void) {
    char *p = malloc(1 << 20), *q = reallocarray(NULL, 1 << 10, 1 << 10);
    memset(p, 1, 1 << 20);
    free(p), free(q);
    const char *end = memory + sizeof memory;
    return !(p >= memory && p < end && q >= memory && q < end);
}
"""


def test_a_program_with_an_allocator_of_its_own_keeps_it(tmp_path: Path) -> None:
    (tmp_path / "own.c").write_text(OWN)
    done = start(compiled(tmp_path / "own.c", tmp_path / "own", "-fno-builtin"))
    assert (done.returncode, done.stderr) == (0, b"")


def test_the_library_leaves_its_public_names_to_the_program() -> None:
    """Debian's Python has them bound within the library, where extensions are built."""
    listed = subprocess.run(["objdump", "-R", LIBRARY], capture_output=True, text=True, check=True)
    names = {line.split()[-1].split("@")[0] for line in listed.stdout.splitlines() if line}
    assert {"malloc", "free", "realloc"} <= names


OTHERS = ["jemalloc", "mimalloc", "tcmalloc_minimal"]


def other_allocator(name: str) -> str:
    found = ctypes.util.find_library(name)
    if found is None:
        pytest.skip(f"lib{name} is not installed")
    return found


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("comes_first", [True, False])
def test_another_allocator_beside_it(blocks: Path, name: str, comes_first: bool) -> None:
    """Some replace the names by which glibc's own functions are called, too."""
    both = [other_allocator(name), LIBRARY]
    preloaded = ":".join(both if comes_first else reversed(both))
    for part in ("resizes", "threads"):
        done = start(blocks, part, preloaded=False, LD_PRELOAD=preloaded)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"done\n", b"")


@pytest.mark.parametrize("name", OTHERS)
def test_a_program_that_is_linked_to_another_allocator(tmp_path: Path, name: str) -> None:
    linked = ["-fno-builtin", "-Wl,--no-as-needed", f"-l:{other_allocator(name)}"]
    program = compiled(HERE / "blocks.c", tmp_path / "blocks", *linked)
    for part in ("resizes", "threads"):
        done = start(program, part)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"done\n", b"")


def test_a_program_with_a_sanitizer_is_told(tmp_path: Path) -> None:
    (tmp_path / "one.c").write_text("int main(void) { return 0; }\n")
    options = [
        "-fsanitize=address",
        "-shared-libasan" if "clang" in os.environ.get("CC", "") else "",
    ]
    try:
        built = compiled(tmp_path / "one.c", tmp_path / "one", *filter(None, options))
    except subprocess.CalledProcessError:
        pytest.skip("this compiler has no sanitizer")
    done = start(built)
    assert done.returncode in (0, 1), done.stderr
    assert b"ASan runtime does not come first" in done.stderr or b"run it without" in done.stderr
    assert done.returncode != -signal.SIGSEGV


def test_a_library_that_comes_and_goes(tmp_path: Path) -> None:
    (tmp_path / "part.c").write_text(
        "#include <stdlib.h>\n#include <string.h>\nstatic char *held;\n"
        "__attribute__((constructor)) static void a(void)\n"
        "{ held = malloc(300000); memset(held, 1, 300000); }\n"
        "__attribute__((destructor)) static void b(void) { free(held); }\n"
    )
    part = compiled(tmp_path / "part.c", tmp_path / "part.so", "-shared", "-fPIC")
    code = (
        "import ctypes, _ctypes, sys\n"
        "for _ in range(50): _ctypes.dlclose(ctypes.CDLL(sys.argv[1])._handle)\n"
        "print('closed')"
    )
    assert start(sys.executable, "-I", "-c", code, part).stdout == b"closed\n"


def test_where_it_is_and_what_it_refuses(tmp_path: Path) -> None:
    done = start(sys.executable, "-m", "vrange.malloc", preloaded=False)
    assert done.stdout.decode().strip() == LIBRARY
    assert vrange.malloc.preload({}) == LIBRARY
    assert vrange.malloc.preload({"LD_PRELOAD": f"a.so {LIBRARY}"}) == f"{LIBRARY}:a.so"
    with pytest.raises(vrange.VrangeError, match="only one allocator can serve malloc"):
        vrange.malloc.preload({"LD_PRELOAD": "/usr/lib/libjemalloc.so.2"})


def test_without_glibc_it_says_why_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vrange.malloc._LIBRARY", tmp_path / "is not in a wheel for musl")
    monkeypatch.setattr("platform.libc_ver", lambda: ("libc", ""))  # musl
    with pytest.raises(vrange.VrangeError, match=r"stands on glibc's, and .* another C library"):
        vrange.malloc.library()
