"""Arrays that can not be: a clear exception, nothing leaked, all as before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from array_support import REFAULT, ends_well, on_refault
from held import Held, address_space_bytes

import vrange
from vrange import fills


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
        ((1 << 61, "u8"), {}, MemoryError, "address space for array 'array' is not available"),
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


@pytest.mark.parametrize("shape", [1 << 45, 1 << 61, (1 << 40, 1 << 40)], ids=str)
def test_an_ordinary_array_that_memory_does_not_hold(shape: Any) -> None:
    with pytest.raises(vrange.ArenaFullError, match="of memory for array 'eager' is not available"):
        vrange.VolatileArray(shape, "u8", fill=fills.zero(), name="eager", eager=True)


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
        a = vrange.VolatileArray(1 << 30, "u1", fill=lambda start, out: 1 // 0)
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
    """Where not even the first pages or the buffers can be mapped, the array is refused, and works
    once there is room: with each limit a little higher than the one before."""
    code = """
    import resource
    new = vrange.VolatileArray  # imported before the limit
    used = int(open("/proc/self/statm").read().split()[0]) * PAGE
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    refused = []
    for left in range(1 << 20, 64 << 20, 1 << 20):
        resource.setrlimit(resource.RLIMIT_AS, (used + left, hard))
        try: a = new(1000, "u1", fill=vrange.fills.pattern(3))
        except MemoryError as error: refused.append(error)
        else: break
    assert refused, "the first limit leaves 1 MiB"
    assert any(isinstance(error, vrange.ArenaFullError) for error in refused), refused
    assert np.asarray(a).sum() == 3000
    """
    assert ends_well(code) == ""


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
    assert "this process has as many as are possible" in ends_well(code)
