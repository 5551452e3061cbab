"""Volatile arrays where memory is really short: in a cgroup, which kills who is over its limit.

Each test's process puts a child of its own into the cgroup, and sees whether the kernel killed it.
"""

from __future__ import annotations

from textwrap import dedent

import pytest
from array_support import ends_well, on_refault

pytestmark = pytest.mark.memory_cgroup

# `in_cgroup(limit, work)` runs `work()` in a child, and tells how often something was killed there.
CGROUP = """
from vrange.cli.memory_cgroup import MemoryCgroup
ffi, c = fill_functions()
start = ffi.new("uint64_t *", 5)
def new(nbytes, name="array", **options):
    fill = vrange.fills.native(c.count_from, start)
    return vrange.VolatileArray(nbytes // 8, "u8", fill=fill, name=name, **options)
def right(view, first=5):
    '''Compared by parts: all of it at once would take memory of its own.'''
    step = 1 << 16
    counted = np.arange(first, first + step)
    return all(np.array_equal(view[i:i + step], (counted + i)[:len(view) - i])
               for i in range(0, len(view), step))
def in_cgroup(limit, work, beside=lambda group: None):
    with MemoryCgroup(limit) as group:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                group.add(os.getpid())
                work()
                status = 0
            except BaseException:
                import traceback
                traceback.print_exc()
                sys.stderr.flush()
            os._exit(status)
        beside(group)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert status in (0, -signal.SIGKILL), status
        assert (status == 0) == (group.oom_kills == 0), (status, group.oom_kills)
        return group.oom_kills
"""


@on_refault
@pytest.mark.parametrize("block_bytes", [4096, 65536, 2 << 20])
def test_an_array_four_times_as_large_as_the_limit(block_bytes: int) -> None:
    code = f"""
    LIMIT = 64 * MIB
    def work():
        a = new(4 * LIMIT, block_bytes={block_bytes})
        view = np.asarray(a)
        for _ in range(2):
            assert right(view)
            assert 0 < a.resident_bytes <= LIMIT
        assert a.refilled_bytes >= 7 * LIMIT
        for i in np.random.default_rng(3).integers(0, len(view), 500): assert view[i] == i + 5
    assert in_cgroup(LIMIT, work) == 0
    """
    assert ends_well(CGROUP + dedent(code)) == ""


@on_refault
def test_an_ordinary_array_is_killed_there() -> None:
    """Or these tests would prove nothing."""
    code = """
    def work():
        a = np.ones(4 * 64 * MIB, "u1")
    assert in_cgroup(64 * MIB, work) == 1
    """
    assert ends_well(CGROUP + dedent(code)) == ""


@on_refault
def test_many_arrays_at_once_that_nobody_offers() -> None:
    """The thread of the reserve sleeps: who fills tells the kernel himself, of all arrays."""
    code = """
    LIMIT = 96 * MIB
    def work():
        vrange.set_reserve("16MiB", tick=10)
        arrays = [new(14 * MIB, str(i)) for i in range(24)]
        views = [np.asarray(a) for a in arrays]
        for i in range(0, 14 * MIB // 8, 8192):
            for view in views:
                assert view[i] == i + 5
        assert sum(a.refilled_bytes for a in arrays) >= 3 * LIMIT
        assert all(right(view) for view in views)
    assert in_cgroup(LIMIT, work) == 0
    """
    assert ends_well(CGROUP + dedent(code)) == ""


@on_refault
def test_many_threads_and_their_buffers() -> None:
    code = """
    LIMIT = 96 * MIB
    content = np.zeros(24 * MIB, "i8")
    content[::4096] = np.arange(5, 5 + len(content), 4096)
    fill = vrange.fills.compressed(content, block_bytes="2MiB", level=1)
    def work():
        a = vrange.VolatileArray(24 * MIB, "i8", fill=fill, block_bytes="2MiB")
        view = np.asarray(a)
        good = []
        def read(i):
            part = view[i::1 << 22]
            good.append(np.array_equal(part, np.arange(5 + i, 5 + len(view), 1 << 22)))
        threads = [threading.Thread(target=read, args=(i * 4096,)) for i in range(48)]
        for t in threads: t.start()
        for t in threads: t.join()
        assert good == [True] * 48
    assert in_cgroup(LIMIT, work) == 0
    """
    assert ends_well(CGROUP + dedent(code)) == ""


@on_refault
def test_the_limit_shrinks_while_threads_read() -> None:
    code = """
    read_end, write_end = os.pipe()
    def work():
        os.close(write_end)
        a = new(192 * MIB)
        view = np.asarray(a)
        stop, good = False, []
        def scan():
            rounds = 0
            while not stop or rounds == 0:
                good.append(right(view))
                rounds += 1
        def pick():
            random = np.random.default_rng()
            while not stop:
                i = int(random.integers(0, len(view) - 1000))
                with a.pin(slice(i, i + 1000)) as pinned: good.append(right(pinned, 5 + i))
        threads = [threading.Thread(target=f) for f in (scan, pick)]
        for t in threads: t.start()
        os.read(read_end, 1)
        stop = True
        for t in threads: t.join()
        assert all(good) and len(good) > 100
        assert a.resident_bytes <= 64 * MIB
        assert a.refilled_bytes > 192 * MIB
    def beside(group):
        os.close(read_end)
        for limit in range(256, 63, -16):
            time.sleep(0.05)
            for _ in range(100):
                try: group.limit_bytes = limit * MIB
                except OSError: time.sleep(0.01)  # v1, where not enough can be taken just now
                else: break
            else: raise AssertionError(limit)
        time.sleep(0.2)
        os.write(write_end, b"1")
    assert in_cgroup(256 * MIB, work, beside) == 0
    """
    assert ends_well(CGROUP + dedent(code)) == ""


@on_refault
def test_pins_survive_pressure_and_the_rest_makes_room() -> None:
    code = """
    LIMIT = 128 * MIB
    def work():
        a = new(96 * MIB)
        whole = np.asarray(a)
        with a.pin(slice(0, 2 * MIB)) as pinned:
            assert right(whole)
            before = a.resident_bytes
            assert before >= 90 * MIB
            refaults = a.refaults
            app = [np.ones(8 * MIB, "u1") for _ in range(10)]  # what somebody else needs, at once
            assert a.resident_bytes <= before - 40 * MIB
            assert all(resident_pages(pinned))
            read, write = os.pipe()
            os.set_blocking(write, False)
            assert os.write(write, pinned[:1000]) == 8000
            assert right(pinned)
            assert a.refaults == refaults
            del app
        del pinned
        assert right(whole)
    assert in_cgroup(LIMIT, work) == 0
    """
    assert ends_well(CGROUP + dedent(code)) == ""


@on_refault
def test_python_fills_under_pressure() -> None:
    code = """
    LIMIT = 64 * MIB
    def fill(start, out): out[:] = np.arange(5 + start, 5 + start + len(out))
    def work():
        touched = vrange.VolatileArray(16 * MIB, "u8", fill=fill, fault="python")
        assert right(np.asarray(touched))
        indexed = vrange.VolatileArray(16 * MIB, "u8", fill=fill)
        for i in range(0, 16 * MIB, 1 << 16):
            assert right(indexed[i:i + (1 << 16)], 5 + i)
        assert touched.resident_bytes + indexed.resident_bytes < LIMIT
    assert in_cgroup(LIMIT, work) == 0
    """
    assert ends_well(CGROUP + dedent(code)) == ""


@on_refault
def test_a_fork_server_under_one_limit() -> None:
    code = """
    def work():
        a = new(128 * MIB)
        view = np.asarray(a)
        view[::512].sum()
        children = []
        for i in range(3):
            pid = os.fork()
            if pid == 0: os._exit(0 if right(view) else 1)
            children.append(pid)
        assert right(view)
        for pid in children: assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    import warnings
    warnings.simplefilter("ignore", DeprecationWarning)
    assert in_cgroup(96 * MIB, work) == 0
    """
    assert ends_well(CGROUP + dedent(code)) == ""


@on_refault
def test_what_can_not_be_pinned_at_once_is_refused_and_written_by_parts() -> None:
    code = """
    LIMIT = 96 * MIB
    def work():
        a = new(4 * LIMIT)
        with tempfile.TemporaryFile() as file:
            for use in (
                lambda: file.write(a), lambda: os.write(file.fileno(), a),
                lambda: a.pin().__enter__(), lambda: a.fill_ahead(),
            ):
                try:
                    use()
                except vrange.ArenaFullError as error:
                    assert "384.0 MiB of array 'array' can't be pinned at once" in str(error), error
                    assert "tofile" in str(error)
                else:
                    raise AssertionError("there is no room for it")
            np.save(file, a)
            a.tofile(file)
            assert file.tell() == 2 * a.nbytes + 128
            file.seek(128 + a.nbytes - 8)
            assert np.frombuffer(file.read(16), "u8").tolist() == [a.size + 4, 5]
        assert a.size + 4 in a
        with a.pin(slice(0, 40 * MIB // 8)) as part: assert right(part)
    assert in_cgroup(LIMIT, work) == 0
    """
    assert ends_well(CGROUP + dedent(code)) == ""
