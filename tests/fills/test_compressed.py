"""fills.compressed: what it takes, and blocks that do not give what they should."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from array_child import KIB
from array_support import REFAULT, as_buffer, ends_by_sigbus, on_refault

import vrange
from vrange import fills


def noise(nbytes: int) -> np.ndarray:
    """Most of it can be compressed."""
    content = np.random.default_rng(nbytes).integers(0, 256, nbytes, dtype=np.uint8)
    content[: nbytes - nbytes // 8] = 3
    return content


@pytest.mark.parametrize("level", [1, 9])
@pytest.mark.parametrize(
    ("nbytes", "block", "array_block"),
    [
        (1, "64KiB", "64KiB"),
        (777_777, "64KiB", "64KiB"),
        (777_777, 4096, "64KiB"),
        (777_777, 1000, 4096),
        (65536 * 3, "64KiB", "2MiB"),
        (65536 * 3 + 1, "64KiB", "64KiB"),
        (5 << 20, "2MiB", "2MiB"),
    ],
)
def test_round_trip(nbytes: int, block: Any, array_block: Any, level: int) -> None:
    content = noise(nbytes)
    fill = fills.compressed(content, block_bytes=block, level=level)
    if block == 1000:
        with pytest.raises(ValueError, match="must be a multiple of the fill's, 1000"):
            vrange.VolatileArray(
                nbytes, "u1", fill=fill, block_bytes=array_block, eager=not REFAULT
            )
        return
    with vrange.VolatileArray(
        nbytes, "u1", fill=fill, block_bytes=array_block, eager=not REFAULT
    ) as a:
        assert np.asarray(a)[nbytes - 1] == content[-1]
        for _ in range(2):
            assert np.array_equal(np.asarray(a), content)
            a.discard()


def test_kinds_of_content() -> None:
    floats = np.linspace(0, 1, 30_000).reshape(100, 300)
    raw, view = floats.tobytes(), memoryview(as_buffer(floats))
    for content in floats, raw, bytearray(raw), view:
        a = vrange.VolatileArray(
            (100, 300), "f8", fill=fills.compressed(content), eager=not REFAULT
        )
        assert np.array_equal(np.asarray(a), floats)
    with pytest.raises(TypeError, match="contiguous"):
        fills.compressed(floats[:, ::2])
    with pytest.raises(TypeError):
        fills.compressed("text")


def test_is_smaller() -> None:
    fill = fills.compressed(bytes(1 << 20))
    assert 0 < fill.nbytes < 1 << 14
    assert repr(fill) == f"<fills.compressed of 1048576 bytes in {fill.nbytes}>"


def test_what_it_refuses() -> None:
    with pytest.raises(ValueError, match="compressed content has 100 bytes, but the array 101"):
        vrange.VolatileArray(101, "u1", fill=fills.compressed(bytes(100)), eager=not REFAULT)
    with pytest.raises(ValueError, match="block_bytes must be at least 1"):
        fills.compressed(bytes(100), block_bytes=0)
    for level in (0, 17, -1):
        with pytest.raises(ValueError, match=f"level must be 1 to 9, but is {level}"):
            fills.compressed(bytes(100), level=level)
    with pytest.raises(TypeError, match="level must be an int"):
        fills.compressed(bytes(100), level="9")  # type: ignore[arg-type]


BROKEN: dict[str, Callable[[Any], Any]] = {
    "too short": lambda block: zlib.compress(zlib.decompress(block)[:-1]),
    "too long": lambda block: zlib.compress(zlib.decompress(block) + b"1"),
    "cut off": lambda block: block[:-9],
    "changed": lambda block: block[:50] + bytes([block[50] ^ 255]) + block[51:],
    "nothing": lambda block: b"",
    "no zlib": lambda block: bytes(1000),
}


@on_refault
@pytest.mark.parametrize("how", BROKEN)
def test_a_block_that_is_broken(how: str) -> None:
    content = noise(4 * 64 * KIB)
    fill = fills.compressed(content)
    blocks: Any = fill._blocks
    blocks[2] = BROKEN[how](blocks[2])
    a = vrange.VolatileArray(len(content), "u1", fill=fill, name="packed")
    for start in 0, 1, 3:
        with a.pin(slice(start * 65536, (start + 1) * 65536)) as view:
            assert np.array_equal(view, content[start * 65536 :][:65536])
    with pytest.raises(vrange.RegenerationError, match="block 2 of array 'packed' can't be put"):
        a.fill_ahead()
    with vrange.VolatileArray(len(content), "u1", fill=fills.compressed(content)) as whole:
        assert np.array_equal(np.asarray(whole), content)


@on_refault
def test_a_touch_of_a_broken_block_ends_in_words() -> None:
    code = """
    import zlib
    fill = vrange.fills.compressed(np.arange(1 << 16))
    fill._blocks[2] = zlib.compress(b"short")
    a = vrange.VolatileArray(1 << 16, "i8", fill=fill, name="packed")
    print("so far", flush=True)
    np.asarray(a)[2 * 8192 + 5]
    """
    stderr = ends_by_sigbus(code)
    assert "vrange: block 2 of array 'packed' was touched" in stderr
    assert "Bad message (74)" in stderr


def test_an_empty_array() -> None:
    a = vrange.VolatileArray(0, "u1", fill=fills.compressed(b""), eager=not REFAULT)
    assert np.asarray(a).size == 0
