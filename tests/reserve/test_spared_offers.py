"""A limit on the resident set whose judge does not count what is offered to the kernel."""

from __future__ import annotations

import pytest
from support import RUNG, succeeds

COMMON = """
import psutil, time, vrange
from vrange._ranges.set_limit import put_limit
MIB = 1 << 20
def resident():
    return psutil.Process().memory_info().rss
arena = vrange.Arena("4GiB")
arena.store([bytes(MIB)]).free()
base = resident()
LIMIT = base + 64 * MIB
put_limit("a judge", LIMIT, most_bytes=base + 128 * MIB)
"""


def test_what_is_volatile_stays_and_does_not_count() -> None:
    code = (
        COMMON
        + """
from vrange._ranges.reserve import offered_bytes
stored = []
worst = 0
for n in range(50):
    stored.append(arena.store([bytes([n]) * (8 * MIB)]))
    stored[-1].mark_volatile()
    worst = max(worst, resident() - offered_bytes())
is_beyond = resident() > LIMIT + 200 * MIB
lost = 0
for n, one in enumerate(stored):
    if one.pin():
        lost += 1
    else:
        assert bytes(one.buffer[::MIB]) == bytes([n]) * 8
    one.mark_volatile()
print(lost, worst <= LIMIT + 24 * MIB, is_beyond)
"""
    )
    lost, is_below, is_beyond = succeeds(code).split()
    assert is_below == "True"
    if RUNG == "eager":  # nothing can be offered: it is discarded, as for any judge
        assert int(lost) > 20
        assert is_beyond == "False"
    else:
        assert int(lost) == 0
        assert is_beyond == "True"


def test_what_does_not_fit_is_refused_up_to_the_most() -> None:
    code = (
        COMMON
        + """
held = arena.store([bytes(80 * MIB)])  # exceeds the limit, and not the most
try:
    arena.store([bytes(200 * MIB)])
    print("stored")
except vrange.ArenaFullError:
    print("refused")
"""
    )
    assert succeeds(code) == "refused\n"


@pytest.mark.parametrize("order", [("a judge", "another"), ("another", "a judge")])
def test_if_one_judge_counts_them_they_count(order: tuple[str, str]) -> None:
    code = (
        COMMON
        + f"""
for setter in {order!r}:
    put_limit(setter, LIMIT, most_bytes=base + 128 * MIB if setter == "a judge" else 0)
for n in range(50):
    arena.store([bytes(8 * MIB)]).mark_volatile()
print(resident() <= LIMIT)
put_limit("another", None)
put_limit("a judge", None)
print(vrange.memory_limit().source != "set_limit")
"""
    )
    assert succeeds(code) == "True\nTrue\n"
