"""What a trim of glibc's malloc would return, computed from its report."""

from __future__ import annotations

from vrange.heap import glibc

KIB, MIB = 1 << 10, 1 << 20
REPORT = """<malloc version="1">
<heap nr="0">
<sizes>
  <size from="33" to="48" total="4800" count="100"/>
  <size from="65552" to="65552" total="6555200" count="100"/>
  <unsorted from="1040" to="1040" total="1040" count="1"/>
</sizes>
<total type="fast" count="100" size="4800"/>
<total type="rest" count="102" size="6688000"/>
<system type="current" size="67108864"/>
<system type="max" size="67108864"/>
<aspace type="total" size="67108864"/>
<aspace type="mprotect" size="67108864"/>
</heap>
<heap nr="1">
<sizes>
  <size from="65552" to="65552" total="655520" count="10"/>
</sizes>
<total type="fast" count="0" size="0"/>
<total type="rest" count="11" size="1000000"/>
<system type="current" size="8388608"/>
<system type="max" size="8388608"/>
<aspace type="total" size="8388608"/>
<aspace type="mprotect" size="8388608"/>
</heap>
<total type="fast" count="100" size="4800"/>
<total type="rest" count="112" size="7688000"/>
</malloc>
"""


def test_a_report_is_read() -> None:
    main, other = glibc.arenas(REPORT)
    assert (main.main, other.main) == (True, False)
    assert main.system_bytes == 64 * MIB
    assert main.whole_pages_bytes == 100 * (65552 - 48 - 4 * KIB)  # 15 pages of 16, on average
    assert main.top_bytes == 6688000 - 6555200 - 1040
    assert other.top_bytes == 1000000 - 655520


def test_what_is_not_resident_can_t_be_returned() -> None:
    found = glibc.arenas(REPORT)
    main, other = (arena.whole_pages_bytes for arena in found)
    top = found[0].top_bytes // (4 * KIB) * (4 * KIB)
    assert glibc.unused(found, (64 * MIB, 8 * MIB), 4 * KIB) == main + top + other
    assert glibc.unused(found, (63 * MIB, 8 * MIB), 4 * KIB) == main + top + other - MIB
    assert glibc.unused(found, (MIB, 8 * MIB), 4 * KIB) == other
    # The end of another arena stays as it is, and is not resident at first.
    assert glibc.unused(found, (64 * MIB, 8 * MIB - 300000), 4 * KIB) == main + top + other
    assert glibc.unused([], (0, 0)) == 0
