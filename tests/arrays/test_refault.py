"""SIGBUS is shared: with faulthandler, with handlers before and after ours, and with real errors.

Each case is a process of its own, which ends as it would without vrange or with our message.
"""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest
from array_support import ends_by_sigbus, ends_well, on_refault, python

# An array of four lost blocks of one page, and a file mapping whose touch is a real SIGBUS.
ARRAY = """
ffi, c = fill_functions()
def new(name="four"):
    global kept
    kept = ffi.new("uint64_t *", 5)
    fill = vrange.fills.native(c.count_from, kept)
    return vrange.VolatileArray(4 * 512, "u8", fill=fill, block_bytes=PAGE, name=name)
def check(array):
    array.discard()
    assert array.resident_bytes == 0
    before = array.refaults
    assert np.array_equal(np.asarray(array), np.arange(5, 5 + 4 * 512))
    assert array.refaults > before
"""
TRUNCATED = """
import mmap, tempfile
file = tempfile.TemporaryFile()
file.truncate(1 << 16)
mapped = np.frombuffer(mmap.mmap(file.fileno(), 1 << 16), np.uint8)
file.truncate(0)
"""
SEND = "print('so far', flush=True); os.kill(os.getpid(), signal.SIGBUS); time.sleep(5)"
TOUCH = "print('so far', flush=True); mapped[5000]; print('went on')"
REAL_ENDS = {"sent": SEND, "real": TRUNCATED + TOUCH}

# What may have happened to faulthandler, around the making of an array.
FAULTHANDLER = {
    "never": "a = new()",
    "before": "faulthandler.enable(); a = new()",
    "after": "a = new(); faulthandler.enable(); settle()",
    "before, disabled": "faulthandler.enable(); a = new(); faulthandler.disable(); settle()",
    "after, disabled": (
        "a = new(); faulthandler.enable(); settle(); faulthandler.disable(); settle()"
    ),
    "before and after": "faulthandler.enable(); a = new(); faulthandler.enable(); settle()",
    "after, twice": (
        "a = new()\n"
        "for _ in range(9): faulthandler.enable(); settle(); faulthandler.disable()\n"
        "settle()"
    ),
    "after, array closed": "a = new(); faulthandler.enable(); settle(); check(a); a.close()",
    "after, array closed, disabled": (
        "a = new(); faulthandler.enable(); settle(); a.close(); faulthandler.disable()\nsettle()"
    ),
}


@on_refault
@pytest.mark.parametrize("end", REAL_ENDS)
@pytest.mark.parametrize("history", FAULTHANDLER)
def test_faulthandler_and_arrays_live_together(history: str, end: str) -> None:
    use = "" if "closed" in history else "check(a)\n"
    stderr = ends_by_sigbus(ARRAY + FAULTHANDLER[history] + "\n" + use + REAL_ENDS[end])
    tells = "disabled" not in history and history not in ("never", "after, twice")
    assert stderr.count("Fatal Python error: Bus error") == tells, stderr
    assert "vrange:" not in stderr


@on_refault
def test_under_pytest(tmp_path: Path) -> None:
    """Which has faulthandler enabled, on a copy of stderr."""
    body = "\ndef test_it():\n    assert faulthandler.is_enabled()\n    check(new())\n"
    (tmp_path / "test_it.py").write_text("from array_child import *\n" + ARRAY + body)
    run = "import pytest; sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', {!r}]))"
    done = python(run.format(str(tmp_path)))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


@on_refault
def test_a_handler_of_signal_signal_is_told_what_is_sent_and_touches_go_on() -> None:
    code = """
    got = []
    signal.signal(signal.SIGBUS, lambda number, frame: got.append(number))
    settle()
    check(a)
    assert got == []
    os.kill(os.getpid(), signal.SIGBUS)
    assert got == [signal.SIGBUS]
    check(a)
    signal.signal(signal.SIGBUS, lambda number, frame: got.append("again"))
    settle()
    check(a)
    os.kill(os.getpid(), signal.SIGBUS)
    assert got == [signal.SIGBUS, "again"]
    """
    assert ends_well(ARRAY + "a = new()\n" + dedent(code)) == ""


@on_refault
def test_touches_go_on_until_we_are_first_again() -> None:
    """Between signal.signal() and our next look a touch is tried again and again, and then goes."""
    code = """
    for _ in range(20):
        a.discard()
        view = np.asarray(a)
        signal.signal(signal.SIGBUS, lambda number, frame: None)
        assert view[600] == 605
    """
    assert ends_well(ARRAY + "a = new()\n" + dedent(code)) == ""


@on_refault
def test_a_real_error_under_a_handler_of_signal_signal_ends_the_process() -> None:
    """Without vrange it would be retried for ever, as the handler never gets to run."""
    code = "signal.signal(signal.SIGBUS, lambda number, frame: None); settle()\n"
    assert ends_by_sigbus(ARRAY + "a = new()\n" + code + TRUNCATED + TOUCH) == ""


@on_refault
def test_sigbus_that_is_ignored() -> None:
    code = """
    signal.signal(signal.SIGBUS, signal.SIG_IGN)
    settle()
    check(a)
    os.kill(os.getpid(), signal.SIGBUS)
    check(a)
    print("so far", flush=True)
    mapped[5000]
    """
    assert ends_by_sigbus(ARRAY + "a = new()\n" + TRUNCATED + dedent(code)) == ""


@on_refault
@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("by", ["cffi", "ctypes"])
def test_a_c_handler_gets_what_is_not_ours(order: str, by: str) -> None:
    install = {
        "cffi": "c.install_ender()",
        "ctypes": "import ctypes; ctypes.CDLL(os.environ['VRANGE_TEST_FILLS']).install_ender()",
    }[by]
    setup = f"{install}; a = new()" if order == "before" else f"a = new(); {install}; settle()"
    for end, tells in (SEND, "sent"), (TRUNCATED + TOUCH, "met"):
        done = python(ARRAY + setup + "\ncheck(a)\n" + end)
        assert done.returncode == 7, done.stderr
        assert f"the ender {'was sent' if tells == 'sent' else 'met'} it" in done.stderr


@on_refault
def test_a_c_handler_that_jumps_away_is_called_each_time() -> None:
    """It never returns to us: what we know of this thread must not be left as if it did."""
    code = """
    c.install_jumper()
    a = new()
    pointer = ffi.cast("char *", address_of(mapped))
    def deeper(levels):
        if levels:
            return deeper(levels - 1)
        return c.touch_guarded(pointer + 5000)
    for i in range(50):
        assert deeper(i % 7) == 1
        check(a)
    assert c.bus_errors == 50
    os.kill(os.getpid(), signal.SIGBUS)
    assert c.bus_errors == 51
    assert c.touch_guarded(ffi.cast("char *", address_of(np.asarray(a)))) == 0
    """
    assert ends_well(ARRAY + TRUNCATED + dedent(code)) == ""


@on_refault
def test_a_c_handler_that_calls_who_was_before_it() -> None:
    """It came over us and calls us, and we called it: then it is the turn of who was before us."""
    code = "c.install_ender(); a = new(); c.install_chain(); settle(); check(a)\n"
    for end, word in (SEND, "was sent"), (TRUNCATED + TOUCH, "met"):
        done = python(ARRAY + code + end)
        assert done.returncode == 7, done.stderr
        assert done.stderr == f"the ender {word} it\n"
    code = "a = new(); c.install_chain(); settle(); check(a)\n"
    for end in (SEND, TRUNCATED + TOUCH):
        assert ends_by_sigbus(ARRAY + code + end) == ""


@on_refault
def test_a_thread_with_sigbus_blocked_is_ended_by_the_kernel_and_may_use_what_is_pinned() -> None:
    code = """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGBUS})
    a.discard()
    with a.pin() as view:
        assert view[700] == 705
    del view
    a.discard()
    print("so far", flush=True)
    np.asarray(a)[700]
    print("went on")
    """
    assert ends_by_sigbus(ARRAY + "a = new()\n" + dedent(code)) == ""


@on_refault
def test_only_threads_that_block_sigbus_are_barred() -> None:
    code = """
    import threading
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    threads = [threading.Thread(target=check, args=(new(str(i)),)) for i in range(4)]
    for t in threads: t.start()
    for t in threads: t.join()
    """
    assert ends_well(ARRAY + dedent(code)) == ""


@on_refault
def test_the_handler_goes_with_the_last_array() -> None:
    code = """
    import ctypes
    libc = ctypes.CDLL(None)
    def handler():
        action = (ctypes.c_ulong * 32)()
        assert libc.sigaction(signal.SIGBUS, None, action) == 0
        return action[0]
    before = handler()
    a, b = new(), new()
    ours = handler()
    assert ours != before
    a.close()
    assert handler() == ours
    check(b)
    view = np.asarray(b)
    b.close()
    assert handler() == ours
    assert view[3] == 8
    del view
    assert handler() == before
    for fill in (vrange.fills.file("/nonexistent"), vrange.fills.compressed(b"1")):
        try: vrange.VolatileArray(100, "u1", fill=fill)
        except (OSError, ValueError): pass
        else: raise AssertionError(fill)
        assert handler() == before
    check(new())
    c.install_jumper()
    jumper = handler()
    a = new()
    assert handler() not in (before, jumper)  # ours, though maybe at another address
    a.close()
    assert handler() == jumper
    a = new()
    c.install_ender()
    ender = handler()
    a.close()
    assert handler() == ender  # not ours to take away
    """
    # Counters in a file keep the handler: other code may cut the file.
    without_file = {"VRANGE_RUNTIME_DIR": "/proc/fs", "PYTHONWARNINGS": "ignore"}
    assert ends_well(ARRAY + dedent(code), environment=without_file) == ""


@on_refault
def test_opening_and_closing_while_others_are_touched() -> None:
    """The handler looks through the arrays while they come and go: nothing freed is read."""
    code = """
    import threading
    a, stop = new(), False
    def come_and_go():
        while not stop:
            with new("short") as short:
                np.asarray(short)[100]
    def fork():
        for _ in range(20):
            pid = os.fork()
            if pid == 0:
                try:
                    check(a)
                except BaseException:
                    os._exit(1)
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
    threads = [threading.Thread(target=come_and_go) for _ in range(3)]
    for t in threads: t.start()
    try:
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            check(a)
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        fork()
    finally:
        stop = True
        for t in threads: t.join()
    """
    # What is freed is overwritten by glibc.
    environment = {"MALLOC_PERTURB_": "165"}
    # `new` keeps its context in one place; each array keeps its own.
    assert ends_well(ARRAY + dedent(code), environment=environment) == ""


@on_refault
def test_a_fill_that_reads_another_array() -> None:
    code = """
    a = new()
    source = ffi.new("void **", ffi.cast("void *", address_of(np.asarray(a))))
    b = vrange.VolatileArray(2048, "u8", fill=vrange.fills.native(c.copy_array, source),
                             block_bytes=4 * PAGE)
    for _ in range(3):
        a.discard()
        check(b)
        assert a.refaults and b.refaults
    """
    assert ends_well(ARRAY + dedent(code)) == ""


@on_refault
def test_a_fill_that_reads_its_own_array_ends_in_words() -> None:
    code = """
    source = ffi.new("void **")
    a = vrange.VolatileArray(2048, "u8", fill=vrange.fills.native(c.copy_array, source),
                             block_bytes=PAGE, name="snake")
    source[0] = ffi.cast("void *", address_of(np.asarray(a)))
    print("so far", flush=True)
    np.asarray(a)[600]
    """
    stderr = ends_by_sigbus(ARRAY + dedent(code))
    assert "vrange: block 1 of array 'snake' was touched and can't be put back" in stderr
    assert "its regenerator touches the block that it is filling" in stderr


@on_refault
@pytest.mark.parametrize(("number", "words"), [(5, "Input/output error (5)"), (-1, "error (5)")])
def test_a_native_fill_that_fails(number: int, words: str) -> None:
    code = f"""
    status = ffi.new("int *")
    fill = vrange.fills.native(c.fail_with, status)
    a = vrange.VolatileArray(10000, "u1", fill=fill, block_bytes=PAGE, name="frail")
    view = np.asarray(a)
    assert view[0] == 0
    status[0] = {number}
    for access in (a.pin, a.fill_ahead):
        try:
            with access(slice(5000, 5001)): pass
        except vrange.RegenerationError as error:
            assert "block 1 of array 'frail'" in str(error), error
        else:
            raise AssertionError
    status[0] = 0
    with a.pin(slice(5000, 5001)) as pinned: assert pinned[0] == 0
    status[0] = {number}
    print("so far", flush=True)
    view[9000]
    print("went on")
    """
    stderr = ends_by_sigbus(ARRAY + dedent(code))
    assert "vrange: block 2 of array 'frail' was touched and can't be put back: " in stderr
    assert words in stderr
    assert stderr.count("vrange:") == 1


@on_refault
def test_more_threads_at_once_than_there_are_buffers() -> None:
    code = """
    seen = ffi.new("crowd *")
    fill = vrange.fills.native(c.slow_ones, seen)
    a = vrange.VolatileArray(100 * 65536, "u1", fill=fill)
    view = np.asarray(a)
    sums = []
    threads = [threading.Thread(target=lambda i=i: sums.append(int(view[i * 65536:][:65536].sum())))
               for i in range(100)]
    for t in threads: t.start()
    for t in threads: t.join()
    assert sums == [65536] * 100
    """
    assert ends_well(ARRAY + dedent(code)) == ""


@on_refault
@pytest.mark.parametrize("enable", ["before", "after"])
def test_faulthandler_shows_where_a_touch_failed(enable: str) -> None:
    code = """
    status = ffi.new("int *", 5)
    fill = vrange.fills.native(c.fail_with, status)
    if enable == "before": faulthandler.enable()
    a = vrange.VolatileArray(10000, "u1", fill=fill, name="frail")
    if enable == "after": faulthandler.enable(); settle()
    def touches_the_lost():
        print("so far", flush=True)
        np.asarray(a)[5]
    touches_the_lost()
    """
    stderr = ends_by_sigbus(ARRAY + f"enable = {enable!r}\n" + dedent(code))
    assert stderr.index("vrange: block 0 of array 'frail'") < stderr.index("Fatal Python error")
    assert "in touches_the_lost" in stderr


@on_refault
def test_a_handler_that_puts_back_the_one_before_it_and_sends_the_signal_again() -> None:
    """As faulthandler does; and vrange puts itself first just between the two."""
    code = """
    import ctypes
    from vrange._core import lib
    libc = ctypes.CDLL(None)
    Handler = ctypes.CFUNCTYPE(None, ctypes.c_int)
    class Action(ctypes.Structure):
        _fields_ = [("handler", ctypes.c_void_p), ("mask", ctypes.c_ulong * 16),
                    ("flags", ctypes.c_int), ("restorer", ctypes.c_void_p)]
    def install(handler):
        action = Action(ctypes.cast(handler, ctypes.c_void_p).value, flags=0x40000000)  # NODEFER
        assert libc.sigaction(signal.SIGBUS, ctypes.byref(action), None) == 0
    called = []
    @Handler
    def before(number):
        called.append("before")
    @Handler
    def again(number):
        called.append("again")
        install(before)
        lib.vrange_refault_arm()
        getattr(libc, "raise")(number)
    a = vrange.VolatileArray(1 << 16, "u1", fill=vrange.fills.pattern([1, 2]))
    vrange.set_reserve("16MiB", tick=10)
    install(again)
    lib.vrange_refault_arm()
    os.kill(os.getpid(), signal.SIGBUS)
    assert called == ["again", "before"], called
    """
    ends_well(code)
