"""The worker's data between memory and disk: no key is lost, and only what went is read."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pandas as pd
import pytest
from support import wait_until

import vrange.dask
from vrange.dask.spill_files import SpillFiles
from vrange.dask.spilled import SpillFileDamagedError

MIB = 1 << 20


class Counted(SpillFiles):
    """Files that count what is written and read."""

    written = 0
    read = 0

    def write(self, parts: Any) -> Path:
        path = super().write(parts)
        self.written += 1
        return path

    def read_into(self, path: Path, memory: memoryview) -> None:
        super().read_into(path, memory)
        self.read += 1


@pytest.fixture
def buffer(tmp_path: Path) -> Iterator[vrange.dask.VolatileBuffer]:
    made = vrange.dask.VolatileBuffer(str(tmp_path), hot="10MiB", max_spill=False)
    made._files = Counted(tmp_path / "storage")
    yield made
    made.close()
    assert not (tmp_path / "storage").exists()


def files_of(buffer: vrange.dask.VolatileBuffer) -> Counted:
    assert isinstance(buffer._files, Counted)
    return buffer._files


def discard_all(buffer: vrange.dask.VolatileBuffer) -> None:
    """As if the kernel had reclaimed all that is volatile."""
    assert buffer._copies.arena is not None
    buffer._copies.arena.discard("1TiB")


def numbers(n: int, size: int = MIB) -> np.ndarray:
    return np.full(size // 8, n, "i8")


def test_more_than_is_held_is_on_disk_and_in_memory(buffer: vrange.dask.VolatileBuffer) -> None:
    for n in range(20):
        buffer[f"x{n}"] = numbers(n)
    assert len(buffer) == 20
    assert 0 < len(buffer.fast) <= 10
    assert sorted(buffer) == sorted(f"x{n}" for n in range(20))
    for n in range(20):
        assert (np.asarray(buffer[f"x{n}"]) == n).all()
    assert "x3" in buffer
    assert "y" not in buffer


def test_what_is_spilled_and_in_memory_is_not_read_from_disk(tmp_path: Path) -> None:
    """By default the tests offer all idle bytes, so that the kernel may take any."""
    vrange.set_reserve("1MiB")
    try:
        buffer = vrange.dask.VolatileBuffer(str(tmp_path), hot="4MiB")
        buffer._files = files = Counted(tmp_path / "storage")
        for _ in range(3):
            for n in range(12):
                if n not in buffer:
                    buffer[n] = numbers(n)
                assert (np.asarray(buffer[n]) == n).all()
        assert files.read == 0
        assert files.written <= 12
        buffer.close()
    finally:
        vrange.set_reserve("8GiB", tick=0.001)


def test_what_was_purged_comes_from_disk(buffer: vrange.dask.VolatileBuffer) -> None:
    for n in range(20):
        buffer[n] = numbers(n)
    discard_all(buffer)
    for n in range(20):
        assert (np.asarray(buffer[n]) == n).all()
    assert files_of(buffer).read >= 10


def test_it_is_written_once(buffer: vrange.dask.VolatileBuffer) -> None:
    for n in range(20):
        buffer[n] = numbers(n)
    for _ in range(3):
        for n in range(20):
            assert (np.asarray(buffer[n]) == n).all()
            discard_all(buffer)
    assert files_of(buffer).written == 20


VALUES: dict[str, Any] = {
    "array": np.arange(1000),
    "order F": np.asfortranarray(np.arange(600).reshape(20, 30)),
    "strided": np.arange(1000)[::3],
    "broadcast": np.broadcast_to(np.arange(10), (100, 10)),
    "zero-size": np.empty((0, 5)),
    "objects": np.array([1, "a", None], dtype=object),
    "structured": np.zeros(5, dtype=[("a", "i4"), ("b", "f8")]),
    "datetime": np.array(["2020-01-01", "NaT"], dtype="M8[ns]"),
    "frame": pd.DataFrame({"a": np.arange(100), "b": list("ab") * 50}),
    "series": pd.Series([1.5, None], name="s"),
    "bytes": b"x" * 1000,
    "empty": b"",
    "none": None,
    "text": "ä" * 100,
    "int": 1 << 200,
    "dict": {"a": np.arange(3), "b": [1, 2, (3,)]},
    "list of arrays": [np.arange(n) for n in range(5)],
    "bytearray": bytearray(b"abc"),
    "exception": ValueError("x"),
}


def same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        np.testing.assert_array_equal(a, b)
        return bool(a.dtype == b.dtype and a.shape == b.shape)
    if isinstance(a, pd.DataFrame):
        pd.testing.assert_frame_equal(a, b)
        return True
    if isinstance(a, pd.Series):
        pd.testing.assert_series_equal(a, b)
        return True
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, Exception):
        return type(a) is type(b) and a.args == b.args
    return bool(a == b)


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("purged", [False, True])
def test_values_come_back_as_they_were(
    buffer: vrange.dask.VolatileBuffer, name: str, purged: bool
) -> None:
    value = VALUES[name]
    buffer[name] = value
    for _ in range(3):  # the last time from bytes that were decoded before
        assert buffer.evict() >= 0
        assert name not in buffer.fast
        if purged:
            discard_all(buffer)
        back = buffer[name]
        assert type(back) is type(value)
        assert same(value, back)
        del back


def test_arrays_stay_writable_as_dask_has_them(buffer: vrange.dask.VolatileBuffer) -> None:
    buffer["x"] = numbers(1)
    fixed = numbers(2)
    fixed.flags.writeable = False
    buffer["fixed"] = fixed
    del fixed
    while buffer.fast:
        buffer.evict()
    x = buffer["x"]
    assert isinstance(x, np.ndarray)
    assert x.flags.writeable
    assert not np.asarray(buffer["fixed"]).flags.writeable


@pytest.mark.parametrize("purged", [False, True])
def test_a_change_in_place_is_not_lost(buffer: vrange.dask.VolatileBuffer, purged: bool) -> None:
    buffer["x"] = numbers(1)
    buffer.evict()
    x: Any = buffer["x"]
    x += 1
    del x
    buffer.evict()
    if purged:
        discard_all(buffer)
    assert (np.asarray(buffer["x"]) == 2).all()
    buffer["list"] = [1]
    buffer.evict()
    changed: Any = buffer["list"]
    changed.append(2)
    buffer.evict()
    discard_all(buffer)
    assert buffer["list"] == [1, 2]


def test_what_a_task_holds_stays_as_it_is(buffer: vrange.dask.VolatileBuffer) -> None:
    buffer["x"] = numbers(1)
    while buffer.fast:
        buffer.evict()
    held = buffer["x"]
    while buffer.fast:
        buffer.evict()
    for n in range(50):
        buffer[n] = numbers(n)
    discard_all(buffer)
    assert (np.asarray(held) == 1).all()
    del buffer["x"]
    assert (np.asarray(held) == 1).all()
    del held
    assert buffer._copies.arena is not None
    assert buffer._copies.arena.stats().pinned_bytes == 0


def test_what_is_in_use_is_not_in_memory_twice(buffer: vrange.dask.VolatileBuffer) -> None:
    whole = numbers(1)
    part = whole[:10]  # as a task of a rechunk returns it
    buffer["whole"] = whole
    del whole
    buffer._evict("whole")
    assert not buffer._spilled["whole"].has_range
    again = np.asarray(buffer["whole"])
    assert np.shares_memory(again, part)
    assert files_of(buffer).read == 0
    del again, part
    buffer._evict("whole")
    assert (np.asarray(buffer["whole"]) == 1).all()
    assert files_of(buffer).read == 1


def test_deleting_removes_the_file(buffer: vrange.dask.VolatileBuffer, tmp_path: Path) -> None:
    for n in range(20):
        buffer[n] = numbers(n)
    for n in range(20):
        del buffer[n]
        assert n not in buffer
    assert list((tmp_path / "storage").iterdir()) == []
    assert buffer.spilled_total == (0, 0)
    with pytest.raises(KeyError):
        del buffer[0]
    with pytest.raises(KeyError):
        buffer[0]


def test_a_key_that_is_set_again_has_the_new_value(buffer: vrange.dask.VolatileBuffer) -> None:
    buffer["x"] = numbers(1)
    buffer.evict()
    buffer["x"] = numbers(2)
    buffer.evict()
    discard_all(buffer)
    assert (np.asarray(buffer["x"]) == 2).all()
    assert buffer.spilled_total.disk == MIB


def test_one_value_that_is_larger_than_all_that_is_held(
    buffer: vrange.dask.VolatileBuffer,
) -> None:
    buffer["small"] = numbers(1)
    buffer["large"] = numbers(2, 30 * MIB)
    assert list(buffer.fast) == ["small"]
    assert (np.asarray(buffer["large"]) == 2).all()
    assert list(buffer.fast) == ["small"]


class Unpicklable:
    def __init__(self, size: int) -> None:
        self.size = size

    def __sizeof__(self) -> int:
        return self.size

    def __reduce__(self) -> Any:
        raise TypeError("this can't be pickled")


def test_what_cant_be_written_stays_in_memory(
    buffer: vrange.dask.VolatileBuffer, caplog: pytest.LogCaptureFixture
) -> None:
    values = [Unpicklable(4 * MIB) for _ in range(4)]
    for n, value in enumerate(values):
        buffer[n] = value
        buffer[f"x{n}"] = numbers(n)
    assert all(buffer[n] is value for n, value in enumerate(values))
    assert all((np.asarray(buffer[f"x{n}"]) == n).all() for n in range(4))
    while buffer.evict() != -1:
        pass
    assert sorted(buffer.fast) == [0, 1, 2, 3]
    assert sum("can't be spilled" in one.message for one in caplog.records) == 4


def test_a_full_disk(
    buffer: vrange.dask.VolatileBuffer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    real, left = os.write, [3 * MIB]

    def write(descriptor: int, data: Any) -> int:
        if left[0] <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        count = real(descriptor, memoryview(data)[: left[0]])
        left[0] -= count
        return count

    monkeypatch.setattr("vrange.dask.spill_files.os.write", write)
    for n in range(20):
        buffer[n] = numbers(n)
    assert buffer.evict() == -1
    assert [one.message for one in caplog.records] == [
        "A value can't be spilled and stays in memory: [Errno 28] No space left on device"
    ]
    assert len(list((tmp_path / "storage").iterdir())) == 3
    left[0] = 1 << 40
    assert buffer.evict() > 0
    discard_all(buffer)
    assert all((np.asarray(buffer[n]) == n).all() for n in range(20))


def test_a_directory_that_cant_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "storage").write_text("a file is in the way")
    buffer = vrange.dask.VolatileBuffer(str(tmp_path), hot="2MiB")
    for n in range(5):
        buffer[n] = numbers(n)
    assert buffer.evict() == -1
    assert all((np.asarray(buffer[n]) == n).all() for n in range(5))
    buffer.close()


def test_a_read_only_file_system(tmp_path: Path) -> None:
    """A mount of its own: root may write to what has only no permission."""
    code = f"""
        import numpy as np, vrange.dask
        buffer = vrange.dask.VolatileBuffer({str(tmp_path)!r}, hot="2MiB")
        for n in range(5):
            buffer[n] = np.full(1 << 17, n)
        print(buffer.evict(), all((np.asarray(buffer[n]) == n).all() for n in range(5)))
        buffer.close()
    """
    mounted = f"mount -t tmpfs -o ro none '{tmp_path}' && exec \"$@\""
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", mounted, "-", sys.executable, "-c", dedent(code)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "-1 True\n"
    assert "can't be spilled" in done.stderr
    assert "Read-only file system" in done.stderr


def test_one_value_of_more_than_4_gib(tmp_path: Path) -> None:
    """One system call writes or reads 2 GiB at most, and 32 bits count 4 GiB."""
    buffer = vrange.dask.VolatileBuffer(str(tmp_path), hot="1MiB", max_spill=False)
    value = np.zeros((4 << 30) + 5, "u1")
    value[[0, -1]] = 7, 9
    buffer["value"] = value
    del value
    while buffer.evict() > 0:
        pass
    assert buffer.spilled_total.disk > 4 << 30
    if buffer._copies.arena is not None:
        discard_all(buffer)
    back = np.asarray(buffer["value"])
    assert (back.shape, back[0], back[-1], back[1 << 32]) == (((4 << 30) + 5,), 7, 9, 0)
    del back
    buffer.close()


def test_no_more_on_disk_than_max_spill(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    buffer = vrange.dask.VolatileBuffer(str(tmp_path), hot="2MiB", max_spill="3MiB")
    for n in range(10):
        buffer[n] = numbers(n)
    assert buffer.spilled_total.disk <= 3 * MIB
    assert "max-spill" in caplog.records[0].message
    assert all((np.asarray(buffer[n]) == n).all() for n in range(10))
    buffer.close()


@pytest.mark.parametrize("damage", ["changed", "cut", "removed"])
def test_a_damaged_file_is_an_error_and_never_a_wrong_value(
    buffer: vrange.dask.VolatileBuffer, damage: str
) -> None:
    buffer["x"] = numbers(1)
    buffer["y"] = numbers(2)
    while buffer.fast:
        buffer.evict()
    discard_all(buffer)
    path = buffer.disk["x"].path
    if damage == "changed":
        with open(path, "r+b") as file:
            file.seek(1000)
            file.write(b"\xff")
    elif damage == "cut":
        os.truncate(path, 5000)
    else:
        path.unlink()
    errors: Any = {"changed": SpillFileDamagedError, "cut": OSError, "removed": FileNotFoundError}
    for _ in range(2):
        with pytest.raises(errors[damage]):
            buffer["x"]
    assert (np.asarray(buffer["y"]) == 2).all()


def test_what_is_on_a_gpu_gets_no_range(buffer: vrange.dask.VolatileBuffer) -> None:
    class OnGpu(bytes):
        __cuda_array_interface__: Any = None

    buffer["x"] = OnGpu(b"x" * MIB)
    buffer["y"] = numbers(1)
    buffer._evict("x")
    buffer._evict("y")
    assert not buffer.disk["x"].has_range
    assert buffer.disk["y"].has_range


def test_sizes_as_dask_reports_them(buffer: vrange.dask.VolatileBuffer) -> None:
    for n in range(20):
        buffer[n] = numbers(n)
    assert buffer.spilled_total.disk == len(buffer.disk) * MIB
    discard_all(buffer)
    assert buffer.spilled_total.memory == len(buffer.disk) * MIB
    assert "20" not in repr(buffer)
    assert "values of" in repr(buffer)


def test_reads_and_writes_as_dask_counts_them(buffer: vrange.dask.VolatileBuffer) -> None:
    for n in range(20):
        buffer[n] = numbers(n)
    counted = buffer.cumulative_metrics
    assert counted["disk-write", "bytes"] == counted["disk-write", "count"] * MIB >= 10 * MIB
    discard_all(buffer)
    for n in range(20):
        buffer[n]
    assert counted["disk-read", "count"] >= 10
    assert counted["disk-read", "seconds"] > 0
    assert counted["memory-read", "count"] + counted["disk-read", "count"] == 20


def test_threads(buffer: vrange.dask.VolatileBuffer) -> None:
    wrong: list[object] = []

    def work(part: int) -> None:
        try:
            for round in range(5):
                for n in range(8):
                    key = (part, n)
                    buffer[key] = numbers(part * 100 + n + round)
                    if n % 3 == 0:
                        buffer.evict()
                    assert (np.asarray(buffer[key]) == part * 100 + n + round).all()
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_values_of_any_kind_of_key(buffer: vrange.dask.VolatileBuffer) -> None:
    keys: list[Any] = ["a/b", "", ("x", 0, 1), "ä" * 300, "..", "a\0b", 5]
    for key in keys:
        buffer[key] = [key]
    while buffer.fast:
        buffer.evict()
    assert [buffer[key] for key in keys] == [[key] for key in keys]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"hot": 1.5}, ValueError),
        ({"hot": 0.0}, ValueError),
        ({"hot": "much"}, ValueError),
        ({"hot": []}, TypeError),
        ({"max_spill": "much"}, ValueError),
    ],
)
def test_bad_options(tmp_path: Path, options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        vrange.dask.VolatileBuffer(str(tmp_path), **options)


def test_after_close(tmp_path: Path) -> None:
    buffer = vrange.dask.VolatileBuffer(str(tmp_path), hot="1MiB")
    for n in range(5):
        buffer[n] = numbers(n)
    held = buffer[0]
    buffer.close()
    buffer.close()
    assert len(buffer) == 0
    assert (np.asarray(held) == 0).all()
    del held
    wait_until(lambda: not (tmp_path / "storage").exists(), "the directory goes")
