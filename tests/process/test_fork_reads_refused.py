"""Where the child of a fork may not read its parent, it goes on without."""

from __future__ import annotations

import os
import textwrap

import pytest
from fork_reads import forking

REFUSE = """
import ctypes, platform, struct
def be_turned_off():
    assert os.environ["VRANGE_PEERS"] == "0"
def be_another_user():
    os.setgid(65534)
    os.setuid(65534)
def be_killed():
    be_judged(0x80000000)
def be_refused(error):
    be_judged(0x50000 | error)
def be_judged(verdict):
    libc = ctypes.CDLL(None, use_errno=True)
    read, seccomp = {"x86_64": (310, 317), "aarch64": (270, 277)}[platform.machine()]
    program = [(0x20, 0, 0, 0), (0x15, 0, 1, read),
               (0x06, 0, 0, verdict), (0x06, 0, 0, 0x7FFF0000)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in program))
    filter = struct.pack("HxxxxxxQ", len(program), ctypes.addressof(code))
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    assert libc.syscall(seccomp, 1, 1, ctypes.c_char_p(filter)) == 0
"""


@pytest.mark.parametrize(
    "refuse",
    ["be_another_user()", "be_refused(1)", "be_refused(38)", "be_killed()", "be_turned_off()"],
    ids=["user", "1", "38", "killed", "off"],
)
def test_where_it_may_not_be_read_its_keys_are_misses_without_a_word(
    refuse: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that has changed its user, as gunicorn's do where the master is root; a sandbox.

    Where the sandbox would end the process for the call, the process lives.
    """
    if "user" in refuse and os.geteuid() != 0:
        pytest.skip("needs root, to be another user")
    if "off" in refuse:
        monkeypatch.setenv("VRANGE_PEERS", "0")
    code = f"""
    cache = vrange.VolatileCache(hot_bytes=0)
    for n in range(20):
        cache[n] = bytes([n]) * 20_000
        cache["small", n] = n

    def check():
        {refuse}
        for n in range(20):
            assert cache.get(n) is None and cache.get(("small", n)) is None
            assert cache.get_or_compute(n, lambda: b"anew") == b"anew"
        assert len(cache) == 20

    join(in_child(check))
    """
    forking(REFUSE + textwrap.dedent(code))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user")
def test_a_daemon_that_has_given_up_its_rights_may_not_be_read() -> None:
    """Linux makes it undumpable, although its children are of the same user."""
    code = """
    cache = vrange.VolatileCache(hot_bytes=0)
    for n in range(20):
        cache[n] = bytes([n]) * 20_000
    be_another_user()

    def check():
        assert [cache.get(n) for n in range(20)] == [None] * 20
        assert cache.get_or_compute(3, lambda: b"anew") == cache[3] == b"anew"
        assert cache.info().peer_hits == 0

    join(in_child(check))
    assert all(cache[n] == bytes([n]) * 20_000 for n in range(20))
    """
    forking(REFUSE + textwrap.dedent(code))


def test_the_doctor_finds_whether_children_may_read() -> None:
    code = """
    from vrange.cli import doctor
    found = lambda: next(one for one in doctor.examine() if one.name == "forked children")
    assert found().value is True and found().change is None
    be_refused(1)
    assert found().value is False and "seccomp" in found().change
    """
    forking(REFUSE + textwrap.dedent(code))
