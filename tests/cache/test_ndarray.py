"""Views of leases: read-only ndarrays that keep the pin, as NumPy's constructor makes them."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest
from support import handle_of

import vrange
from vrange._core import hit, lib
from vrange._numpy_table import numpy_core

TABLE = numpy_core()._ARRAY_API


def lease_of(cache: vrange.VolatileCache[str, Any], content: bytes) -> tuple[int, hit.Lease]:
    """A range with this content, and the pin of it."""
    cache["k"] = np.frombuffer(content, np.uint8)
    handle = handle_of(cache, "k")
    assert lib.vrange_pin_whole(handle) == lib.VRANGE_OK
    return handle, hit.adopt(handle, len(content), False)


@pytest.mark.parametrize("dtype", ["u1", "i2", "f4", "f8", "c16", "?", "g"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_it_is_what_the_constructor_makes(
    cache: vrange.VolatileCache[str, Any], dtype: str, order: Any
) -> None:
    shape = (5, 40, 20)
    given = np.arange(4000).astype(dtype).reshape(shape)
    _, lease = lease_of(cache, given.tobytes(order))
    viewed = hit.Viewer(TABLE, shape, given.dtype, order == "F")(lease)
    made = np.ndarray(shape, given.dtype, memoryview(lease), order=order)
    assert type(viewed) is np.ndarray
    assert (viewed.shape, viewed.strides, viewed.dtype) == (made.shape, made.strides, made.dtype)
    assert viewed.flags == made.flags
    assert not viewed.flags.writeable
    assert (viewed == given).all()
    with pytest.raises(ValueError, match="WRITEABLE"):
        viewed.flags.writeable = True


def test_it_is_the_pin(cache: vrange.VolatileCache[str, Any]) -> None:
    handle, lease = lease_of(cache, bytes(8000))
    view = hit.Viewer(TABLE, (1000,), np.dtype("f8"), False)
    part = view(lease)[::2].reshape(50, 10)
    del lease
    gc.collect()
    assert lib.vrange_state(handle) == lib.VRANGE_STATE_PINNED
    del part
    gc.collect()
    assert lib.vrange_state(handle) != lib.VRANGE_STATE_PINNED


def test_arrays_alike_share_one_and_others_never_do() -> None:
    u1, u2 = np.dtype("u1"), np.dtype("u2")
    given: list[tuple[tuple[int, ...], Any, bool]] = [
        (shape, dtype, fortran)
        for shape in [(), (0,), (4,), (2, 2), (4, 1), (1, 4), *((n, 200) for n in range(100))]
        for dtype in (u1, u2)
        for fortran in (False, True)
    ]
    made = [hit.Viewer(TABLE, *arguments) for arguments in given]
    assert len(set(map(id, made))) == len(given)
    last = hit.Viewer(TABLE, (7, 7), u1, False)
    assert hit.Viewer(TABLE, (7, 7), u1, False) is last


def test_what_it_refuses(cache: vrange.VolatileCache[str, Any]) -> None:
    _, lease = lease_of(cache, bytes(8000))
    bytes_8000 = hit.Viewer(TABLE, (8000,), np.dtype("u1"), False)
    assert bytes_8000(lease).sum() == 0
    with pytest.raises(TypeError, match="8000 bytes are not enough: 8001 are viewed"):
        hit.Viewer(TABLE, (8001,), np.dtype("u1"), False)(lease)
    with pytest.raises(TypeError, match="not a lease"):
        bytes_8000(b"x" * 8000)  # type: ignore[arg-type]
    lease.release()
    with pytest.raises(TypeError, match="released"):
        bytes_8000(lease)
    for shape in ((-1,), (1 << 40, 1 << 40)):
        with pytest.raises(ValueError, match="not a shape"):
            hit.Viewer(TABLE, shape, np.dtype("u1"), False)
    with pytest.raises(ValueError, match="65 dimensions are too many"):
        hit.Viewer(TABLE, (1,) * 65, np.dtype("u1"), False)
    with pytest.raises(TypeError):
        hit.Viewer(TABLE, ("x",), np.dtype("u1"), False)  # type: ignore[arg-type]
    with pytest.raises(ValueError):
        hit.Viewer(None, (1,), np.dtype("u1"), False)
