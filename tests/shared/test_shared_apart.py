"""Processes that are not one service have caches of their own, whatever they are called."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import shared_peers as peers
from shared_peers import Peer, reads_large_values

PUT_AND_FIND = """
import sys, vrange
with vrange.VolatileCache(shared=sys.argv[1]) as cache:
    found = cache.get("a")
    cache["a"] = "another service's"
    for n in range(2000):
        cache[n] = bytes(3000)
    print(found)
"""


def find_in_another_process(name: str, *before: str, **environment: str) -> str:
    command = [*before, sys.executable, "-c", PUT_AND_FIND, name]
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_two_services_have_two_caches_of_one_name(cache: Any, name: str) -> None:
    cache["a"] = "mine"
    assert find_in_another_process(name, VRANGE_SERVICE="another") == "None"
    assert find_in_another_process(name, VRANGE_SERVICE="a third") == "None"
    assert cache["a"] == "mine"
    assert find_in_another_process(name) == "mine"
    assert cache["a"] == "another service's"


@pytest.mark.parametrize("clock", ["--monotonic", "--boottime"])
def test_another_time_namespace_is_another_service(cache: Any, name: str, clock: str) -> None:
    """There others' times of birth and of expiry are other numbers: all would seem dead."""
    unshare = ["unshare", "--time", clock, "100000", "--fork"]
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no time namespace can be made here")
    cache.set("a", "mine", ttl=1000)
    service = {"VRANGE_SERVICE": os.environ.get("VRANGE_SERVICE", str(os.getpgrp()))}
    assert find_in_another_process(name, *unshare, **service) == "None"
    assert cache["a"] == "mine"
    for n in range(2000):
        cache[n] = bytes([n % 256]) * 3000
    found = {n: cache.get(n) for n in range(2000)}
    assert all(value in (None, bytes([n % 256]) * 3000) for n, value in found.items())


REFUSED = """
import ctypes, os, platform, struct, sys, warnings
import vrange
cache = vrange.VolatileCache(shared=sys.argv[1], hot_bytes=0)
assert cache["before"] == b"y" * 100_000   # a lookup that is native from the second one on
assert cache["before"] == b"y" * 100_000
libc = ctypes.CDLL(None, use_errno=True)
read, seccomp = {"x86_64": (310, 317), "aarch64": (270, 277)}[platform.machine()]
program = [(0x20, 0, 0, 0), (0x15, 0, 1, read), (0x06, 0, 0, 0x50001), (0x06, 0, 0, 0x7FFF0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in program))
filter = struct.pack("HxxxxxxQ", len(program), ctypes.addressof(code))
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.syscall(seccomp, 1, 1, ctypes.c_char_p(filter)) == 0
with warnings.catch_warnings(record=True) as warned:
    warnings.simplefilter("always")
    for turn in range(3):
        assert cache.get_or_compute("before", lambda: b"own") == b"own"
        assert cache.get_or_compute("large", lambda: b"own") == b"own"
assert len(warned) == 1, warned
print(warned[0].message)
"""


@reads_large_values
def test_a_sandbox_that_refuses_to_read_others_is_named_once(name: str, new_peer: Any) -> None:
    peer: Peer = new_peer()
    peer.ask(peers.put, "before", b"y" * 100_000)
    peer.ask(peers.put, "large", b"x" * 100_000)
    command = [sys.executable, "-c", REFUSED, name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "each process has its own" in done.stdout
    assert "not permitted" in done.stdout
    assert peer.ask(peers.get, "large") == b"x" * 100_000
