"""The ladder of rungs: what is in use, why not more, and what happens where more is forbidden."""

from __future__ import annotations

import platform
import textwrap

import pytest
from support import PAGE, RUNG, python, succeeds

import vrange

RUNGS = ["eager", "sentinel", "refault"]

# Forbids a system call, or one kind of advice, to this process and its children: errno instead.
FORBID = """
import ctypes, platform, struct
def forbid(syscalls, advice=None, errno=1):
    libc = ctypes.CDLL(None, use_errno=True)
    def instruction(code, jump_true, jump_false, k):
        return struct.pack("HBBI", code, jump_true, jump_false, k)
    LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
    program = [instruction(LOAD, 0, 0, 0)]
    for number in syscalls:
        program += [instruction(EQUAL, 0, 1, number), instruction(RETURN, 0, 0, 0x50000 | errno)]
    if advice:
        number, kinds = advice
        program.append(instruction(EQUAL, 0, 2 * len(kinds) + 1, number))
        program.append(instruction(LOAD, 0, 0, 16 + 2 * 8))
        for kind in kinds:
            program += [instruction(EQUAL, 0, 1, kind), instruction(RETURN, 0, 0, 0x50000 | errno)]
    program.append(instruction(RETURN, 0, 0, 0x7FFF0000))
    code = b"".join(program)
    buffer = ctypes.create_string_buffer(code)
    filter = struct.pack("HxxxxxxQ", len(program), ctypes.addressof(buffer))
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    # Every thread, vrange's too, as a sandbox does: prctl(PR_SET_SECCOMP) would bind this one only.
    seccomp = {"x86_64": 317, "aarch64": 277}[platform.machine()]
    assert libc.syscall(seccomp, 1, 1, ctypes.c_char_p(filter)) == 0
"""
MACHINE = platform.machine()
USERFAULTFD = {"x86_64": 323, "aarch64": 282}.get(MACHINE)
MADVISE = {"x86_64": 28, "aarch64": 233}.get(MACHINE)
PROCESS_MADVISE = 440
CLONE = {"x86_64": [56, 435], "aarch64": [220, 435]}.get(MACHINE)
knows_syscalls = pytest.mark.skipif(
    USERFAULTFD is None, reason=f"the numbers of system calls of {MACHINE} are not written here"
)

# A cache, and what of it may be lost there, in a few lines.
USE = """
import vrange
cache = vrange.VolatileCache(arena_bytes="16MiB", hot_bytes=0)
cache["k"] = b"content" * 1000
assert cache["k"] == b"content" * 1000
assert cache.discard() == 1
assert "k" not in cache
assert cache.get_or_compute("k", lambda: b"again" * 1000) == b"again" * 1000
assert cache.info().purged == 1
with vrange.Arena("1MiB") as arena:
    r = arena.allocate(8192)
    r.buffer[:] = b"x" * 8192
    r.mark_volatile()
    assert not r.pin()
    assert bytes(r.buffer) == b"x" * 8192
"""


def test_what_runs_here_is_told() -> None:
    now = vrange.capabilities()
    assert now.rung in RUNGS
    assert now.page_bytes == PAGE
    assert now.kernel == platform.release()
    assert now.python == platform.python_version()
    assert now.supported == (now.rung != "eager")
    higher = RUNGS[RUNGS.index(now.rung) + 1 :]
    assert set(now.refusals) == set(higher)
    assert all(now.refusals.values())
    assert f"rung {now.rung}, Linux {now.kernel}" in str(now)
    for rung in higher:
        assert f"not {rung}: " in str(now)


@pytest.mark.parametrize("rung", RUNGS)
def test_a_lower_rung_can_be_forced_and_a_cache_works_on_it(rung: str) -> None:
    if RUNGS.index(rung) > RUNGS.index(RUNG):
        pytest.skip(f"this run is on the rung {RUNG}")
    code = USE + "print(vrange.capabilities())"
    told = succeeds(code, rung=rung)
    assert told.startswith(f"rung {rung},")
    for higher in RUNGS[RUNGS.index(rung) + 1 :]:
        assert f"not {higher}: VRANGE_RUNG={rung} asks for a lower rung" in told


@pytest.mark.parametrize("name", ["bogus", "REFAULT", "refault ", "0"])
def test_what_is_no_rung_is_told_at_once(name: str) -> None:
    code = """
    import vrange
    for use in (
        vrange.capabilities,
        lambda: vrange.Arena("1MiB"),
        lambda: vrange.VolatileCache().update(k=1),
    ):
        try:
            use()
        except vrange.VrangeError as error:
            print(error)
    """
    told = succeeds(code, rung=name).splitlines()
    assert told == [f"VRANGE_RUNG={name} names no rung: the rungs are eager, sentinel, refault"] * 3


@knows_syscalls
@pytest.mark.skipif(RUNG != "refault", reason=f"this run is on the rung {RUNG}")
@pytest.mark.parametrize(
    ("errno", "why"), [(1, "Operation not permitted"), (38, "Function not implemented")]
)
def test_without_userfaultfd_it_is_sentinel_and_told_why(errno: int, why: str) -> None:
    code = FORBID + f"forbid([{USERFAULTFD}], errno={errno})" + USE
    told = succeeds(
        code + "print(vrange.capabilities())", environment={"VRANGE_RUNG": ""}
    ).splitlines()
    assert told[0].startswith("rung sentinel,")
    assert told[1] == f"not refault: userfaultfd with UFFD_FEATURE_SIGBUS is refused: {why}"


@knows_syscalls
@pytest.mark.skipif(RUNG != "refault", reason=f"this run is on the rung {RUNG}")
def test_without_populate_write_it_is_sentinel() -> None:
    # As on Linux before 5.14, which answers EINVAL.
    code = FORBID + f"forbid([], advice=({MADVISE}, [23]), errno=22)" + USE
    told = succeeds(code + "print(vrange.capabilities())", environment={"VRANGE_RUNG": ""})
    assert told.startswith("rung sentinel,")
    assert "not refault: madvise(MADV_POPULATE_WRITE) does not work" in told


@knows_syscalls
def test_without_lazy_freeing_it_is_eager() -> None:
    code = FORBID + f"forbid([{USERFAULTFD}], advice=({MADVISE}, [8]), errno=22)" + USE
    told = succeeds(code + "print(vrange.capabilities())", environment={"VRANGE_RUNG": ""})
    assert told.startswith("rung eager,")
    assert "not sentinel: madvise(MADV_FREE) is refused: Invalid argument" in told
    assert "not refault: " in told


@knows_syscalls
@pytest.mark.parametrize("rung", ["sentinel", "refault"])
def test_where_a_named_rung_is_refused_the_next_lower_one_is_used_and_it_says_so(rung: str) -> None:
    code = FORBID + f"forbid([{USERFAULTFD}], advice=({MADVISE}, [8]))" + USE
    done = python(code + "\nprint(vrange.capabilities())", rung=rung)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("rung eager,")
    assert f"not {rung}: " in done.stdout
    (said,) = done.stderr.splitlines()
    assert said.startswith(f"vrange: VRANGE_RUNG={rung} is not available here (")
    assert said.endswith('Operation not permitted); vrange continues on the rung "eager"')


@knows_syscalls
@pytest.mark.skipif(RUNG == "eager", reason="nothing is offered on the eager rung")
def test_where_batches_are_refused_ranges_are_offered_one_by_one() -> None:
    code = (
        FORBID
        + f"forbid([{PROCESS_MADVISE}], errno=38)"
        + """
import vrange
from support import *
vrange.set_reserve("1GiB", tick=0.001)
with vrange.Arena("16MiB") as arena:
    ranges = [arena.allocate(PAGE) for _ in range(200)]
    for r in ranges:
        r.buffer[:1] = b"x"
        r.mark_volatile()
    for r in ranges:
        wait_offered(r._handle)
        lose(r._handle)
    assert all(r.pin() for r in ranges)
"""
    )
    succeeds(code)


@knows_syscalls
@pytest.mark.parametrize("rung", RUNGS)
def test_where_no_thread_can_be_started_values_are_returned(rung: str) -> None:
    """On the eager rung, what is released without a caretaker is discarded at once, slabs too."""
    if RUNGS.index(rung) > RUNGS.index(RUNG):
        pytest.skip(f"this run is on the rung {RUNG}")
    code = f"""
    forbid({CLONE}, errno=11)
    import vrange
    cache = vrange.VolatileCache(hot_bytes=0)
    for key in range(3):
        for size in (10, 1000, 3000, 100_000):
            value = bytes([key]) * size
            assert cache.get_or_compute((key, size), lambda: value) == value
            cache[key] = value
            assert cache.get(key, value) == value
    print("done")
    """
    assert succeeds(FORBID + textwrap.dedent(code), rung=rung).strip() == "done"
