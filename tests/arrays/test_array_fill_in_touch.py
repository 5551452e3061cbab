"""Python fills inside a touch, with fault="python": errors, Ctrl-C, other arrays, many threads."""

from __future__ import annotations

from textwrap import dedent

import pytest
from array_support import ends_well, on_refault, python

IN_A_TOUCH = """
def new(fill, elements=5000, **options):
    options = {"block_bytes": PAGE, "name": "squares", "fault": "python", **options}
    return vrange.VolatileArray(elements, "i8", fill=fill, **options)
def squares(start, out): out[:] = np.arange(start, start + len(out)) ** 2
"""


@on_refault
def test_a_python_fill_in_a_touch() -> None:
    code = """
    import ctypes, hashlib
    a = new(squares)
    view, right = np.asarray(a), np.arange(5000) ** 2
    libc, held = ctypes.CDLL(None), ctypes.PyDLL(None)
    for library in libc, held:  # without and with the GIL
        a.discard()
        copy = np.zeros_like(right)
        library.memcpy(ctypes.c_void_p(copy.ctypes.data), ctypes.c_void_p(address_of(view)),
                       ctypes.c_size_t(copy.nbytes))
        assert np.array_equal(copy, right)
    def use():
        for _ in range(10):
            a.discard()
            assert hashlib.sha256(view).digest() == hashlib.sha256(right).digest()
            assert np.array_equal(view + 1, right + 1)
            assert view[4321] == 4321 ** 2
    threads = [threading.Thread(target=use) for _ in range(4)]
    for t in threads: t.start()
    for t in threads: t.join()
    assert a.refaults > 20
    """
    assert ends_well(IN_A_TOUCH + dedent(code)) == ""


@on_refault
def test_a_python_fill_in_a_touch_leaves_the_toucher_as_he_was() -> None:
    code = """
    import ctypes
    def errs(start, out):
        try: os.stat("/nonexistent")
        except OSError: pass
        ctypes.set_errno(3)
        ctypes.CDLL(None).close(-1)  # EBADF in errno itself
        squares(start, out)
    a = new(errs)
    view = np.asarray(a)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.memchr.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
    ctypes.set_errno(77)
    libc.memchr(address_of(view), 1, 16)  # swaps errno in, touches, swaps errno out
    assert a.refaults == 1
    assert ctypes.get_errno() in (77, 3)  # ctypes's own copy is what the fill may have set
    # An exception that is being handled, and one that is about to be raised.
    a.discard()
    try:
        raise KeyError("mine")
    except KeyError as error:
        assert view[1000] == 1000000
        assert sys.exc_info()[1] is error
    def generator():
        try:
            yield 1
        finally:
            a.discard()
            assert view[600] == 360000
    try:
        for _ in generator(): raise LookupError("mine")
    except LookupError as error:
        assert error.args == ("mine",)
    assert a.refaults == 3
    """
    assert ends_well(IN_A_TOUCH + dedent(code)) == ""


@on_refault
def test_errno_after_a_touch() -> None:
    """A C function that keeps errno over a touch, as all do."""
    code = """
    ffi, c = fill_functions()
    import ctypes
    def errs(start, out):
        ctypes.CDLL(None).close(-1)
        squares(start, out)
    a = new(errs)
    view = np.asarray(a)
    for _ in range(3):
        a.discard()
        ffi.errno = 77
        assert c.touch_keeping_errno(ffi.cast("char *", address_of(view)) + 5000) == 0
        assert ffi.errno == 77
    assert a.refaults == 3
    """
    assert ends_well(IN_A_TOUCH + dedent(code)) == ""


@on_refault
def test_a_python_fill_in_a_touch_that_reads_another_array() -> None:
    code = """
    inner = new(squares, name="inner")
    def outer_fill(start, out): out[:] = np.asarray(inner)[start:start + len(out)] + 1
    outer = new(outer_fill, name="outer")
    for _ in range(5):
        inner.discard(), outer.discard()
        assert np.array_equal(np.asarray(outer), np.arange(5000) ** 2 + 1)
    assert inner.refaults and outer.refaults
    """
    assert ends_well(IN_A_TOUCH + dedent(code)) == ""


@on_refault
def test_a_python_fill_in_a_touch_that_fails_once() -> None:
    code = """
    tries = []
    def flaky(start, out):
        tries.append(start)
        if len(tries) == 1: raise OSError("try again")
        squares(start, out)
    a = new(flaky)
    assert np.asarray(a)[600] == 360000
    assert tries == [512, 512]
    """
    assert ends_well(IN_A_TOUCH + dedent(code)) == ""


@on_refault
@pytest.mark.parametrize("gil", ["held", "released"])
@pytest.mark.parametrize(
    ("fill", "words"),
    [
        (
            "def fill(start, out): raise OSError('the lamp is broken')",
            "OSError: the lamp is broken",
        ),
        (
            "def fill(start, out): out[:] = 1; return 3",
            "RegenerationError: the fill of array 'squares' wrote 3 elements of 512 from 512 on",
        ),
        ("def fill(start, out): return 'many'", "TypeError: 'str' object"),
        ("def fill(start, out): sys.exit(3)", "SystemExit: 3"),
        ("def fill(start, out): squares(start)", "TypeError: squares() missing 1 required"),
    ],
)
def test_a_python_fill_in_a_touch_that_fails(fill: str, words: str, gil: str) -> None:
    touch = {"held": "np.asarray(a)[600]", "released": "np.asarray(a)[600:].sum()"}[gil]
    code = IN_A_TOUCH + fill + "\na = new(fill)\nprint('so far', flush=True)\n" + touch
    done = python(code + "\nprint('went on')")
    assert done.returncode == -7, done.stderr
    assert done.stdout == "so far\n"
    told = done.stderr
    assert words in told
    assert "in fill" in told or "in put" in told, "a traceback"
    assert "vrange: block 1 of array 'squares' was touched and can't be put back: " in told
    assert "its fill raised the exception shown above" in told
    assert told.index(words) < told.index("vrange: block 1")
    assert told.count(words) == 1, "shown once, though it was tried twice"


@on_refault
def test_ctrl_c_in_a_python_fill_waits_until_the_block_is_whole() -> None:
    code = """
    import ctypes
    entered = []
    def slow(start, out):
        entered.append(start)
        if len(entered) == 1: os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000): pass  # a place where Python looks for signals
        squares(start, out)
    a = new(slow)
    for touch in (lambda view: seen.append(int(view[600])),
                  lambda view: seen.append(int(np.add.reduce(view[512:1024])))):
        a.discard()
        entered.clear()
        seen, after = [], []
        try:
            touch(np.asarray(a))
            for _ in range(1000): pass
            after.append(1)
        except KeyboardInterrupt:
            print("interrupted")
        assert not after
        assert entered == [512, 512]
        view = np.asarray(a)
        assert np.array_equal(view[512:1024], np.arange(512, 1024) ** 2)
        assert len(entered) == 2, "the block was whole"
    """
    assert ends_well(IN_A_TOUCH + dedent(code)) == "interrupted\n" * 2


@on_refault
def test_more_python_touches_at_once_than_there_are_buffers() -> None:
    """Each has a buffer and waits for the GIL; who has the GIL needs a buffer."""
    code = """
    def fill(start, out):
        time.sleep(0.0005)
        squares(start, out)
    a = new(fill, 100 * 512)
    view = np.asarray(a)
    sums = {}
    def touch(i): sums[i] = int(np.add.reduce(view[i * 512:(i + 1) * 512]))
    threads = [threading.Thread(target=touch, args=(i,)) for i in range(100)]
    for t in threads: t.start()
    for i in range(0, 100, 9): assert view[i * 512] == (i * 512) ** 2
    for t in threads: t.join()
    assert sums == {i: int((np.arange(i * 512, (i + 1) * 512) ** 2).sum()) for i in range(100)}
    """
    assert ends_well(IN_A_TOUCH + dedent(code)) == ""
