"""What keeps an array, and what keeps its blocks: views and pins, which system calls want."""

from __future__ import annotations

import gc
import os
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from array_child import KIB, MIB, address_of, lose_pages
from array_support import Counting, as_buffer, counts, on_refault

import vrange
from vrange import fills


@on_refault
def test_views_keep_it_alive(counting: Counting) -> None:
    a = counting(4)
    inner = np.asarray(a)[8192:16384][::2].view("i8")
    pinned = a.pin(slice(0, 10)).__enter__()
    memory = memoryview(as_buffer(np.asarray(a)))[100:200]
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
            os.write(file, as_buffer(whole[:100]))
        with pytest.raises(OSError, match="Bad address"):
            left.send(as_buffer(whole[:100]))
        for start in 0, 8000:  # within a block, and over an edge
            a.discard()
            with a.pin(slice(start, start + 400)) as view:
                assert os.pwrite(file, as_buffer(view), 0) == 3200
                assert np.array_equal(np.frombuffer(os.pread(file, 3200, 0), "u8"), view)
                assert left.sendmsg([as_buffer(view[:200]), as_buffer(view[200:])]) == 3200
                assert np.array_equal(np.frombuffer(right.recv(4000), "u8"), view)
        with a.pin() as view, pytest.raises((TypeError, ValueError, BufferError)):
            right.recv_into(as_buffer(view))  # read-only, whoever asks
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
        file.readinto(as_buffer(view))
