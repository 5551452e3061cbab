"""What another process publishes may be anything: a reader finds no value then, and goes on."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from shared_peers import Peer, reads_large_values

import vrange
from vrange._core import hit, lib
from vrange._service import blob

LARGE = 50_000


def change(coded: bytes, what: str) -> bytes:
    """The bytes of a value, damaged."""
    head = struct.Struct(hit.BLOB_HEAD)
    stamp, digest, form_bytes, body_bytes, buffers, how = head.unpack_from(coded)
    rest = coded[head.size :]
    changed = {
        "a stamp of another record": (stamp + 1, digest, form_bytes, body_bytes, buffers, how),
        "the digest of another key": (stamp, digest[::-1], form_bytes, body_bytes, buffers, how),
        "a key of another length": (stamp, digest, form_bytes - 1, body_bytes, buffers, how),
        "a body that does not fit": (stamp, digest, form_bytes, 1 << 62, buffers, how),
        "more buffers": (stamp, digest, form_bytes, body_bytes, 0xFFFFFFFF, how),
        "an unknown code": (stamp, digest, form_bytes, body_bytes, buffers, 77),
        "a pickle that is none": (stamp, digest, form_bytes, body_bytes, 0, hit.BLOB_PICKLE),
        "text that is none": (stamp, digest, form_bytes, body_bytes, 0, hit.BLOB_TEXT),
    }
    if what in changed:
        return head.pack(*changed[what]) + rest
    if what == "another key":
        return head.pack(stamp, digest, form_bytes, body_bytes, buffers, how) + b"?" + rest[1:]
    assert what == "cut short"
    return coded[: head.size + 3]


DAMAGES = (
    "a stamp of another record",
    "the digest of another key",
    "a key of another length",
    "a body that does not fit",
    "more buffers",
    "an unknown code",
    "a pickle that is none",
    "text that is none",
    "another key",
    "cut short",
)


def publish(cache: Any, key: str, value: Any, damage: str) -> None:
    """Store a value whose bytes are damaged."""
    values = cache._values
    encode = values._encode

    def damaged(known: Any, value: Any, stamp: int) -> blob.Blob:
        coded = encode(known, value, stamp)
        data = change(b"".join(map(bytes, coded.parts)), damage)
        data += bytes(max(0, coded.nbytes - len(data))) if len(data) > 100 else b""
        return blob.Blob([data], len(data), False, False, coded.how)

    values._encode = damaged
    try:
        cache[key] = value
    finally:
        values._encode = encode


# Each byte is no UTF-8 and begins no pickle.
VALUES: dict[str, Any] = {"bytes": b"\xff" * 100, "array": np.full(100, 0xFF, np.uint8)}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_value_is_none(name: str, new_peer: Callable[..., Peer], damage: str) -> None:
    peer = new_peer()
    peer.ask(_store, "other", 1)
    large = lib.vrange_rung() != lib.VRANGE_RUNG_SENTINEL
    with vrange.VolatileCache[Any, Any](shared=name) as cache:
        for kind, small in VALUES.items():
            for value in (small, small * LARGE) if large and kind == "bytes" else (small,):
                peer.ask(publish, kind, value, damage)
                found = cache.get(kind)
                # An array's bytes say where it is; what is damaged beside that does not count.
                assert found is None or (kind == "array" and np.array_equal(found, small)), damage
                assert cache.get(kind) is None or kind == "array"
                cache[kind] = 5
                assert peer.ask(_get, kind) == cache[kind] == 5
        assert cache["other"] == 1


def _store(cache: Any, key: str, value: Any) -> None:
    cache[key] = value


def _get(cache: Any, key: str) -> Any:
    return cache.get(key)


@reads_large_values
def test_a_place_in_no_memory_is_no_value(name: str, new_peer: Callable[..., Peer]) -> None:
    peer = new_peer()
    peer.ask(_store, "large", b"x" * LARGE)
    with vrange.VolatileCache[Any, Any](shared=name) as cache:
        assert cache["large"] == b"x" * LARGE
        for what, number in (("at", 0), ("at", 1 << 62), ("bytes", 1 << 61), ("bytes", 0)):
            peer.ask(_store, "large", b"y" * LARGE)
            _change_place(cache, "large", what, number)
            assert cache.get("large") is None, (what, number)
        peer.ask(_store, "large", [b"z"] * 3)
        assert cache["large"] == [b"z"] * 3


def _change_place(cache: Any, key: str, what: str, number: int) -> None:
    """Write into the index as any process of the user can."""
    values = cache._values
    found = values.index.find(values.know(key).digest)
    before = found.payload[: lib.VRANGE_NOTE_AT]
    nbytes, _ = struct.unpack_from("=QQ", before)
    assert nbytes > LARGE
    after = bytearray(before)
    struct.pack_into("=Q", after, 0 if what == "bytes" else 8, number)
    with values.index.path.open("r+b") as file:
        data = file.read()
        where = data.rindex(before)
        file.seek(where)
        file.write(after)
