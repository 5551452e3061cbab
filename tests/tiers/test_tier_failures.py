"""A lower tier that fails costs a count and one warning: no exception, and no wrong value."""

from __future__ import annotations

import _thread
import errno
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from tier_support import Remembering

import vrange
from vrange.tiers import Directory

Cache = vrange.VolatileCache[Any, Any]


def use_all(cache: Cache) -> None:
    assert cache.get_or_compute("a", lambda: 1) == 1
    cache["b"] = 2
    assert (cache["a"], cache["b"], cache.get("c")) == (1, 2, None)
    del cache["b"]
    cache.clear()


def test_a_tier_that_is_gone() -> None:
    tier = Remembering()
    tier.fails = True
    with Cache(name="x", below=tier) as cache:
        with pytest.warns(RuntimeWarning, match="the server is gone") as warned:
            use_all(cache)
        assert len(warned) == 1
        cache.get("d")
        assert cache.get_or_compute("a", lambda: 3) == 3


def test_a_store_waits_for_no_thread_that_gets_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    tier = Remembering()
    with Cache(name="x", below=tier) as cache:
        with monkeypatch.context() as patch:
            for module, function in (
                (_thread, "start_new_thread"),
                (threading, "_start_new_thread"),
            ):
                patch.setattr(module, function, lambda *_: 0)  # it ended before its first line
            cache["a"] = 1
            cache.clear()
            cache["b"] = 2
        cache["c"] = 3
        assert cache.flush(60)
        assert len(tier.values()) == 2


def remove(cache: Cache, how: str) -> None:
    if how == "del":
        del cache["a"]
    elif how == "set":
        cache["a"] = 2
    elif how == "clear":
        cache.clear()
    else:
        cache.discard_tag("t")


def test_what_is_removed_while_the_tier_is_gone_does_not_come_back() -> None:
    tiers = {how: Remembering() for how in ("del", "set", "clear", "tag")}
    caches = {how: Cache(name="x", below=tier) for how, tier in tiers.items()}
    for how, cache in caches.items():
        cache.set("a", 1, tags="t")
        cache.flush()
        tiers[how].fails = True
        with pytest.warns(RuntimeWarning, match="gone"):
            remove(cache, how)
        tiers[how].fails = False
        assert cache.get("a") == (2 if how == "set" else None)
    time.sleep(1.1)
    for how, cache in caches.items():
        assert cache.get("other") is None  # asks the tier again
        assert cache.get("a") == (2 if how == "set" else None)
        cache.close()
        with Cache(name="x", below=tiers[how]) as later:
            assert later.get("a") is None


def set_and_flush(cache: Cache) -> None:
    cache["a"] = 1
    cache.flush()


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: str, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with Cache(name="x", below=tmp_path) as cache:
        monkeypatch.setattr("vrange.tiers.directory._write", full)
        with pytest.warns(RuntimeWarning, match="No space left"):
            set_and_flush(cache)
        assert cache["a"] == 1
        assert cache.get_or_compute("b", lambda: 2) == 2
        assert cache.info().below_errors == 1
    assert not list(tmp_path.rglob(".new-*"))


@pytest.mark.parametrize("damage", ["cut", "changed", "empty", "other"])
def test_a_damaged_file(tmp_path: Path, damage: str) -> None:
    with Cache(name="x", below=tmp_path) as cache:
        cache["a"] = list(range(1000))
    (file,) = [file for file in tmp_path.rglob("values/*/*") if file.is_file()]
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    whole = file.read_bytes()
    damaged = {"cut": whole[:-1], "changed": bytes(content), "empty": b"", "other": b"hello" * 99}
    file.write_bytes(damaged[damage])
    with Cache(name="x", below=tmp_path) as cache:
        with pytest.warns(RuntimeWarning, match="damaged"):
            assert cache.get("a") is None
        assert not file.exists()
        assert cache.get_or_compute("a", lambda: 7) == 7
        assert cache.info().below_errors == 1


class Gone:
    pass


def test_a_value_whose_class_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Cache(name="x", below=tmp_path) as cache:
        cache["a"] = Gone()
    with Cache(name="x", below=tmp_path) as cache:
        monkeypatch.delattr(f"{__name__}.Gone")
        with pytest.warns(RuntimeWarning, match="can't be unpickled"):
            assert cache.get("a") is None


def test_another_keys_bytes_are_not_answered() -> None:
    tier = Remembering()
    with Cache(name="x", below=tier) as cache:
        cache["a"], cache["b"] = 1, 2
        cache.flush()
    one, two = tier.values()
    tier.kept[one], tier.kept[two] = tier.kept[two], tier.kept[one]
    with Cache(name="x", below=tier) as cache:
        assert cache.get("a") is None
        assert cache.get("b") is None


def test_tokens_that_the_tier_lost_make_values_invalid() -> None:
    for lost in "generation", "tag-":
        tier = Remembering()
        with Cache(name="x", below=tier) as cache:
            cache.set("a", 1, tags="t")
        for name in list(tier.kept):
            if lost in name:
                del tier.kept[name]
        with Cache(name="x", below=tier) as cache:
            assert cache.get("a") is None


# ---- the directory -------------------------------------------------------------------------------


def test_a_directory_stays_within_its_bound(tmp_path: Path) -> None:
    tier = Directory(tmp_path, max_bytes="1MiB")
    with Cache(name="x", below=tier) as cache:
        for key in range(40):
            cache[key] = bytes([key]) * 100_000
            cache.flush()
        cache.get(39)
    assert tier.nbytes < 1.2 * (1 << 20)
    with Cache(name="x", below=Directory(tmp_path)) as cache:
        assert cache[39] == b"\x27" * 100_000
        assert cache.get(0) is None


def test_clear_frees_the_files(tmp_path: Path) -> None:
    tier = Directory(tmp_path)
    with Cache(name="x", below=tier) as cache, Cache(name="y", below=tier) as other:
        cache["a"] = other["a"] = bytes(100_000)
        cache.flush(), other.flush()
        cache.clear()
        until = time.monotonic() + 60
        while tier.nbytes > 110_000 and time.monotonic() < until:
            time.sleep(0.01)
        assert tier.nbytes < 110_000
        with Cache(name="y", below=tier) as later:
            assert len(later["a"]) == 100_000


def test_directories_of_others_are_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(ValueError, match="every user may write"):
        Cache(name="x", below=tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        Directory(tmp_path / "file")
    assert Directory(tmp_path / "new" / "deep").path.stat().st_mode & 0o777 == 0o700


def test_what_below_takes() -> None:
    class Async:
        async def get(self, name: str) -> None: ...
        async def set(self, name: str, data: bytes) -> None: ...
        async def delete(self, name: str) -> None: ...

    for bad in ({}, 7, Remembering, object()):
        with pytest.raises(TypeError, match="below must be a directory, a diskcache"):
            Cache(name="x", below=bad)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="coroutines"):
        Cache(name="x", below=Async())
    with pytest.raises(TypeError, match="needs a name"):
        Cache(below=Remembering())
    outer = 1
    decorate = vrange.cached(below=Remembering())
    with pytest.raises(TypeError, match="name='name'"):
        decorate(lambda: outer)
    with Cache(name="x", below=Remembering()) as cache:
        decorate = vrange.cached(cache=cache)
        with pytest.raises(TypeError, match="can't be given as cache="):
            decorate(len)

    class Mine(Cache):
        pass

    with pytest.raises(TypeError, match="make a VolatileCache"):
        Mine(name="x", below=Remembering())
