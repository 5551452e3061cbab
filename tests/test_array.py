"""VolatileArray as its user meets it: whatever the kernel takes, what is read is right."""

from __future__ import annotations

import ctypes
import gc
import hashlib
import os
import pickle
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest
from array_child import KIB, MIB, PAGE, address_of, lose_pages, resident_pages
from array_support import REFAULT, RUNG, ends_well, on_refault, python
from held import Held, address_space_bytes

import vrange
from vrange import fills

PACKED = np.dtype([("a", "u1"), ("b", "u2")])  # 3 bytes, and never at a word's beginning
TWELVE = np.dtype([("x", "f4"), ("y", "f4"), ("n", "u4")])


@pytest.fixture(params=["native", "python in a touch", "python", "eager"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Any]:
    """Makes an array of given content, in each of the ways there are. Below the refault rung there
    is only one, and the others must be refused.
    """
    how = request.param

    def fill_from(content: np.ndarray[Any, Any]) -> Callable[..., None]:
        flat = content.reshape(-1)

        def fill(start: int, out: np.ndarray[Any, Any]) -> None:
            out[:] = flat[start : start + len(out)]

        return fill

    def made(content: np.ndarray[Any, Any], **options: Any) -> vrange.VolatileArray:
        fill: Any = fill_from(content)
        if how == "native":
            file = tmp_path / "content"
            file.write_bytes(b"head" + content.tobytes())
            fill = fills.file(file, 4)
        if how == "python in a touch":
            options["fault"] = "python"
        if how != "eager" and not REFAULT:
            with pytest.raises(vrange.VrangeError, match=r"needs the refault rung.*eager=True"):
                vrange.VolatileArray(content.shape, content.dtype, fill=fill, **options)
        eager = how == "eager" or not REFAULT
        return vrange.VolatileArray(content.shape, content.dtype, fill=fill, eager=eager, **options)

    return made


def content_of(shape: Any, dtype: Any, seed: int = 0) -> np.ndarray[Any, Any]:
    """Random bytes, as elements. Floats may be NaN: to be compared as bytes."""
    empty = np.empty(shape, dtype)
    data = np.random.default_rng(seed).bytes(empty.nbytes)
    return np.frombuffer(data, empty.dtype).reshape(empty.shape)


def same(one: Any, other: Any) -> bool:
    one, other = np.asarray(one), np.asarray(other)
    return (
        one.shape == other.shape and one.dtype == other.dtype and one.tobytes() == other.tobytes()
    )


# ---- shapes, dtypes, indices -------------------------------------------------------------------


@pytest.mark.parametrize("block_bytes", [4 * KIB, "64KiB", 2 * MIB])
@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        (1, "u1"),
        ((), "f8"),
        (4097, "u1"),
        ((113, 71, 3), "u1"),
        ((1001, 37), "f4"),
        (9999, PACKED),
        ((777, 5), TWELVE),
        (65537, "<M8[s]"),
        (3000, "S5"),
        ((40, 3), "(2,7)i2"),
        ((0, 5), "i4"),
        (0, "u1"),
    ],
    ids=str,
)
def test_shapes_and_dtypes(
    make: Callable[..., Any], shape: Any, dtype: Any, block_bytes: Any
) -> None:
    content = content_of(shape, dtype)
    with make(content, block_bytes=block_bytes) as a:
        assert a.shape == content.shape
        assert a.dtype == content.dtype
        assert (a.ndim, a.size, a.nbytes) == (content.ndim, content.size, content.nbytes)
        for _ in range(2):
            assert same(a[...], content)
            a.discard()
        assert bytes(a) == content.tobytes()
        with a.pin() as view:
            assert same(view, content)


INDICES: list[Any] = [
    5,
    -1,
    np.int64(7),
    slice(1000, 2000),
    slice(None, None, 7),
    slice(None, None, -1),
    slice(2500, 2, -333),
    slice(3, 3),
    ...,
    None,
    (5, 2),
    (slice(10, 900, 13), slice(None, None, -2)),
    (..., 1),
    (None, 17, None, slice(1, 3)),
    (slice(40, 50), -1, ...),
]


@pytest.mark.parametrize("index", INDICES, ids=repr)
def test_indices(make: Callable[..., Any], index: Any) -> None:
    content = content_of((3001, 5), "u4")
    with make(content, block_bytes=PAGE) as a:
        for _ in range(2):
            assert same(a[index], content[index])
            a.discard()
        with a.pin(index) as view:
            assert same(view, content[index])
        assert not np.asarray(a[index]).flags.writeable or np.isscalar(a[index])


@pytest.mark.parametrize("rows", [[3, 1, 2999], np.array([0, 0, 7]), [], "mask"], ids=str)
def test_picking_rows(make: Callable[..., Any], rows: Any) -> None:
    content = content_of((3000, 5), "u4")
    if isinstance(rows, str):
        rows = np.arange(3000) % 700 == 3
    with make(content, block_bytes=PAGE) as a:
        assert same(a[rows], content[rows])


def test_sequence(make: Callable[..., Any]) -> None:
    content = content_of((50, 300), "u4")
    with make(content, block_bytes=PAGE) as a:
        assert len(a) == 50
        assert all(same(mine, theirs) for mine, theirs in zip(a, content, strict=True))
        with pytest.raises(IndexError):
            a[50]
    with make(content_of((), "f8")) as a, pytest.raises(TypeError, match="no dimensions"):
        len(a)


def test_is_read_only(make: Callable[..., Any]) -> None:
    with make(content_of(1000, "u4")) as a:
        with pytest.raises(ValueError, match="read-only"):
            a[...][0] = 1
        with pytest.raises(TypeError):
            a[0] = 1
        with pytest.raises(ValueError, match="WRITEABLE"):
            a[...].flags.writeable = True


def test_pickled_by_content(make: Callable[..., Any]) -> None:
    content = content_of((300, 71), "f4")
    with make(content, block_bytes=PAGE) as a:
        a.discard()
        for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
            copy = pickle.loads(pickle.dumps(a, protocol))
            assert same(copy, content)
            assert not copy.flags.writeable


def test_copying_out(make: Callable[..., Any]) -> None:
    content = content_of((300, 71), "u2")
    with make(content, block_bytes=PAGE) as a:
        copy = np.array(a, copy=True)
        assert same(copy, content)
        copy[0] = 0
        assert same(a[...], content)
        assert same(np.array(a, dtype="f8", copy=True), content.astype("f8"))


def test_repr_says_what_it_is(make: Callable[..., Any]) -> None:
    a = make(content_of((3, 4), "u2"), name="frames")
    assert "'frames'" in repr(a)
    assert "(3, 4)" in repr(a)
    assert "resident" in repr(a) or "eager" in repr(a)
    a.close()
    with pytest.raises(ValueError, match="'frames' is closed"):
        a[0]
    a.close()


# ---- the refault rung --------------------------------------------------------------------------


@pytest.mark.parametrize("rung", ["sentinel", "eager"])
def test_lower_rungs_refuse_and_offer_eager(rung: str) -> None:
    code = """
    for fill in (vrange.fills.zero(), lambda start, out: out.fill(0)):
        try:
            vrange.VolatileArray(1 << 20, "u1", fill=fill)
        except vrange.VrangeError as error:
            print(error)
    def count(start, out): out[:] = np.arange(start, start + len(out))
    a = vrange.VolatileArray((4, 5), "i8", fill=count, eager=True)
    assert np.array_equal(np.asarray(a), np.arange(20).reshape(4, 5))
    assert not np.asarray(a).flags.writeable
    a.discard()
    assert a.resident_bytes == a.nbytes == a.refilled_bytes and a.refaults == 0
    with a.pin(slice(1, 3)) as view: assert view[0, 0] == 5
    a.fill_ahead()
    def refuse(start, out): raise OSError("no such frame")
    try:
        vrange.VolatileArray(5, "i8", fill=refuse, eager=True)
    except vrange.RegenerationError as error:
        assert isinstance(error.__cause__, OSError)
    else:
        raise AssertionError
    data = np.arange(100000)
    packed = vrange.fills.compressed(data)
    b = vrange.VolatileArray(100000, "i8", fill=packed, eager=True)
    assert np.array_equal(np.asarray(b), data)
    """
    said = ends_well(code, environment={"VRANGE_RUNG": rung})
    assert said.count("needs the refault rung") == 2
    assert said.count(f"VRANGE_RUNG={rung} asks for a lower rung") == 2
    assert said.count("eager=True makes an ordinary array") == 2


def test_this_rung() -> None:
    """What the rest of this file proves depends on it."""
    assert RUNG in ("refault", "sentinel", "eager")
    assert os.environ.get("VRANGE_RUNG", RUNG) == RUNG


@pytest.fixture
def counting() -> Iterator[Callable[..., vrange.VolatileArray]]:
    """Arrays of u8 that count from 0, filled natively."""
    made = []

    def counting(blocks: float, block_bytes: int = 64 * KIB, **options: Any) -> Any:
        from array_support import build_fills

        library = ctypes.CDLL(str(build_fills()))
        start = ctypes.c_uint64(0)
        fill = fills.native(library.count_from, ctypes.addressof(start))
        array = vrange.VolatileArray(
            int(blocks * block_bytes // 8), "u8", fill=fill, block_bytes=block_bytes, **options
        )
        made.append((array, start))
        return array

    yield counting
    for array, _ in made:
        array.close()


Counting = Callable[..., vrange.VolatileArray]


def counts(view: np.ndarray[Any, Any]) -> bool:
    return np.array_equal(view, np.arange(view[0], view[0] + len(view), dtype="u8"))


@on_refault
def test_asarray_is_the_memory_itself(counting: Counting) -> None:
    a = counting(10)
    whole = np.asarray(a)
    assert address_of(whole) == address_of(np.asarray(a)) == address_of(a[...])
    assert a.resident_bytes == 0
    assert same(np.asarray(a, dtype="f4"), np.arange(a.size, dtype="f4"))
    with pytest.raises(ValueError, match="without a copy"):
        np.asarray(a, dtype="f4", copy=False)
    assert address_of(np.asarray(a, copy=False)) == address_of(whole)


@on_refault
@pytest.mark.parametrize("block_bytes", [1 << n for n in range(12, 22)])
def test_every_block_size(counting: Counting, block_bytes: int) -> None:
    a = counting(3.7, block_bytes)
    whole = np.asarray(a)
    for start in a.size - 1, a.size // 2, 0:  # no two in sequence
        a.discard()
        refaults = a.refaults
        assert whole[start] == start
        assert a.refaults == refaults + 1
        block = start * 8 // block_bytes
        expected = min(a.nbytes, (block + 1) * block_bytes) - block * block_bytes
        assert a.resident_bytes == -(-expected // PAGE) * PAGE
    assert counts(whole)
    assert a.resident_bytes == -(-a.nbytes // PAGE) * PAGE


@on_refault
def test_partly_present_blocks(counting: Counting) -> None:
    """The kernel takes pages, not blocks: a touch puts back what is missing and no more."""
    a = counting(4)
    whole = np.asarray(a)
    pages = a.nbytes // PAGE
    for lost in [(0, 1), (15, 1), (3, 9), (14, 4), (5, 40), (0, pages), (pages - 1, 1)]:
        assert counts(whole)
        lose_pages(whole, *lost)
        assert sum(resident_pages(whole)) == pages - lost[1]
        assert counts(whole)
        assert all(resident_pages(whole))
    # Every other page, so that no two of a block are found missing in a row.
    for page in range(1, pages, 2):
        lose_pages(whole, page, 1)
    assert sum(resident_pages(whole)) == pages // 2
    refaults = a.refaults
    assert counts(whole)
    assert a.refaults > refaults
    for page in range(0, pages, 3):
        lose_pages(whole, page, 1)
    with a.pin() as pinned:
        assert counts(pinned)


@on_refault
def test_reading_ahead(counting: Counting) -> None:
    a = counting(256)
    whole = np.asarray(a)
    assert counts(whole)
    assert a.refaults < 256 / 8
    a.discard()
    before = a.refaults
    order = np.random.default_rng(1).permutation(256)
    assert [int(whole[i * 8192]) for i in order] == [int(i) * 8192 for i in order]
    assert a.refaults - before > 256 / 2
    # Four sequences at once, each with what was lost of it.
    a.discard()
    before = a.refaults
    quarters = whole.reshape(4, -1)
    assert counts(quarters[:, ::512].T.reshape(-1, 4).T.reshape(-1) // 512)
    assert a.refaults - before < 256 / 4


@on_refault
def test_reading_ahead_meets_a_block_that_fails(tmp_path: Path) -> None:
    """Nobody asked for it: what was asked for is still right."""
    file = tmp_path / "content"
    file.write_bytes(np.arange(64 * PAGE // 8).tobytes())
    a = vrange.VolatileArray(64 * PAGE // 8, "i8", fill=fills.file(file), block_bytes=PAGE)
    os.truncate(file, 40 * PAGE)
    whole = np.asarray(a)
    for page in range(40):
        assert whole[page * PAGE // 8] == page * PAGE // 8
    with pytest.raises(vrange.RegenerationError, match="block 40 of array 'array' can't be put"):
        a.fill_ahead()


@on_refault
def test_counters(counting: Counting) -> None:
    a = counting(8, name="counted")
    assert (a.refaults, a.refilled_bytes, a.resident_bytes) == (0, 0, 0)
    np.asarray(a)[0]
    assert (a.refaults, a.refilled_bytes, a.resident_bytes) == (1, 64 * KIB, 64 * KIB)
    a.fill_ahead(slice(0, 3 * 8192))
    assert (a.refaults, a.refilled_bytes, a.resident_bytes) == (1, 192 * KIB, 192 * KIB)
    a.discard()
    assert (a.refaults, a.refilled_bytes, a.resident_bytes) == (1, 192 * KIB, 0)
    [counted] = [s for s in vrange.stats().accounts if s.name == "counted"]
    assert counted.refaults == 1
    assert counted.reserved_bytes == a.nbytes


@on_refault
def test_views_keep_it_alive(counting: Counting) -> None:
    a = counting(4)
    inner = np.asarray(a)[8192:16384][::2].view("i8")
    pinned = a.pin(slice(0, 10)).__enter__()
    memory = memoryview(np.asarray(a))[100:200]
    a.discard()
    a.close()
    del a
    gc.collect()
    lose_pages(inner, 0, 16)
    assert inner[4] == 8200
    assert pinned[9] == 9
    assert memory[0] == 100


@on_refault
@pytest.mark.parametrize("how", ["native", "python", "python in a touch"])
def test_goes_when_nobody_has_a_view_of_it(how: str) -> None:
    """At once: not when the garbage collector finds the time."""

    def mapped(address: int) -> bool:
        lines = Path("/proc/self/maps").read_text().splitlines()
        spans = [line.split()[0].split("-") for line in lines]
        return any(int(a, 16) <= address < int(b, 16) for a, b in spans)

    def fill(start: int, out: np.ndarray[Any, Any]) -> None:
        out[:] = start

    gc.collect()
    gc.disable()
    try:
        a = vrange.VolatileArray(
            64 * MIB,
            "u1",
            fill=fills.zero() if how == "native" else fill,
            fault="python" if how == "python in a touch" else "native",
        )
        view = a[5:10]
        address = address_of(view)
        assert mapped(address)
        del a
        assert mapped(address)
        del view
        assert not mapped(address)
    finally:
        gc.enable()


@on_refault
def test_pins_survive(counting: Counting) -> None:
    a = counting(8)
    whole = np.asarray(a)
    with a.pin(slice(8192, 3 * 8192)) as view:
        refaults = a.refaults
        for _ in range(3):
            a.discard()
            assert a.resident_bytes == 128 * KIB
            assert counts(view)
        assert a.refaults == refaults
        part = view[5:9]
        with a.pin(slice(8192, 8193)) as again:
            pass
    del view, again
    a.discard()
    assert a.resident_bytes == 128 * KIB, "a view of a pinned view is a pin"
    del part
    a.discard()
    assert a.resident_bytes == 0
    assert counts(whole)


@on_refault
def test_system_calls_want_a_pin(counting: Counting, tmp_path: Path) -> None:
    a = counting(4)
    whole = np.asarray(a)
    file = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT)
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        with pytest.raises(OSError, match="Bad address"):
            os.write(file, whole[:100])
        with pytest.raises(OSError, match="Bad address"):
            left.send(whole[:100])
        for start in 0, 8000:  # within a block, and over an edge
            a.discard()
            with a.pin(slice(start, start + 400)) as view:
                assert os.pwrite(file, view, 0) == 3200
                assert np.array_equal(np.frombuffer(os.pread(file, 3200, 0), "u8"), view)
                assert left.sendmsg([view[:200], view[200:]]) == 3200
                assert np.array_equal(np.frombuffer(right.recv(4000), "u8"), view)
        with a.pin() as view, pytest.raises((TypeError, ValueError, BufferError)):
            right.recv_into(view)  # read-only, whoever asks
    finally:
        os.close(file)
        left.close()
        right.close()


@on_refault
def test_reading_into_an_array_is_refused(counting: Counting, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(bytes(100))
    with (
        counting(1).pin() as view,
        open(tmp_path / "in", "rb", buffering=0) as file,
        pytest.raises(TypeError, match=r"read-write|writable"),
    ):
        file.readinto(view)


@on_refault
def test_larger_than_the_machine(counting: Counting) -> None:
    elements = 1 << 40
    a = counting(elements * 8 // (64 * KIB))
    assert a.nbytes == 8 << 40
    whole = np.asarray(a)
    places = np.random.default_rng(2).integers(0, elements, 200)
    for _ in range(2):
        for place in places:
            assert whole[place] == place
        assert a.refaults >= 200
    with a.pin(slice(elements - 10, elements)) as view:
        assert counts(view)
        assert view[-1] == elements - 1


@on_refault
def test_into_a_cache(counting: Counting) -> None:
    """The cache copies what is being lost."""
    small, large = counting(1), counting(64)
    with vrange.VolatileCache(name="test", hot_bytes=0, arena_bytes="64MiB") as cache:
        for a in small, large:
            for _ in range(3):
                a.discard()
                cache["k"] = np.asarray(a)
                assert counts(cache["k"])
                assert cache["k"].nbytes == a.nbytes


@on_refault
def test_as_an_ordinary_array(counting: Counting) -> None:
    a = counting(16)
    ordinary = np.arange(a.size, dtype="u8")
    for use in (
        lambda x: np.add(x, 1).sum(),
        lambda x: hashlib.sha256(np.asarray(x)).hexdigest(),
        lambda x: np.asarray(x).tobytes(),
        lambda x: np.sort(x)[::-1][:5].tolist(),
        lambda x: np.concatenate([x, x]).sum(),
        lambda x: np.asarray(x)[[5, 1, 99999]].tolist(),
        lambda x: np.asarray(x)[np.asarray(x) % 9999 == 3].tolist(),
        lambda x: bytes(memoryview(np.asarray(x))[7:9]),
        lambda x: np.searchsorted(x, [5, 70000]).tolist(),
        lambda x: np.frombuffer(np.asarray(x), "u1").sum(),
    ):
        a.discard()
        assert use(a) == use(ordinary)


@on_refault
def test_all_that_was_touched_is_the_kernels_to_take() -> None:
    """Also what was touched now and then, on another processor than the one that offers it."""
    code = """
    def bytes_of(view, field):
        inside = False
        for line in open("/proc/self/smaps"):
            first = line.split(maxsplit=1)[0]
            if not first.endswith(":"):
                begin, end = (int(part, 16) for part in first.split("-"))
                inside = begin <= address_of(view) < end
            elif inside and first == field + ":":
                return int(line.split()[1]) * KIB
    a = vrange.VolatileArray(64 * MIB, "u1", fill=vrange.fills.zero())
    view = np.asarray(a)
    for i in range(0, 64 * MIB, MIB):
        view[i]
        time.sleep(0.02)
    for _ in range(5): settle()
    assert bytes_of(view, "Rss") == 64 * 64 * KIB
    assert bytes_of(view, "Rss") - bytes_of(view, "LazyFree") <= 64 * KIB
    """
    assert ends_well(code) == ""


@on_refault
def test_a_sequence_comes_in_huge_pages_where_there_are_some() -> None:
    """And what is lost of one, or forked while it is on its way, is right all the same."""
    code = """
    def huge_bytes(view):
        inside = False
        for line in open("/proc/self/smaps"):
            first = line.split(maxsplit=1)[0]
            if not first.endswith(":"):
                begin, end = (int(part, 16) for part in first.split("-"))
                inside = begin <= address_of(view) < end
            elif inside and first == "AnonHugePages:":
                return int(line.split()[1]) * KIB
    ffi, c = fill_functions()
    start = ffi.new("uint64_t *", 5)
    for block_bytes in 4096, 65536, 2 << 20:
        a = vrange.VolatileArray(8 * MIB + 77, "u8", fill=vrange.fills.native(c.count_from, start),
                                 block_bytes=block_bytes)
        view, right = np.asarray(a), np.arange(5, 8 * MIB + 82, dtype="u8")
        assert np.array_equal(view, right)
        huge = huge_bytes(view)
        assert huge % (2 * MIB) == 0
        print(huge >= 8 * MIB)
        for first, count in (3, 1), (500, 600), (1024, 512), (2000, 5000):
            lose_pages(view, first, count)
            with a.pin(slice(first * 512, first * 512 + 9)) as pinned:
                assert np.array_equal(pinned, right[first * 512:][:9])
            del pinned
            assert np.array_equal(view, right)
        a.discard()
        view[:3 * MIB].sum()
        pid = os.fork()
        good = np.array_equal(view, right)
        if pid == 0: os._exit(not good)
        assert good and os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    """
    has_some = "[never]" not in Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text()
    major, minor = (int(part) for part in os.uname().release.split(".")[:2])
    code = "import warnings; warnings.simplefilter('ignore')\n" + dedent(code)
    told = ends_well(code).split()
    assert len(told) == 3
    if has_some and (major, minor) >= (6, 13) and os.uname().machine == "x86_64":
        assert "True" in told


# ---- several threads ---------------------------------------------------------------------------


def together(*tasks: Callable[[], Any]) -> list[Any]:
    """What the tasks returned; they start as nearly together as threads can."""
    results: list[Any] = [None] * len(tasks)
    barrier = threading.Barrier(len(tasks))

    def run(i: int) -> None:
        barrier.wait()
        try:
            results[i] = tasks[i]()
        except BaseException as error:
            results[i] = error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(tasks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


@on_refault
@pytest.mark.parametrize("block_bytes", [4 * KIB, 64 * KIB, 2 * MIB])
def test_threads_while_blocks_are_lost(counting: Counting, block_bytes: int) -> None:
    a = counting(4 * MIB / block_bytes, block_bytes)
    whole = np.asarray(a)
    expected = np.arange(a.size, dtype="u8")
    digest = hashlib.sha256(expected).digest()
    rounds = 12
    going_on = True

    def lose() -> int:
        lost = 0
        while going_on:
            lost += a.resident_bytes
            a.discard()
        return lost

    def hashed() -> bool:  # without the GIL
        return all(hashlib.sha256(whole).digest() == digest for _ in range(rounds))

    def summed() -> bool:  # a ufunc, without the GIL
        return all(np.array_equal(np.add(whole, 1), expected + 1) for _ in range(rounds))

    def picked() -> bool:  # with the GIL
        return all(int(whole[i]) == i for i in range(0, a.size, a.size // 500))

    def pinned() -> bool:
        seen = True
        for start in range(0, a.size - 5000, a.size // 20):
            with a.pin(slice(start, start + 5000)) as view:
                seen &= counts(view)
        return seen

    def reads() -> list[bool]:
        nonlocal going_on
        try:
            return together(hashed, summed, picked, pinned)
        finally:
            going_on = False

    lost, right = together(lose, reads)
    assert all(right)
    assert lost >= a.nbytes
    assert a.refaults > 10 or block_bytes > MIB  # sequences are read ahead


@on_refault
def test_two_threads_in_one_block() -> None:
    code = """
    import hashlib
    ffi, c = fill_functions()
    seen = ffi.new("crowd *")
    fill = vrange.fills.native(c.slow_ones, seen)
    a = vrange.VolatileArray(65536, "u1", fill=fill)
    view = np.asarray(a)
    for _ in range(20):
        a.discard()
        meet = threading.Barrier(3)
        def touch(place):
            meet.wait()
            sums.append(hashlib.sha256(view[place:place + 9000]).digest())
        sums = []
        threads = [threading.Thread(target=touch, args=(i * 20000,)) for i in range(3)]
        for t in threads: t.start()
        for t in threads: t.join()
        assert sums == [hashlib.sha256(b"\\1" * 9000).digest()] * 3
    assert seen.most >= 2, seen.most
    """
    assert ends_well(code) == ""


# ---- Python fills ------------------------------------------------------------------------------


class Squares:
    """A Python fill that notes what it was asked for, and fails where it is told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []
        self.error: BaseException | None = None
        self.returns: Any = None

    def __call__(self, start: int, out: np.ndarray[Any, Any]) -> Any:
        self.asked.append((start, len(out)))
        if self.error is not None:
            raise self.error
        out[:] = np.arange(start, start + len(out)) ** 2
        return self.returns


SQUARES = np.arange(5000) ** 2


@on_refault
def test_a_python_fill_runs_where_the_access_is_explicit() -> None:
    fill = Squares()
    a = vrange.VolatileArray(5000, "i8", fill=fill, block_bytes=PAGE, name="squares")
    assert a[600] == 360000
    assert fill.asked == [(512, 512)]
    view = a[1000:1030]
    assert fill.asked[1:] == [(1024, 512)] or fill.asked[1:] == [(512, 512), (1024, 512)]
    a.discard()
    assert same(view, SQUARES[1000:1030]), "the view is a pin"
    assert a.resident_bytes == 2 * PAGE
    del view
    a.discard()
    fill.asked.clear()
    a.fill_ahead(slice(0, 1024))
    assert fill.asked == [(0, 512), (512, 512)]
    assert same(a[4999], SQUARES[4999])
    assert fill.asked[-1] == (4608, 5000 - 4608)


@on_refault
def test_a_python_fill_refuses_what_touches_behind_its_back() -> None:
    a = vrange.VolatileArray((50, 100), "i8", fill=Squares(), name="squares")
    for refused in (
        lambda: np.asarray(a),
        lambda: np.add(a, 1),
        lambda: np.asarray(a, copy=False),
        lambda: np.sum(a),
    ):
        with pytest.raises(TypeError, match=r"'squares' is filled by a Python function.*pin\(\)"):
            refused()
    for index in True, False, (True, 0), ([1, 2], 0), np.ones((50, 100), bool), "field", 1.5:
        with pytest.raises(IndexError):
            a[index]
        with pytest.raises(IndexError), a.pin(index):
            pass


@on_refault
def test_an_unpinned_touch_of_a_python_fill_ends_in_words() -> None:
    code = """
    a = vrange.VolatileArray(5000, "i8", fill=lambda start, out: out.fill(1), name="squares")
    view = a[:10]
    address = address_of(view)
    del view
    a.discard()
    import ctypes
    print("so far", flush=True)
    ctypes.string_at(address, 8)
    """
    done = python(code)
    assert done.returncode == -7
    assert "block 0 of array 'squares'" in done.stderr
    assert 'pass fault="python"' in done.stderr


@on_refault
@pytest.mark.parametrize("fault", ["native", "python"])
def test_a_python_fill_that_fails_where_the_access_is_explicit(fault: Any) -> None:
    fill = Squares()
    a = vrange.VolatileArray(5000, "i8", fill=fill, block_bytes=PAGE, name="squares", fault=fault)
    accesses: list[Callable[[], Any]] = [a.fill_ahead, lambda: a.pin(700).__enter__()]
    if fault == "native":
        accesses += [lambda: a[700], lambda: bytes(a), lambda: np.array(a, copy=True)]
    for access in accesses:
        fill.error = OSError(5, "the lamp is broken")
        with pytest.raises(
            vrange.RegenerationError, match=r"fill of array 'squares' failed for block [01]$"
        ) as caught:
            access()
        assert caught.value.__cause__ is fill.error
        fill.error, fill.returns = None, 7
        with pytest.raises(vrange.RegenerationError, match=r"wrote 7 elements of 512 from (0|512)"):
            access()
        fill.returns = None
        fill.error = KeyboardInterrupt()
        with pytest.raises(KeyboardInterrupt):
            access()
        fill.error = None
    del caught
    a.discard()
    assert a.resident_bytes == 0, "a failed pin leaves nothing pinned"
    with a.pin() as view:
        assert same(view, SQUARES)


@on_refault
def test_a_python_fill_that_forgets_some_gives_zeros() -> None:
    def half(start: int, out: np.ndarray[Any, Any]) -> None:
        out[::2] = 1

    a = vrange.VolatileArray(100000, "i8", fill=half)
    assert a[...].sum() == 50000


@on_refault
def test_a_python_fill_of_elements_over_block_edges() -> None:
    content = content_of(7777, PACKED)
    asked = []

    def fill(start: int, out: np.ndarray[Any, Any]) -> int:
        asked.append((start, len(out)))
        out[:] = content[start : start + len(out)]
        return len(out)

    a = vrange.VolatileArray(7777, PACKED, fill=fill, block_bytes=PAGE)
    for _ in range(2):
        assert same(a[...], content)
        a.discard()
    assert same(a[1365], content[1365])  # bytes 4095 to 4098
    assert asked[0] == (0, 1366)
    assert asked[1] == (1365, 1366)


# ---- Python fills in a touch -------------------------------------------------------------------

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


# ---- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "options", "error", "words"),
    [
        ((10, "O"), {}, TypeError, "plain bytes"),
        ((10, [("a", "O"), ("b", "i4")]), {}, TypeError, "plain bytes"),
        ((10, "V0"), {}, TypeError, "plain bytes"),
        ((10, "no such type"), {}, TypeError, "type"),
        ((-1, "u1"), {}, ValueError, "must not be negative, but is"),
        (((3, -4), "u1"), {}, ValueError, "must not be negative, but is"),
        ((2.5, "u1"), {}, TypeError, "shape must be an int or a tuple of ints, not 2.5"),
        (("10", "u1"), {}, TypeError, "shape must be"),
        ((10, "u1"), {"block_bytes": 4095}, ValueError, "power of two from 4096 to 2097152"),
        ((10, "u1"), {"block_bytes": 2048}, ValueError, "power of two"),
        ((10, "u1"), {"block_bytes": 12288}, ValueError, "power of two"),
        ((10, "u1"), {"block_bytes": "4MiB"}, ValueError, "power of two"),
        ((10, "u1"), {"block_bytes": 0}, ValueError, "power of two"),
        ((10, "u1"), {"block_bytes": -4096}, ValueError, "must not be negative"),
        ((10, "u1"), {"block_bytes": 4096.0}, TypeError, "block_bytes must be an int"),
        ((10, "u1"), {"fault": "always"}, ValueError, 'fault must be "native" or "python"'),
        ((10, "u1"), {"fill": 3}, TypeError, "or a function, not 3"),
        (
            (10, "u1"),
            {"fill": fills.zero},
            TypeError,
            r"such as vrange.fills.zero\(\), or a function, not",
        ),
        ((10, "u1"), {"name": ""}, ValueError, "name must be"),
        ((10, "u1"), {"name": 5}, TypeError, "name must be"),
        ((1 << 61, "u8"), {}, MemoryError, "address space for array 'array' can't be had"),
        ((1 << 58, "u8"), {}, MemoryError, "address space"),
        (((1 << 40, 1 << 40), "u8"), {}, MemoryError, "address space"),
    ],
    ids=str,
)
def test_bad_arguments(
    arguments: Any, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    if not REFAULT and error is MemoryError:
        error, words = vrange.VrangeError, "needs the refault rung"
    leaks_nothing = Held()
    with pytest.raises(error, match=words):
        vrange.VolatileArray(*arguments, **{"fill": fills.zero(), **options})
    leaks_nothing.check()


@on_refault
def test_nothing_is_left_of_what_failed(tmp_path: Path) -> None:
    short = tmp_path / "short"
    short.write_bytes(b"123")
    held, reserved = Held(), address_space_bytes()
    for _ in range(20):
        for fill, error in (
            (fills.file(tmp_path / "missing"), FileNotFoundError),
            (fills.file(short), ValueError),
            (fills.compressed(b"123"), ValueError),
            (fills.pattern([]), ValueError),
        ):
            with pytest.raises(error):
                vrange.VolatileArray(1 << 30, "u1", fill=fill)
        with pytest.raises(MemoryError):
            vrange.VolatileArray(1 << 60, "u1", fill=fills.zero())
        a = vrange.VolatileArray(1 << 30, "u1", fill=lambda start, out: 1 / 0)
        with pytest.raises(vrange.RegenerationError):
            a[0]
        del a
    held.check()
    assert address_space_bytes() < reserved + (1 << 29), "half of one of these arrays"


@on_refault
def test_an_address_space_limit() -> None:
    code = """
    import resource
    vrange.VolatileArray(1, "u1", fill=vrange.fills.zero()).close()
    used = int(open("/proc/self/statm").read().split()[0]) * PAGE
    resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20),) * 2)
    held = Held()
    for _ in range(50):
        try: vrange.VolatileArray(128 << 20, "u1", fill=vrange.fills.zero(), name="wide")
        except vrange.ArenaFullError as error:
            assert isinstance(error, MemoryError) and isinstance(error, vrange.VrangeError)
            assert "128.0 MiB of address space for array 'wide'" in str(error), error
        else: raise AssertionError
    held.check()
    assert int(open("/proc/self/statm").read().split()[0]) * PAGE < used + (8 << 20)
    with vrange.VolatileArray(32 << 20, "u1", fill=vrange.fills.pattern(3)) as a:
        assert np.asarray(a).max() == 3
    """
    assert ends_well(code) == ""


@on_refault
def test_an_address_space_limit_from_the_beginning() -> None:
    """Not even the buffers can be had."""
    code = """
    import resource
    used = int(open("/proc/self/statm").read().split()[0]) * PAGE
    resource.setrlimit(resource.RLIMIT_AS, (used + (32 << 20),) * 2)
    try: vrange.VolatileArray(1, "u1", fill=vrange.fills.zero())
    except vrange.VrangeError as error: print(type(error).__name__)
    """
    assert ends_well(code).strip() in ("ArenaFullError", "VrangeError")


@on_refault
def test_as_many_arrays_as_there_can_be() -> None:
    code = """
    many = [vrange.VolatileArray(1000, "u2", fill=vrange.fills.pattern(i), block_bytes=PAGE)
            for i in range(1024)]
    try: vrange.VolatileArray(1000, "u2", fill=vrange.fills.zero())
    except vrange.VrangeError as error: print(error)
    assert all(np.asarray(a)[999] == i for i, a in enumerate(many))
    del many[500]
    with vrange.VolatileArray(1000, "u2", fill=vrange.fills.pattern(9)) as a:
        assert np.asarray(a).sum() == 9000
    """
    assert "this process has as many as there can be" in ends_well(code)
