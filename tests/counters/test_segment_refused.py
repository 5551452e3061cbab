"""Files that are no stats segment, or somebody else's, are refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from segment_support import own_path

from vrange._core import lib
from vrange._counters import processes, segment
from vrange._counters.account import Account


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:100], "torn: 100 bytes"),
        (lambda data: data[: len(data) // 2], "torn"),
        (lambda data: b"", "torn: 0 bytes"),
        (lambda data: b"JAVA" + data[4:], "not a stats segment"),
        (lambda data: data[:8] + b"\x09" + data[9:], "layout 9"),
        (lambda data: data[:64] + b"\0\0\0\0" + data[68:], "torn"),
        (lambda data: data[:80] + b"\xff\xff\xff\x7f" + data[84:], "tables don't fit"),
        (lambda data: data[:108] + b"\xff\xff\xff\x7f" + data[112:], "tables don't fit"),
    ],
)
def test_torn_and_foreign_files(
    directory: Path, change: Callable[[bytes], bytes], message: str
) -> None:
    Account("any", lib.VRANGE_KIND_CACHE)
    file = directory / "4000000-1.stats"
    file.write_bytes(change(own_path().read_bytes()))
    with pytest.raises(segment.SegmentRefusedError, match=message):
        segment.read(file)
    assert processes.living([directory]) == []


def test_random_headers_are_refused_or_read_but_never_worse(directory: Path) -> None:
    import random

    whole = own_path().read_bytes()
    chance = random.Random(5)
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 8)):
            data[chance.randrange(8, 300)] = chance.randrange(256)
        try:
            with memoryview(data) as view:
                segment.parse(view)
        except segment.SegmentRefusedError:
            pass


def test_links_directories_and_pipes(directory: Path) -> None:
    (directory / "1-1.stats").symlink_to(own_path())
    (directory / "1-2.stats").mkdir()
    os.mkfifo(directory / "1-3.stats")
    assert processes.living([directory]) == []
    with pytest.raises(OSError, match="symbolic link"):
        segment.read(directory / "1-1.stats")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_another_users_segment(directory: Path) -> None:
    file = directory / "1-1.stats"
    file.write_bytes(own_path().read_bytes())
    os.chown(file, 12345, 12345)
    with pytest.raises(segment.SegmentRefusedError, match="belongs to user 12345"):
        segment.read(file)
    os.chown(directory, 12345, 12345)
    assert processes.living([directory]) == []
