"""How much a trim of glibc's malloc would return, computed from what glibc reports of its arenas.

A trim (`malloc_trim`) discards the whole pages inside each freed block, and the end of the main
arena. glibc reports how many freed blocks of which sizes there are. A block begins anywhere in a
page, so on average it has a page less of whole pages than it is long. Pages that are not resident
have been discarded before: the kernel reports how many of an arena's pages are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from vrange._core import ffi, lib

__all__ = ["Arena", "arenas", "unused", "unused_bytes"]

_PAGE = int(lib.vrange_page_bytes())
_HEADER = 48  # struct malloc_chunk, which a trim leaves in front of the pages
_HEAP_BYTES = 64 << 20  # arenas other than the main one begin at a multiple of this (HEAP_MAX_SIZE)
_REPORT_BYTES = 1 << 20
_ARENA = re.compile(r'<heap nr="(\d+)">(.*?)</heap>', re.DOTALL)
_SIZE = re.compile(r'<(?:size|unsorted) from="\d+" to="(\d+)" total="(\d+)" count="(\d+)"/>')
_REST = re.compile(r'<total type="rest" count="\d+" size="(\d+)"/>')
_SYSTEM = re.compile(r'<system type="current" size="(\d+)"/>')
_MAPPING = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ (\d+) *(.*)$")


@dataclass(frozen=True)
class Arena:
    """One arena of glibc's.

    Attributes
    ----------
    main : bool
        Whether it is the one that grows with the program break.
    system_bytes : int
        What it has from the system.
    free_bytes : int
        What of that is freed, in whole blocks.
    whole_pages_bytes : int
        The whole pages inside freed blocks, on average.
    top_bytes : int
        Its end, which was never used or is free.

    """

    main: bool
    system_bytes: int
    free_bytes: int
    whole_pages_bytes: int
    top_bytes: int


def arenas(report: str) -> list[Arena]:
    """Return the arenas in a report of malloc_info(3)."""
    return [_arena(number == "0", text) for number, text in _ARENA.findall(report)]


def _arena(main: bool, text: str) -> Arena:
    whole = free = 0
    for largest, total, count in (map(int, sizes) for sizes in _SIZE.findall(text)):
        free += total
        if largest >= _PAGE:
            whole += max(0, total - count * (_HEADER + _PAGE))
    rest, system = _REST.search(text), _SYSTEM.search(text)
    fast = sum(int(total) for total in re.findall(r'type="fast" count="\d+" size="(\d+)"', text))
    top = max(0, int(rest[1]) - (free - fast)) if rest else 0
    return Arena(main, int(system[1]) if system else 0, free, whole, top)


def unused(found: list[Arena], resident: tuple[int, int], page: int = _PAGE) -> int:
    """Return what a trim would return of these arenas.

    Parameters
    ----------
    found : list of Arena
        The arenas.
    resident : tuple of two int
        The resident bytes of the main arena, and of all others.
    page : int
        The size of a page.

    """
    total = 0
    for main, present in zip((True, False), resident, strict=True):
        some = [one for one in found if one.main is main]
        absent = max(0, sum(one.system_bytes for one in some) - present)
        pages = sum(one.whole_pages_bytes for one in some)
        top = sum(one.top_bytes for one in some)
        # A trim returns the end of the main arena. Others keep theirs, which is mostly untouched.
        pages, absent = (pages + top // page * page, absent) if main else (pages, absent - top)
        total += max(0, pages - max(0, absent))
    return total


def unused_bytes() -> int | None:
    """Return what a trim of glibc's malloc would return in this process; None if it is unknown."""
    text = ffi.new("char[]", _REPORT_BYTES)
    length = lib.vrange_glibc_report(text, _REPORT_BYTES)
    if not 0 < length < _REPORT_BYTES:
        return None
    found = arenas(ffi.string(text).decode(errors="replace"))
    with open("/proc/self/smaps", encoding="utf-8", errors="replace") as file:
        resident = _resident(file)
    return unused(found, resident)


def _resident(lines: Iterator[str]) -> tuple[int, int]:
    """Return the resident bytes of the main arena, and of the others."""
    main = others = 0
    is_main = is_other = False
    for line in lines:
        mapping = _MAPPING.match(line)
        if mapping:
            begin, inode, name = int(mapping[1], 16), mapping[4], mapping[5]
            is_main = name == "[heap]"
            anonymous = inode == "0" and not name and mapping[3].startswith("rw-p")
            is_other = anonymous and begin % _HEAP_BYTES == 0
        elif (is_main or is_other) and line.startswith("Rss:"):
            nbytes = int(line.split()[1]) << 10
            main += nbytes if is_main else 0
            others += nbytes if is_other else 0
    return main, others
