"""Arrays read in sequence: blocks are read ahead, and come in huge pages where there are some."""

from __future__ import annotations

import os
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest
from array_child import PAGE
from array_support import Counting, counts, ends_well, on_refault

import vrange
from vrange import fills


@on_refault
def test_reading_ahead(counting: Counting) -> None:
    a = counting(256)
    whole = np.asarray(a)
    assert counts(whole)
    assert a.refaults < 256 / 8
    a.discard()
    before = a.refaults
    order = np.random.default_rng(1).permutation(256)
    assert [int(whole[i * 8192]) for i in order] == [int(i) * 8192 for i in order]
    assert a.refaults - before > 256 / 2
    # Four sequences at once, each with what was lost of it.
    a.discard()
    before = a.refaults
    quarters = whole.reshape(4, -1)
    assert counts(quarters[:, ::512].T.reshape(-1, 4).T.reshape(-1) // 512)
    assert a.refaults - before < 256 / 4


@on_refault
def test_reading_ahead_meets_a_block_that_fails(tmp_path: Path) -> None:
    """Nobody asked for it: what was asked for is still right."""
    file = tmp_path / "content"
    file.write_bytes(np.arange(64 * PAGE // 8).tobytes())
    a = vrange.VolatileArray(64 * PAGE // 8, "i8", fill=fills.file(file), block_bytes=PAGE)
    os.truncate(file, 40 * PAGE)
    whole = np.asarray(a)
    for page in range(40):
        assert whole[page * PAGE // 8] == page * PAGE // 8
    with pytest.raises(vrange.RegenerationError, match="block 40 of array 'array' can't be put"):
        a.fill_ahead()


@on_refault
def test_a_sequence_comes_in_huge_pages_where_there_are_some() -> None:
    """And what is lost of one, or forked while it is on its way, is right all the same."""
    code = """
    def huge_bytes(view):
        inside = False
        for line in open("/proc/self/smaps"):
            first = line.split(maxsplit=1)[0]
            if not first.endswith(":"):
                begin, end = (int(part, 16) for part in first.split("-"))
                inside = begin <= address_of(view) < end
            elif inside and first == "AnonHugePages:":
                return int(line.split()[1]) * KIB
    ffi, c = fill_functions()
    start = ffi.new("uint64_t *", 5)
    for block_bytes in 4096, 65536, 2 << 20:
        a = vrange.VolatileArray(8 * MIB + 77, "u8", fill=vrange.fills.native(c.count_from, start),
                                 block_bytes=block_bytes)
        view, right = np.asarray(a), np.arange(5, 8 * MIB + 82, dtype="u8")
        assert np.array_equal(view, right)
        huge = huge_bytes(view)
        assert huge % (2 * MIB) == 0
        print(huge >= 8 * MIB)
        for first, count in (3, 1), (500, 600), (1024, 512), (2000, 5000):
            lose_pages(view, first, count)
            with a.pin(slice(first * 512, first * 512 + 9)) as pinned:
                assert np.array_equal(pinned, right[first * 512:][:9])
            del pinned
            assert np.array_equal(view, right)
        a.discard()
        view[:3 * MIB].sum()
        pid = os.fork()
        good = np.array_equal(view, right)
        if pid == 0: os._exit(not good)
        assert good and os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    """
    has_some = "[never]" not in Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text()
    major, minor = (int(part) for part in os.uname().release.split(".")[:2])
    code = "import warnings; warnings.simplefilter('ignore')\n" + dedent(code)
    told = ends_well(code).split()
    assert len(told) == 3
    if has_some and (major, minor) >= (6, 13) and os.uname().machine == "x86_64":
        assert "True" in told


@on_refault
def test_all_that_was_touched_is_the_kernels_to_take() -> None:
    """Also what was touched now and then, on another processor than the one that offers it."""
    code = """
    def bytes_of(view, field):
        inside = False
        for line in open("/proc/self/smaps"):
            first = line.split(maxsplit=1)[0]
            if not first.endswith(":"):
                begin, end = (int(part, 16) for part in first.split("-"))
                inside = begin <= address_of(view) < end
            elif inside and first == field + ":":
                return int(line.split()[1]) * KIB
    a = vrange.VolatileArray(64 * MIB, "u1", fill=vrange.fills.zero())
    view = np.asarray(a)
    for i in range(0, 64 * MIB, MIB):
        view[i]
        time.sleep(0.02)
    assert bytes_of(view, "Rss") == 64 * 64 * KIB
    for _ in range(50):  # what is never told again stays as it is, however often it is looked at
        settle()
        if bytes_of(view, "Rss") - bytes_of(view, "LazyFree") <= 64 * KIB: break
    else: raise AssertionError((bytes_of(view, "Rss"), bytes_of(view, "LazyFree")))
    """
    assert ends_well(code) == ""
