"""Programs that close every descriptor and open their own: vrange touches none of those.

A daemon closes all it has, and its own files get the numbers. So a child here closes what vrange
has, opens a file for each of those numbers, and looks whether each stays open, the same, and at its
place.
"""

from __future__ import annotations

import os
import textwrap
from pathlib import Path

import pytest
from array_support import REFAULT
from support import succeeds

from vrange._counters.descriptor import Descriptor

PRELUDE = """
import errno, os, sys, tempfile, threading, time
import numpy as np, vrange

N = 100
cache = vrange.VolatileCache(hot_bytes=0)
value = lambda n: np.full(20_000, n)
def use():
    for n in range(N):
        assert (cache.get_or_compute(n, lambda: value(n)) == n).all()

theirs = {}
def put_their_own(directory):
    "Closes all, and gives every number that was vrange's to a file of the program's."
    numbers = [int(name) for name in os.listdir("/proc/self/fd") if int(name) > 2]
    was = {}
    for n in numbers:
        try:
            was[n] = os.readlink(f"/proc/self/fd/{n}")
        except FileNotFoundError:
            pass  # the listing's own, or another thread closed it
    os.closerange(3, 4096)
    file = os.open(os.path.join(directory, "theirs"), os.O_RDWR | os.O_CREAT)
    os.write(file, b"7" * 4096)
    for n in sorted(set(was) - {file}):
        try:
            os.dup2(file, n)
        except OSError as error:
            # Another thread is just opening a file under that number, which is its own then.
            if error.errno != errno.EBUSY:
                raise
            del was[n]
    for n in {*was, file}:
        theirs[n] = (os.fstat(n).st_ino, was.get(n))
    os.lseek(file, 17, os.SEEK_SET)

def check(where):
    for n, (inode, was) in theirs.items():
        try:
            assert os.fstat(n).st_ino == inode, (where, n, was, "is another file")
            assert os.lseek(n, 0, os.SEEK_CUR) == 17, (where, n, was, "was read")
            assert os.pread(n, 5000, 0) == b"7" * 4096, (where, n, was, "was written")
        except OSError as error:
            raise AssertionError((where, n, was, "was closed")) from error

def in_child(function):
    pid = os.fork()
    if pid == 0:
        try:
            function()
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""


def run(code: str, directory: Path, *arguments: object) -> None:
    succeeds(
        PRELUDE + textwrap.dedent(code),
        directory,
        *arguments,
        environment={"PYTHONWARNINGS": "ignore::DeprecationWarning"},
    )


def test_a_cache_goes_on(tmp_path: Path) -> None:
    code = """
    use()
    time.sleep(0.05)
    put_their_own(sys.argv[1])
    for turn in range(3):
        use(); time.sleep(0.05); check("use")
        cache.discard()
    """
    run(code, tmp_path)


def test_the_child_of_a_fork(tmp_path: Path) -> None:
    code = """
    use()
    put_their_own(sys.argv[1])
    in_child(lambda: (check("fork"), use(), time.sleep(0.05), check("use in the child")))
    check("a child")
    """
    run(code, tmp_path)


def test_a_reserve_that_is_set_anew(tmp_path: Path) -> None:
    code = """
    use()
    put_their_own(sys.argv[1])
    vrange.set_reserve("32MiB"); check("set_reserve")
    vrange.set_reserve(); time.sleep(0.15); check("set_reserve")
    """
    run(code, tmp_path)


def test_the_watcher_of_pressure(tmp_path: Path) -> None:
    code = """
    watcher = vrange.pressure.watch()
    time.sleep(0.05)
    put_their_own(sys.argv[1])
    time.sleep(0.3); check("looks")
    in_child(lambda: check("fork"))
    watcher.close(); check("close")
    """
    run(code, tmp_path)


def test_threads_that_close_again_and_again(tmp_path: Path) -> None:
    """What is opened between a check and a use is not closed either, as far as this tells."""
    code = """
    use()
    end = time.monotonic() + 2
    def use_on():
        while time.monotonic() < end:
            use()
    thread = threading.Thread(target=use_on)
    thread.start()
    while time.monotonic() < end:
        theirs.clear()
        put_their_own(sys.argv[1])
        for _ in range(20):
            check("use")
    thread.join()
    """
    run(code, tmp_path)


# Ends the process at the next close() by any of its threads.
FORBID_CLOSE = """
import ctypes, platform, struct
def forbid_close():
    libc = ctypes.CDLL(None, use_errno=True)
    close, seccomp = {"x86_64": (3, 317), "aarch64": (57, 277)}[platform.machine()]
    end, allow = 0x80000000, 0x7FFF0000
    program = [(0x20, 0, 0, 0), (0x15, 0, 1, close), (0x06, 0, 0, end), (0x06, 0, 0, allow)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in program))
    filter = struct.pack("HxxxxxxQ", len(program), ctypes.addressof(code))
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    assert libc.syscall(seccomp, 1, 1, ctypes.c_char_p(filter)) == 0
"""


@pytest.mark.parametrize("limit", ["", "vrange.set_limit('96MiB', measure='rss')"])
def test_nothing_is_closed_while_a_program_runs(tmp_path: Path, limit: str) -> None:
    """A close between another thread's close and open would hit that thread's file."""
    code = f"""
    {limit}
    watcher = vrange.pressure.watch()
    deep = vrange.deep_recursion(lambda n: n and deep(n - 1))
    def everything():
        use(); cache.discard(5); deep(2000)
    everything()
    time.sleep(0.1)
    in_child(lambda: None)
    everything()
    forbid_close()
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        everything(); time.sleep(0.005)
    os._exit(0)
    """
    run(FORBID_CLOSE + textwrap.dedent(code), tmp_path)


@pytest.mark.skipif(not REFAULT, reason="arrays need the refault rung")
@pytest.mark.parametrize("touch", ["view[:].tobytes()", "array.pin().__enter__().tobytes()"])
def test_a_file_that_an_array_reads_is_found_again(tmp_path: Path, touch: str) -> None:
    content = os.urandom(300_000)
    (tmp_path / "content").write_bytes(content)
    code = f"""
    os.chdir(sys.argv[1])
    array = vrange.VolatileArray(300_000, "u1", fill=vrange.fills.file("content"))
    view = np.asarray(array)
    content = view.tobytes()
    put_their_own(sys.argv[1])
    time.sleep(0.1)
    os.chdir("/")
    array.discard()
    assert {touch} == content
    check("a touch")
    os.remove(os.path.join(sys.argv[1], "content"))
    os.link(os.path.join(sys.argv[1], "theirs"), os.path.join(sys.argv[1], "content"))
    array.discard()
    try:
        array.pin().__enter__()
        raise AssertionError("the content of another file was taken")
    except vrange.RegenerationError as error:
        assert "Stale" in repr(error) + repr(error.__cause__), repr(error)
    check("a pin")
    del view
    array.close()
    del array
    check("close")
    """
    run(code, tmp_path)


def test_a_number_that_became_another_file(tmp_path: Path) -> None:
    ours = Descriptor(os.open(tmp_path, os.O_RDONLY))
    assert ours.is_ours()
    os.close(ours.number)
    assert not ours.is_ours()
    ours.close()
    (tmp_path / "theirs").touch()
    theirs = os.open(tmp_path / "theirs", os.O_RDONLY)
    if theirs != ours.number:
        os.dup2(theirs, ours.number)
    assert not ours.is_ours()
    ours.close()
    os.fstat(ours.number)
    os.close(ours.number)
