"""Segments and ledgers that are corrupt, cut short or hostile: no reader ends, others are shown."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from segment_support import end, own_path, start

from vrange._core import ffi, lib
from vrange._counters import lock, processes, segment, service
from vrange._counters.ledger import Service, ledger_path, load, save
from vrange._counters.own_file import FileRefusedError, OwnFile
from vrange.cli.export import SidecarCollector

WHOLE = 1 << 64


# In a process of its own: the one that runs all tests has more names than a service is shown with.
COPY_OF_A_SEGMENT = """
import sys, vrange
from segment_support import own_path
with vrange.VolatileCache(name="whole", hot_bytes=0) as cache:
    cache.get_or_compute("k", lambda: b"v")
    sys.stdout.buffer.write(own_path().read_bytes())
"""


@pytest.fixture(scope="module")
def whole() -> bytes:
    return subprocess.run(
        [sys.executable, "-c", COPY_OF_A_SEGMENT],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        timeout=60,
        check=True,
    ).stdout


def changed(data: bytes, *, size: int | None = None, **fields: Any) -> bytes:
    """The segment with other values in its header."""
    out = bytearray(data if size is None else data[:size].ljust(size, b"\0"))
    head = ffi.from_buffer("segment_header *", out)
    head.bytes = len(out)
    for name, value in fields.items():
        setattr(head, name, value)
    ffi.release(head)
    return bytes(out)


def head_of(data: bytes) -> Any:
    return ffi.from_buffer("segment_header *", data)


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "small accounts up to the end": lambda data: changed(
        data, account_bytes=8, regenerate_at=0, buckets=0, accounts=(len(data) - 4096) // 8
    ),
    "an odd length": lambda data: changed(data, size=len(data) + 4),
    "7 buckets": lambda data: changed(data, buckets=7),
    "no buckets": lambda data: changed(data, buckets=0),
    "other buckets": lambda data: changed(data, buckets=lib.VRANGE_BUCKETS - 6),
    "buckets without end": lambda data: changed(
        data, buckets=1 << 20, account_bytes=1 << 24, accounts=1, shard_bytes=1 << 31
    ),
    "no kinds": lambda data: changed(data, kinds=0, accounts_used=0),
    "overflow slots beyond the end": lambda data: changed(
        data, overflow_at=len(data) - 256, overflow_used=8192
    ),
    "overflow slots of 8 bytes": lambda data: changed(data, overflow_bytes=8, overflow_used=8192),
    "overflow slots without end": lambda data: changed(
        data, overflows=(1 << 32) - 1, overflow_used=(1 << 32) - 1
    ),
    "overflow slots at odd places": lambda data: changed(
        data, overflow_at=1, overflow_bytes=231, overflow_used=5
    ),
    "an odd turn": lambda data: changed(data, turn=1),
    "large numbers": lambda data: changed(
        data,
        pressure_level=WHOLE - 1,
        pressure_changes=[WHOLE - 1] * lib.VRANGE_PRESSURE_LEVELS,
        trims=WHOLE - 1,
        stack_limit_bytes=WHOLE - 1,
        stack_high_water_bytes=WHOLE - 1,
        rung=1 << 31,
    ),
    "large accounts": lambda data: data[:4096] + b"\xff" * (len(data) - 4096),
    "a process that can't be": lambda data: changed(data, pid=(1 << 32) - 1),
    "no process": lambda data: changed(data, pid=0),
    "the header only": lambda data: changed(data, size=ffi.sizeof("segment_header")),
    "a page": lambda data: changed(data, size=4096),
    "names that are not UTF-8": lambda data: changed(
        data, service=b"\xff\x1b[2J" * 9, name=b"\x80" * 63
    ),
}


def planted(directory: Path, data: bytes) -> None:
    """Put a segment as one of a living process, of a dead one, and of a service of its own."""
    (directory / "1-77.stats").write_bytes(data)
    (directory / "999999-77.stats").write_bytes(data)
    if len(data) >= ffi.sizeof("segment_header"):
        (directory / "999999-78.stats").write_bytes(
            changed(
                data, size=len(data), pid=999999, service=b"evil", flags=head_of(data).flags | 2
            )
        )


@pytest.fixture
def living(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The directory of a process that lives and whose figures must be shown."""
    child = start(directory)
    own_path()  # this process's own segment is made once, and in the usual place
    monkeypatch.setenv("VRANGE_RUNTIME_DIR", str(directory))
    yield directory
    end(child)


def check_readers(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from vrange.cli import main

    registry = CollectorRegistry()
    registry.register(SidecarCollector())
    assert b'name="outside"' in generate_latest(registry)
    assert "outside" in [a.name for one in processes.living([directory]) for a in one.accounts]
    assert main(["top", "--once", "--interval", "0.01"]) == 0
    assert "outside" in capsys.readouterr().out


@pytest.mark.parametrize("damage", DAMAGES)
def test_readers_show_the_other_processes(
    living: Path, whole: bytes, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    planted(living, DAMAGES[damage](whole))
    check_readers(living, capsys)


def test_a_file_that_is_cut_short_while_it_is_read_is_refused(
    directory: Path, whole: bytes
) -> None:
    """A mapping would end the reader with SIGBUS."""
    file = directory / "1-5.stats"
    file.write_bytes(whole)
    ended = threading.Event()

    def cut() -> None:
        while not ended.is_set():
            os.truncate(file, 4096)
            os.truncate(file, len(whole))

    thread = threading.Thread(target=cut)
    thread.start()
    try:
        for _ in range(300):
            with suppress(segment.SegmentRefusedError):
                segment.read(file)
    finally:
        ended.set()
        thread.join()
    with segment.open_segment(file) as opened:
        os.truncate(file, 4096)
        with pytest.raises(segment.SegmentRefusedError, match="cut short while it was read"):
            opened.snapshot()


def test_a_large_file_is_not_read(directory: Path) -> None:
    file = directory / "1-6.stats"
    file.write_bytes(b"")
    os.truncate(file, 1 << 40)
    with pytest.raises(segment.SegmentRefusedError, match="is the largest size"):
        segment.read(file)
    with pytest.raises(FileRefusedError, match="not a regular file"):
        OwnFile(directory, 1 << 20)


# ---- ledgers -------------------------------------------------------------------------------------


@pytest.fixture
def ledger(directory: Path, whole: bytes) -> Path:
    """The ledger of a service with one process that has ended."""
    with memoryview(whole) as view:
        ended = segment.parse(view)
    found = Service("service")
    found.fold(Path("1-1.stats"), ended)
    found.leaders = [(os.getpid(), 1 << 62)]  # not of the group, whose leader may have ended
    (directory / "1-1.stats").write_bytes(b"")
    save(directory, found)
    return ledger_path(directory, "service")


def edited(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def test_a_ledger_is_loaded_as_it_was_saved(ledger: Path) -> None:
    found = load(ledger)
    assert found is not None
    assert found.ended.accounts["cache", "whole"].requests["miss"] >= 1
    assert found.folded == ["1-1.stats"]


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data["ended"]["accounts"][0].update(name="\ud800"),
        lambda data: data["ended"]["accounts"][0].update(name="x" * 1000),
        lambda data: data["ended"]["accounts"][0].update(kind="evil"),
        lambda data: data["ended"]["accounts"][0].update(counts=[10**400, 0, 0, 0]),
        lambda data: data["ended"]["accounts"][0].update(counts=[float("inf"), 0, 0, 0]),
        lambda data: data["ended"]["accounts"][0].update(counts=[-1, 0, 0, 0]),
        lambda data: data["ended"]["accounts"][0].update(requests={"evil": 1}),
        lambda data: data["ended"]["accounts"][0].update(regenerate=[1, 1 << 40, {}]),
        lambda data: data["ended"]["accounts"][0].update(regenerate=[1, 496, {"497": 1}]),
        lambda data: data["ended"]["accounts"][0].update(regenerate=[1, 496, {"-1": 1}]),
        lambda data: data["ended"]["accounts"].extend(data["ended"]["accounts"] * 500),
        lambda data: data["ended"]["latencies"].append(["evil", "cache", "x", [0, 0, {}]]),
        lambda data: data["ended"]["pressure"]["changes"].update(evil=1),
        lambda data: data["ended"].update(trims="many"),
        lambda data: data.update(key="another"),
        lambda data: data.update(leaders=[[1]]),
        lambda data: data.update(folded=[7]),
        lambda data: data.update(ended=None),
    ],
)
def test_a_ledger_with_what_no_process_counted_is_none(
    ledger: Path, change: Callable[[dict[str, Any]], Any]
) -> None:
    edited(ledger, change)
    assert load(ledger) is None
    assert service.services(ledger.parent) == {}


def test_brackets_without_end_and_large_files_are_no_ledger(ledger: Path) -> None:
    ledger.write_text("[" * 100_000)
    assert load(ledger) is None
    os.truncate(ledger, 1 << 40)
    assert load(ledger) is None


def test_a_ledger_names_only_segments_of_its_directory(ledger: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    names = ["../elsewhere/1-1.stats", str(elsewhere / "1-2.stats"), "mine", "1-1.stats"]
    (elsewhere / "1-1.stats").write_text("")
    (elsewhere / "1-2.stats").write_text("")
    (ledger.parent / "mine").write_text("")
    edited(ledger, lambda data: data.update(folded=names))
    service.services(ledger.parent)
    assert len(list(elsewhere.iterdir())) == 2
    assert (ledger.parent / "mine").exists()
    assert not (ledger.parent / "1-1.stats").exists()  # that one is a segment


def test_a_process_that_starts_removes_no_ledger(directory: Path) -> None:
    """Its name begins as a segment's does if the service is called so."""
    others = [ledger_path(directory, "99999999-1"), directory / "99999999-1.stats.txt"]
    for other in (*others, directory / "99999998-1.stats"):  # the last one is no segment inside
        other.write_bytes(bytes(8192))
    end(start(directory))
    assert all(other.exists() for other in others)
    assert (directory / "99999998-1.stats").exists()


# ---- scrapes that others disturb -----------------------------------------------------------------


@pytest.fixture
def scrape(directory: Path) -> Iterator[Callable[[], str]]:
    """A process with a group collector and a metric of its own; the function scrapes it."""
    code = """
import sys, vrange, prometheus_client as p
registry = p.CollectorRegistry()
p.Gauge("own_metric", "of the application", registry=registry).set(1)
cache = vrange.VolatileCache(name="scraped"); cache.get_or_compute(1, lambda: b"x")
vrange.metrics.register(registry, processes="group")
print("ready", flush=True)
for line in sys.stdin:
    print(p.generate_latest(registry).decode() + "# END", flush=True)
"""
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | {"VRANGE_RUNTIME_DIR": str(directory), "VRANGE_SERVICE": "scraped"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"

    def scrape() -> str:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write("\n")
        child.stdin.flush()
        lines = []
        while (line := child.stdout.readline()) not in ("# END\n", ""):
            lines.append(line)
        return "".join(lines)

    yield scrape
    child.communicate(timeout=30)


def check_whole(text: str) -> None:
    assert "own_metric 1.0" in text
    assert 'vrange_cache_requests_total{name="scraped",outcome="miss"} 1.0' in text


def test_a_lock_on_the_directory_stops_no_scrape(
    directory: Path, scrape: Callable[[], str]
) -> None:
    """Every user who may read a directory can lock it."""
    held = os.open(directory, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    try:
        check_whole(scrape())
    finally:
        os.close(held)


def test_a_process_that_was_stopped_with_the_lock_stops_no_scrape(
    directory: Path, scrape: Callable[[], str]
) -> None:
    with lock.locked(directory) as is_held:
        assert is_held
        check_whole(scrape())
    check_whole(scrape())


def test_a_directory_that_was_removed_or_given_away_stops_no_scrape(
    directory: Path, scrape: Callable[[], str]
) -> None:
    directory.chmod(0o777)  # whoever could write there could have put anything there
    check_whole(scrape())
    directory.chmod(0o700)
    for path in directory.iterdir():
        path.unlink()
    directory.rename(directory.with_name("elsewhere"))
    check_whole(scrape())
    directory.mkdir(0o700)


def test_a_lock_file_of_another_kind_stops_no_scrape(
    directory: Path, scrape: Callable[[], str]
) -> None:
    path = directory / "lock"
    for make in (os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)):
        make(path)
        check_whole(scrape())
        os.rmdir(path) if path.is_dir() else os.unlink(path)


def test_the_lock_is_held_by_one_at_a_time_and_leaves_no_file(directory: Path) -> None:
    inside = 0
    most = 0
    done = []

    def take() -> None:
        nonlocal inside, most
        for _ in range(20):
            with lock.locked(directory) as is_held:
                if not is_held:
                    continue
                inside += 1
                most = max(most, inside)
                done.append(1)
                inside -= 1

    threads = [threading.Thread(target=take) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert len(done) > 20
    assert list(directory.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to another user")
def test_another_users_directory_is_left_alone(directory: Path, whole: bytes) -> None:
    (directory / "1-1.stats").write_bytes(whole)
    os.chown(directory, 12345, 12345)
    try:
        assert service.services(directory) == {}
        assert [path.name for path in directory.iterdir()] == ["1-1.stats"]
    finally:
        os.chown(directory, 0, 0)
