"""Volatile arrays in the children of a fork: what is read is right, and the parent's is its own."""

from __future__ import annotations

from textwrap import dedent

import pytest
from array_support import ends_well, on_refault

# Content begins with what is in `start`: a child that changes that fills with something else.
ARRAY = """
ffi, c = fill_functions()
start = ffi.new("uint64_t *", 5)
N = 40 * 512 + 100
def new(name="array", **options):
    fill = vrange.fills.native(c.count_from, start)
    return vrange.VolatileArray(N, "u8", fill=fill, block_bytes=PAGE, name=name, **options)
def right(view, first=5): return np.array_equal(view, np.arange(first, first + len(view)))
def in_child(check):
    '''Forks; the child ends well where `check` is true there.'''
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            if check(): status = 0
        except BaseException as error:
            print("in the child:", repr(error), file=sys.stderr, flush=True)
        os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of forks while there are threads
"""


@on_refault
@pytest.mark.parametrize("when", ["before", "after", "both", "pages before", "pages after"])
def test_blocks_lost_before_and_after_the_fork(when: str) -> None:
    code = f"""
    when = {when!r}
    a = new()
    view = np.asarray(a)
    def drop_pages():
        # As the kernel drops them. It does not take from one what the other has too.
        import ctypes
        for page in range(0, 40, 3):
            place = ctypes.c_void_p(address_of(view) + page * PAGE)
            assert ctypes.CDLL(None).madvise(place, ctypes.c_size_t(PAGE), MADV_DONTNEED) == 0
    def check(lost=False):
        before = a.refaults
        if when in ("after", "both"): a.discard()
        if when == "pages after": drop_pages()
        assert right(view)
        assert a.refaults > before or not lost
        with a.pin() as pinned: assert right(pinned)
        del pinned
        a.discard()
        assert a.resident_bytes == 0
        assert right(np.asarray(a))
        b = new("another")
        return right(np.asarray(b))
    for _ in range(5):
        assert right(view)
        if when in ("before", "both"): a.discard()
        if when == "pages before": drop_pages()
        assert in_child(lambda: check(lost=True)) == 0
    assert in_child(lambda: in_child(check) == 0 and check()) == 0, "a child's child"
    """
    assert ends_well(ARRAY + dedent(code)) == ""


@on_refault
def test_a_child_does_not_fill_its_parents_memory() -> None:
    code = """
    a = new()
    view = np.asarray(a)
    view[:512].sum()
    a.discard()
    def check():
        start[0] = 1000000
        assert right(view, 1000000)
        with a.pin() as pinned: assert right(pinned, 1000000)
        a.discard()
        return right(view, 1000000)
    before = a.refaults
    assert in_child(check) == 0
    assert a.resident_bytes == 0 and a.refaults == before
    assert right(view)
    # And the other way round: what the parent fills later, the child does not see.
    read, write = os.pipe()
    def check_later():
        os.read(read, 1)
        start[0] = 2000000
        return right(view, 2000000)
    a.discard()
    pid = os.fork()
    if pid == 0: os._exit(0 if check_later() else 1)
    assert right(view)
    os.write(write, b"1")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    """
    assert ends_well(ARRAY + dedent(code)) == ""


@on_refault
def test_pins_hold_on_both_sides() -> None:
    code = """
    a = new()
    with a.pin(slice(0, 5000)) as view:
        address = address_of(view)
        def check():
            a.discard()
            assert a.resident_bytes == 10 * PAGE
            return right(view)
        assert in_child(check) == 0
        a.discard()
        assert a.resident_bytes == 10 * PAGE and right(view)
    """
    assert ends_well(ARRAY + dedent(code)) == ""


@on_refault
def test_a_childs_arrays_are_closed_without_harm() -> None:
    code = """
    a, b = new(), new()
    view = np.asarray(b)
    def check():
        global view
        a.close(), b.close()
        del view
        return right(np.asarray(new()))
    assert in_child(check) == 0
    assert right(np.asarray(a)) and right(view)
    """
    assert ends_well(ARRAY + dedent(code)) == ""


@on_refault
def test_multiprocessing_pool() -> None:
    code = """
    a = new()
    view = np.asarray(a)
    view[:3000].sum()
    def part(i):
        if i % 7 == 0: a.discard()
        return int(view[i * 512:(i + 1) * 512].sum())
    a.discard()
    context = multiprocessing.get_context("fork")
    with context.Pool(3) as pool:
        for _ in range(3):
            sums = pool.map(part, range(40), chunksize=1)
            assert sums == [int(np.arange(5 + i * 512, 5 + (i + 1) * 512).sum()) for i in range(40)]
            a.discard()
    assert right(view)
    """
    assert ends_well(ARRAY + dedent(code)) == ""


@on_refault
def test_a_server_that_forks_ahead() -> None:
    """Its children live while the parent goes on, and their memory is taken at different times."""
    code = """
    import socket
    a = new()
    view = np.asarray(a)
    assert right(view)
    workers = []
    for number in range(4):
        if number % 2: a.discard()
        else: view.sum()
        ask, answer = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            ask.close()
            for _, other in workers: other.close()
            good = True
            while ask_one := answer.recv(1):
                if ask_one == b"d": a.discard()
                good = right(view) and good
                answer.send(b"y" if good else b"n")
            os._exit(0)
        answer.close()
        workers.append((pid, ask))
    for round in range(6):
        for number, (pid, ask) in enumerate(workers):
            ask.send(b"d" if (round + number) % 2 else b"r")
        if round % 2: a.discard()
        assert right(view)
        assert [ask.recv(1) for pid, ask in workers] == [b"y"] * 4
    for pid, ask in workers:
        ask.close()
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    """
    assert ends_well(ARRAY + dedent(code)) == ""


@on_refault
def test_forks_while_other_threads_touch() -> None:
    code = """
    a = new()
    view = np.asarray(a)
    stop = False
    def touch():
        while not stop:
            a.discard()
            assert right(view)
    def pin():
        while not stop:
            with a.pin(slice(100, 9000)) as pinned: assert right(pinned, 105)
    threads = [threading.Thread(target=f) for f in (touch, touch, pin)]
    for t in threads: t.start()
    try:
        for _ in range(40):
            assert in_child(lambda: right(view) and (a.discard(), right(np.asarray(a)))[1]) == 0
    finally:
        stop = True
        for t in threads: t.join()
    """
    assert ends_well(ARRAY + dedent(code)) == ""


@on_refault
def test_a_python_fill_in_a_touch_in_children() -> None:
    code = """
    def fill(start, out): out[:] = np.arange(start, start + len(out)) + os.getpid()
    a = vrange.VolatileArray(N, "i8", fill=fill, block_bytes=PAGE, fault="python")
    view = np.asarray(a)
    def check():
        a.discard()
        return right(view, os.getpid())
    assert check() and in_child(check) == 0 and check()
    """
    assert ends_well(ARRAY + dedent(code)) == ""


@on_refault
def test_signals_in_children() -> None:
    """Somebody looks after the handler there too."""
    code = """
    a = new()
    def check():
        with a.pin(0): pass
        got = []
        signal.signal(signal.SIGBUS, lambda number, frame: got.append(number))
        settle()
        a.discard()
        assert right(np.asarray(a))
        assert got == []
        os.kill(os.getpid(), signal.SIGBUS)
        return got == [signal.SIGBUS]
    assert in_child(check) == 0
    def fails():
        os.kill(os.getpid(), signal.SIGBUS)
        time.sleep(5)
    assert in_child(fails) == -signal.SIGBUS
    """
    assert ends_well(ARRAY + dedent(code)) == ""


@on_refault
def test_a_fork_does_not_touch_the_pins_of_a_large_array() -> None:
    code = """
    a = vrange.VolatileArray(1 << 40, "u1", fill=vrange.fills.zero())
    def check():
        with open("/proc/self/smaps_rollup") as file:
            [dirty] = [int(l.split()[1]) for l in file if l.startswith("Private_Dirty:")]
        return dirty < 40_000  # KiB; the pins of this array take 64 MiB
    assert in_child(check) == 0
    """
    assert ends_well(ARRAY + dedent(code)) == ""
