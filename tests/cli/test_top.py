"""`vrange top` and `vrange export`, on processes of their own."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import subprocess
import sys
import termios
import threading
import time
import urllib.request
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse_text

from vrange.cli import main
from vrange.cli.top.view import sparkline

BUSY = """
import sys, time, vrange
cache = vrange.VolatileCache(name="busy", hot_bytes=0)
cache.get_or_compute("a", lambda: b"x" * 40_000)
print("ready", flush=True)
while True:
    for _ in range(100): cache["a"]
    cache.discard("a")
    cache.get_or_compute("a", lambda: b"x" * 40_000)
    time.sleep(0.01)
"""


@pytest.fixture
def busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[str]]:
    tmp_path.chmod(0o700)
    monkeypatch.setenv("VRANGE_RUNTIME_DIR", str(tmp_path))
    child = subprocess.Popen(
        [sys.executable, "-c", BUSY],
        env=os.environ | {"VRANGE_SERVICE": "shop"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    yield child
    child.kill()
    child.communicate(timeout=30)


def test_json_of_one_process(
    busy: subprocess.Popen[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["top", str(busy.pid), "--once", "--json", "--interval", "0.3"]) == 0
    (process,) = json.loads(capsys.readouterr().out)
    assert (process["pid"], process["service"]) == (busy.pid, "shop")
    assert process["memory_limit_bytes"] > process["memory_usage_bytes"] > 0
    (account,) = process["accounts"]
    assert (account["name"], account["kind"]) == ("busy", "cache")
    assert account["requests_per_second"] > 100
    assert 0.9 < account["hit_ratio"] < 1
    assert account["purged_per_second"] > 1
    assert process["purged_bytes_per_second"] > 40_000
    resident = process["latencies"]["time_to_reallocate"]["cache resident"]
    assert 0 < resident["p50_seconds"] <= resident["p99_seconds"] < 1


ARRAYS_AND_STACKS = """
import functools, time, vrange
import numpy as np
def down():
    @functools.cache
    def steps(n): return n and 1 + steps(n - 1)
    return steps(5000)
a = None
if vrange.capabilities().rung == "refault":
    a = vrange.VolatileArray(64 << 10, "u1", fill=vrange.fills.pattern(3), name="frames")
def turn():
    assert vrange.deep_call(down, stack="64MiB") == 5000
    if a is not None:
        a.discard()
        assert np.asarray(a)[5] == 3
turn()
print("ready", flush=True)
while True:
    turn()
    time.sleep(0.005)
"""


def test_refaults_and_deep_stacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.setenv("VRANGE_RUNTIME_DIR", str(tmp_path))
    command = [sys.executable, "-c", ARRAYS_AND_STACKS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            assert main(["top", str(child.pid), "--once", "--json", "--interval", "0.5"]) == 0
            (process,) = json.loads(capsys.readouterr().out)
            assert main(["top", str(child.pid), "--once", "--interval", "0.1"]) == 0
            picture = capsys.readouterr().out
        finally:
            child.kill()
    assert process["stack_limit_bytes"] == 64 << 20
    assert 1 << 20 < process["stack_high_water_bytes"] < 64 << 20
    assert process["stack_returned_bytes"] > 1 << 20
    assert "time_to_free" in process["latencies"]
    assert process["latencies"]["time_to_free"]["stack offered"]["p99_seconds"] > 0
    assert "64.0 MiB used at most" in picture
    if process["rung"] == "refault":
        (frames,) = [one for one in process["accounts"] if one["name"] == "frames"]
        assert frames["refaults_per_second"] == process["refaults_per_second"] > 1
        purged = process["latencies"]["time_to_reallocate"]["array purged"]
        assert 0 < purged["p50_seconds"] <= purged["p99_seconds"]
        assert "/s" in picture.split("refaults")[1].splitlines()[0]


def test_a_picture_of_all(busy: subprocess.Popen[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", "--once", "--interval", "0.2"]) == 0
    text = capsys.readouterr().out
    assert f"process {busy.pid}" in text
    assert "of shop" in text
    assert "time-to-reallocate" in text


def test_it_is_live_and_ends_with_the_process(busy: subprocess.Popen[str]) -> None:
    top = subprocess.Popen(
        [sys.executable, "-m", "vrange.cli", "top", str(busy.pid), "--json", "--interval", "0.1"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert top.stdout is not None
    for _ in range(3):
        assert json.loads(top.stdout.readline())[0]["pid"] == busy.pid
    top.send_signal(signal.SIGINT)
    top.communicate(timeout=30)
    assert top.returncode == 130


def test_nothing_to_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.setenv("VRANGE_RUNTIME_DIR", str(tmp_path))
    assert main(["top", "--once", "--interval", "0.01"]) == 1
    assert "no process" in capsys.readouterr().out
    assert main(["top", "1", "--once"]) == 2
    assert "process 1 is none of this user's" in capsys.readouterr().err
    assert main(["top", "--interval", "0"]) == 2
    assert "--interval must be" in capsys.readouterr().err


def test_sparklines() -> None:
    assert sparkline(deque([0, 0])) == "▁▁"
    assert sparkline(deque([0, 1, 2, 4])) == "▁▂▄█"


def scrape(url: str) -> dict[str, float]:
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    return {
        sample.name
        + "".join(f" {value}" for _, value in sorted(sample.labels.items())): sample.value
        for family in parse_text(text)
        for sample in family.samples
    }


def test_export_serves_what_others_count(busy: subprocess.Popen[str]) -> None:
    export = subprocess.Popen(
        [sys.executable, "-m", "vrange.cli", "export", "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert export.stdout is not None
    url = export.stdout.readline().strip()
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/metrics", url)
    try:
        first = scrape(url)
        asked = "vrange_cache_requests_total busy resident shop"
        assert first[asked] > 0
        deadline = time.monotonic() + 30
        while scrape(url)[asked] == first[asked]:  # it sleeps between its requests
            assert time.monotonic() < deadline, "the counter stands still"
        assert scrape(url)[asked] > first[asked]
        assert first["vrange_processes shop"] == 1
        port = url.split(":")[2].split("/")[0]
        again = subprocess.run(
            [sys.executable, "-m", "vrange.cli", "export", "--port", port],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert again.returncode == 2
        assert "the port is already in use" in again.stderr
        busy.kill()
        busy.wait()
        assert not any("shop" in name for name in scrape(url))
    finally:
        export.send_signal(signal.SIGINT)
        export.communicate(timeout=30)
    assert export.returncode == 130


NAMED = """
import ctypes, sys, vrange
if sys.argv[2]:
    ctypes.CDLL(None).prctl(15, sys.argv[2].encode(), 0, 0, 0)
cache = vrange.VolatileCache(name=sys.argv[1])
cache["a"] = b"x" * 9999
print("ready", flush=True)
sys.stdin.read()
"""


def top_of(place: Path, cache: str, service: str, process: str = "", **env: str) -> str:
    place.chmod(0o700)
    environment = os.environ | {"VRANGE_RUNTIME_DIR": str(place), "VRANGE_SERVICE": service}
    with subprocess.Popen(
        [sys.executable, "-c", NAMED, cache, process],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as named:
        assert named.stdout is not None
        assert named.stdout.readline() == "ready\n"
        shown = subprocess.run(
            [sys.executable, "-m", "vrange.cli", "top", "--once", "--interval", "0.02"],
            env=environment | {"COLUMNS": "160"} | env,
            capture_output=True,
            timeout=60,
            check=True,
        )
    assert shown.stderr == b""
    return shown.stdout.decode(env.get("PYTHONIOENCODING", "utf-8"))


@pytest.mark.parametrize("name", ["tiles[/red]", "[bold]tiles", "[link=http://x/]y[/link]", "a\\"])
def test_a_name_is_text_and_not_markup(tmp_path: Path, name: str) -> None:
    shown = top_of(tmp_path, name, f"web {name}", name[:12])
    assert shown.count(name[:12]) == 3
    assert f"of web {name}, process" in shown


@pytest.mark.parametrize("name", ["a\x1b[2Jb", "a\x1b]0;title\x07b", "a\nb", "a\u202eb"])
def test_a_name_does_not_act_on_the_terminal(tmp_path: Path, name: str) -> None:
    escaped = name.encode("unicode_escape").decode()
    shown = top_of(tmp_path, "tiles", name, name[:12], FORCE_COLOR="1", TERM="xterm-256color")
    plain = re.sub("\x1b\\[[0-9;]*m", "", shown)  # colours
    assert f" of {escaped}, process" in plain
    assert "\x1b" not in plain
    assert "\x07" not in plain
    assert "\u202e" not in plain


@pytest.mark.parametrize("columns", [40, 60, 79, 100, 160])
def test_names_can_be_read_in_a_narrow_terminal(tmp_path: Path, columns: int) -> None:
    shown = top_of(tmp_path, "thumbnails", "shop", COLUMNS=str(columns))
    assert "thumbnails" in shown
    assert max(map(len, shown.splitlines())) <= columns
    headings = next(line for line in shown.splitlines() if "pinned" in line)
    assert "…" not in headings
    assert ("compute" in headings) == (columns >= 80)


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_output_that_is_not_utf_8(tmp_path: Path, encoding: str) -> None:
    assert "tiles" in top_of(tmp_path, "tiles", "shop", PYTHONIOENCODING=encoding)


@pytest.mark.parametrize("key", [b"q", b"Q"])
def test_q_ends_it_and_the_terminal_is_as_before(busy: subprocess.Popen[str], key: bytes) -> None:
    master, terminal = pty.openpty()
    before = termios.tcgetattr(terminal)
    top = subprocess.Popen(
        [sys.executable, "-m", "vrange.cli", "top", "--interval", "0.1"],
        stdin=terminal,
        stdout=terminal,
        start_new_session=True,  # with this terminal: only its foreground may read keys
        preexec_fn=lambda: fcntl.ioctl(terminal, termios.TIOCSCTTY, 0),
        env=os.environ | {"TERM": "xterm"},
    )
    try:
        shown = b""
        while b"asked/s" not in shown:
            shown += os.read(master, 65536)
        os.write(master, b"x")  # means nothing
        os.write(master, key)
        reader = threading.Thread(target=drain, args=(master,), daemon=True)
        reader.start()  # what is not read keeps it from writing
        assert top.wait(30) == 0
        assert termios.tcgetattr(terminal) == before
    finally:
        top.kill()
        top.wait()
        os.close(terminal)
        reader.join(10)
        os.close(master)


def drain(descriptor: int) -> None:
    with suppress(OSError):
        while os.read(descriptor, 65536):
            pass
