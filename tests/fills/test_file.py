"""fills.file: files that are short, change, or are none."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from array_child import PAGE
from array_support import REFAULT, ends_by_sigbus, on_refault
from held import Held, descriptors_of

import vrange
from vrange import fills


@pytest.fixture
def content() -> np.ndarray:
    return np.random.default_rng(4).integers(0, 256, 777_777, dtype=np.uint8)


@pytest.fixture
def path(tmp_path: Path, content: np.ndarray) -> Path:
    path = tmp_path / "content"
    path.write_bytes(content.tobytes())
    return path


@pytest.mark.parametrize("offset", [0, 1, 4095, 4096, 500_001])
def test_from_an_offset_on(path: Path, content: np.ndarray, offset: int) -> None:
    n = 777_777 - offset
    for elements in n, n // 2, 1:
        with vrange.VolatileArray(
            elements, "u1", fill=fills.file(path, offset), eager=not REFAULT
        ) as a:
            for _ in range(2):
                assert np.array_equal(np.asarray(a), content[offset : offset + elements])
                a.discard()


@on_refault
def test_reads_what_is_touched_and_no_more(path: Path) -> None:
    a = vrange.VolatileArray(777_777, "u1", fill=fills.file(path))
    np.asarray(a)[400_000]
    assert a.refilled_bytes == a.resident_bytes == 64 << 10


@on_refault
def test_a_file_that_was_unlinked_is_still_read(path: Path, content: np.ndarray) -> None:
    with vrange.VolatileArray(777_777, "u1", fill=fills.file(path)) as a:
        path.unlink()
        assert np.array_equal(np.asarray(a), content)


def test_what_can_not_be_read(path: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    cases = [
        (fills.file(tmp_path / "missing"), FileNotFoundError, "missing"),
        (fills.file(path, 1), ValueError, "has 777777 bytes, the array needs 777777 from 1 on"),
        (fills.file(path, 1 << 40), ValueError, "has 777777 bytes"),
        (fills.file(tmp_path), ValueError, "is not a regular file"),
        (fills.file(tmp_path / "pipe"), ValueError, "is not a regular file"),
        (fills.file("/dev/zero"), ValueError, "is not a regular file"),
    ]
    before = Held()
    for fill, error, words in cases:
        with pytest.raises(error, match=words):
            vrange.VolatileArray(777_777, "u1", fill=fill, eager=not REFAULT)
    with pytest.raises(ValueError, match="offset must not be negative, but is -1"):
        fills.file(path, -1)
    for offset in ("1", 1.5, None):
        with pytest.raises(TypeError, match="offset must be an int"):
            fills.file(path, offset)  # type: ignore[arg-type]
    before.check()


@on_refault
def test_the_descriptor_goes_with_the_last_view(path: Path) -> None:
    a = vrange.VolatileArray(777_777, "u1", fill=fills.file(path))
    view = np.asarray(a)
    assert len(descriptors_of(path)) == 1
    a.close()
    del a
    assert len(descriptors_of(path)) == 1
    del view
    assert descriptors_of(path) == []


@on_refault
def test_truncated_later(path: Path) -> None:
    code = f"""
    a = vrange.VolatileArray(777_777, "u1", fill=vrange.fills.file({str(path)!r}), name="film")
    view = np.asarray(a)
    first = view[:65536].copy()
    a.discard()
    os.truncate({str(path)!r}, 65536)
    assert np.array_equal(view[:65536], first)
    for part in slice(70_000, 70_001), ...:
        try:
            with a.pin(part): pass
        except vrange.RegenerationError as error:
            assert str(error) == "block 1 of array 'film' can't be put back: No data available"
        else:
            raise AssertionError
    print("so far", flush=True)
    view[70_000]
    """
    stderr = ends_by_sigbus(code)
    assert "vrange: block 1 of array 'film' was touched and can't be put back" in stderr
    assert "No data available (61)" in stderr


@on_refault
def test_several_arrays_of_one_fill(path: Path, content: np.ndarray) -> None:
    fill = fills.file(path)
    arrays = [vrange.VolatileArray(n * PAGE, "u1", fill=fill) for n in (1, 20, 100)]
    arrays[0].close()
    for n, a in zip((20, 100), arrays[1:], strict=True):
        assert np.array_equal(np.asarray(a), content[: n * PAGE])


def test_repr(path: Path) -> None:
    assert repr(fills.file(path, 5)) == f"fills.file({str(path)!r}, 5)"
