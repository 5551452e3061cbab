"""Writing an array to a file: lost blocks are filled first, or the error says to pin."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import pickle
import socket
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from array_support import content_of, same

import vrange

CONTENT = content_of(200_001, "u2")


@pytest.fixture
def a(make: Callable[..., Any]) -> Any:
    made = make(CONTENT, block_bytes=4096)
    made.discard()
    return made


def by_write(a: Any, path: Path, buffering: int = -1) -> None:
    with open(path, "wb", buffering=buffering) as file:
        file.write(a)


def by_lines(a: Any, path: Path) -> None:
    with open(path, "wb") as file:
        file.writelines([a])


def by_tofile(a: Any, path: Path, buffering: int = -1) -> None:
    with open(path, "wb", buffering=buffering) as file:
        a.tofile(file)


def by_system_call(a: Any, path: Path) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        assert os.pwrite(file, a, 0) == a.nbytes
        a.discard()
        assert os.writev(file, [a]) == a.nbytes
    finally:
        os.close(file)


def by_socket(a: Any, path: Path) -> None:
    left, right = socket.socketpair()
    with right, open(path, "wb") as file:
        got: list[bytes] = []

        def receive() -> None:
            while part := right.recv(1 << 20):
                got.append(part)

        thread = threading.Thread(target=receive)
        thread.start()
        with left:
            left.sendall(a)
        thread.join()
        file.write(b"".join(got))


def by_memory(a: Any, path: Path) -> None:
    target = io.BytesIO()
    target.write(a)
    path.write_bytes(target.getvalue())


WAYS = [
    by_write,
    lambda a, path: by_write(a, path, 0),
    by_lines,
    by_tofile,
    lambda a, path: by_tofile(a, path, 0),
    lambda a, path: a.tofile(path),
    by_system_call,
    by_socket,
    by_memory,
    lambda a, path: path.write_bytes(io.BytesIO(a).getvalue()),
    lambda a, path: path.write_bytes(bytes(a)),
    lambda a, path: path.write_bytes(b"".join([a])),
    lambda a, path: path.write_bytes(zlib.decompress(zlib.compress(a))),
    lambda a, path: path.write_bytes(base64.b64decode(base64.b64encode(a))),
]


@pytest.mark.parametrize("way", WAYS)
def test_the_content_is_written(a: Any, tmp_path: Path, way: Callable[..., object]) -> None:
    way(a, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == CONTENT.tobytes()


def test_hashing(a: Any) -> None:
    assert hashlib.sha256(a).digest() == hashlib.sha256(CONTENT.tobytes()).digest()


@pytest.mark.filterwarnings("ignore:Stored array in format:UserWarning")
@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((30, 71), "f4"),
        ((), "f8"),
        (0, "i2"),
        (50, [("a", "u1"), ("b", "<u2")]),
        (50, [("grün", "u1"), ("λ", "<u2")]),
        (50, [(f"{n:04}" * 100, "u1") for n in range(200)]),
        (50, "<M8[s]"),
    ],
    ids=["2-D", "0-D", "empty", "fields", "greek fields", "long header", "times"],
)
def test_np_save(make: Callable[..., Any], tmp_path: Path, shape: Any, dtype: Any) -> None:
    content = content_of(shape, dtype)
    a = make(content)
    np.save(tmp_path / "wanted.npy", content)
    wanted = (tmp_path / "wanted.npy").read_bytes()
    got = tmp_path / "got.npy"
    targets: list[Any] = [tmp_path / "got", str(got), os.fsencode(got)]
    for target in targets:
        a.discard()
        np.save(target, a)
        assert got.read_bytes() == wanted
        got.unlink()
    a.discard()
    file = io.BytesIO()
    np.save(file, a)
    assert file.getvalue() == wanted


def test_np_savez(make: Callable[..., Any], tmp_path: Path) -> None:
    content = content_of((300, 71), "f4")
    a = make(content)
    a.discard()
    try:
        np.savez(tmp_path / "one.npz", a=a)
    except TypeError as refusal:
        assert "pin() a part, copy it with np.array(a, copy=True)" in str(refusal)  # noqa: PT017
        np.savez(tmp_path / "one.npz", a=np.array(a, copy=True))
    with np.load(tmp_path / "one.npz") as found:
        assert same(found["a"], content)


def test_a_raw_file_that_takes_a_part_at_a_time(a: Any) -> None:
    class Slow(io.RawIOBase):
        def __init__(self) -> None:
            self.got = bytearray()

        def write(self, part: Any) -> int:
            self.got += bytes(part[:1000])
            return min(len(part), 1000)

    slow = Slow()
    a.tofile(slow)
    assert slow.got == CONTENT.tobytes()

    class Full(io.RawIOBase):
        def write(self, part: Any) -> None:
            return None

    with pytest.raises(BlockingIOError, match="does not take more"):
        a.tofile(Full())


def test_what_needs_a_pin_says_so(a: Any) -> None:
    uses: list[Any] = [memoryview, bytearray, np.frombuffer, pickle.PickleBuffer]
    for use in uses:
        with pytest.raises(BufferError, match=r"with a\.pin\(slice\(0, 1000\)\) as part"):
            use(a)
    with pytest.raises((BufferError, TypeError), match=r"read-only|read-write"):
        io.BytesIO(bytes(8)).readinto(a)


def test_the_pin_lasts_as_long_as_the_call(a: Any) -> None:
    target = io.BytesIO()
    for _ in range(3):
        target.write(a)
        a.discard()
    assert target.getvalue() == 3 * CONTENT.tobytes()
    assert a.resident_bytes == (a.nbytes if a._eager is not None else 0)


def test_a_failing_fill_is_the_error(tmp_path: Path) -> None:
    def fill(start: int, out: Any) -> None:
        raise ZeroDivisionError("inside of fill")

    if vrange.capabilities().rung != "refault":
        return
    a = vrange.VolatileArray(1000, "u1", fill=fill)
    with open(tmp_path / "out", "wb") as file:
        with pytest.raises(vrange.RegenerationError, match="the fill of array 'array' failed"):
            file.write(a)
        with pytest.raises(vrange.RegenerationError, match="the fill of array 'array' failed"):
            a.tofile(file)
