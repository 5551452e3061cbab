"""Where processes can't share, the cache says so once, and each process has its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shared_peers as peers
from shared_peers import Peer, reads_large_values

import vrange
from vrange._counters.lock import locked
from vrange._service import index as index_module
from vrange._service.place import path_of


def works_alone(cache: Any) -> None:
    cache["a"] = [1]
    assert cache["a"] == [1]
    assert cache.get_or_compute("b", lambda: np.ones(10_000)).sum() == 10_000
    assert len(cache) == 2
    assert set(cache) == {"a", "b"}
    assert cache.pop("a") == [1]
    cache.clear()
    assert "b" not in cache


def is_private(name: str, match: str) -> None:
    cache = vrange.VolatileCache[Any, Any](shared=name)
    with pytest.warns(RuntimeWarning, match=match) as warned:
        cache["a"] = 1
    assert warned[0].filename == __file__
    with cache:
        cache.clear()
        works_alone(cache)


CONTENTS = [b"", b"x", b"vrangeIX" + b"\xff" * 9000, b"\0" * 5000]


def write(name: str, content: bytes, mode: int = 0o600) -> Path:
    path = path_of(name)
    assert path is not None
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("content", CONTENTS)
def test_a_file_that_no_process_uses_is_replaced(name: str, content: bytes) -> None:
    write(name, content)
    with vrange.VolatileCache[Any, Any](shared=name) as cache:
        works_alone(cache)
        assert cache._values is not None  # type: ignore[attr-defined]


@pytest.mark.parametrize("content", CONTENTS)
def test_a_file_of_others_is_left_alone(name: str, content: bytes) -> None:
    path = write(name, content)
    with path.open("r+b"):
        is_private(name, "not an index|another version of vrange")
    assert path.read_bytes() == content
    path.unlink()


@pytest.mark.parametrize("version", [1, 99])
def test_an_index_of_another_version_is_left_to_its_service(name: str, version: int) -> None:
    path = write(name, b"vrangeIX" + version.to_bytes(4, "little") + bytes(9000))
    with path.open("r+b"):
        is_private(name, "another version of vrange made")
    path.unlink()


def test_a_link_is_not_followed(name: str, tmp_path: Path) -> None:
    path = path_of(name)
    assert path is not None
    path.symlink_to(tmp_path / "elsewhere")
    is_private(name, "is not shared, and each process has its own")
    path.unlink()
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_that_others_may_open_is_refused(name: str) -> None:
    path = write(name, b"x", 0o644)
    with path.open("r+b"):
        is_private(name, "not permitted")
    path.unlink()


def test_a_lock_that_is_held_for_long_is_not_waited_for(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vrange._counters.lock._WAIT_SECONDS", 0.01)
    path = path_of(name)
    assert path is not None
    with locked(path.parent) as is_held:
        assert is_held
        is_private(name, "lock")


@contextmanager
def small_file_system(place: Path, size: str) -> Iterator[Path]:
    """A directory with a bounded room."""
    place.mkdir(mode=0o700)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "none", place], check=False
    )
    if mounted.returncode:
        pytest.skip("needs root, to mount a small file system")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


FULL = """
import warnings
import vrange
with warnings.catch_warnings(record=True) as warned:
    warnings.simplefilter("always")
    cache = vrange.VolatileCache(shared="full")
    cache["a"] = 1
    cache["b"] = b"x" * 100_000
    for number in range(20_000):
        cache[number] = b"y" * 3000
    assert cache.get("b") in (None, b"x" * 100_000)
print([str(one.message) for one in warned])
"""


@pytest.mark.parametrize(
    ("size", "is_shared"), [("900k", False), ("6m", True)], ids=["less than an index", "fuller"]
)
def test_a_full_directory_is_no_reason_to_end(tmp_path: Path, size: str, is_shared: bool) -> None:
    with small_file_system(tmp_path / "small", size) as place:
        done = subprocess.run(
            [sys.executable, "-c", FULL],
            env={**os.environ, "VRANGE_RUNTIME_DIR": str(place)},
            capture_output=True,
            text=True,
            check=True,
        )
    if is_shared:
        assert done.stdout == "[]\n"
    else:
        assert "is not shared, and each process has its own" in done.stdout


@reads_large_values
def test_a_process_that_may_not_read_others_has_its_own(
    name: str, new_peer: Callable[..., Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = new_peer()
    peer.ask(peers.put, "large", b"x" * 100_000)

    def refuse(self: Any, found: Any) -> None:
        raise index_module.NotSharedError("this process can't read another one's memory")

    monkeypatch.setattr(index_module.Index, "read", refuse)
    with vrange.VolatileCache[Any, Any](shared=name) as cache:
        assert cache.get("absent") is None
        cache.reads.use_index(0)  # type: ignore[attr-defined]  # the lookup that is native
        with pytest.warns(RuntimeWarning, match="can't read another one's memory"):
            assert cache.get_or_compute("large", lambda: 1) == 1
        cache.clear()
        works_alone(cache)
    assert peer.ask(peers.get, "large") == b"x" * 100_000


ALONE = """
import vrange
assert vrange.capabilities().rung == "sentinel"
one = vrange.VolatileCache(shared="sentinel")
one["large"] = b"x" * 100_000
one["small"] = 1
assert one["large"] == b"x" * 100_000 and one["small"] == 1
assert one.get_or_compute("c", lambda: b"z" * 50_000) == one["c"] == b"z" * 50_000
del one["large"]
assert one.get("large") is None
one["large"] = b"y" * 100_000
assert one["large"] == b"y" * 100_000
assert len(one) == 3 and set(one) == {"large", "small", "c"} and "c" in one
many = "long key " * 1000
one[many] = b"l" * 100_000
assert one[many] == b"l" * 100_000 and many in set(one)
assert one.pop(many) == b"l" * 100_000 and one.get(many) is None
for n in range(300):  # what is replaced leaves neither a key nor memory behind
    one["replaced"] = bytes([n % 256]) * 100_000
assert len(one) == 4 and one.info().idle_bytes + one.info().offered_bytes < 2 << 20
one.clear()
assert len(one) == 0
assert one.get("large") is one.get("c") is one.get("small") is None
"""


def test_large_values_are_kept_where_others_can_not_read_them() -> None:
    subprocess.run(
        [sys.executable, "-c", ALONE], env={**os.environ, "VRANGE_RUNG": "sentinel"}, check=True
    )
