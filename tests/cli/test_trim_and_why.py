"""`vrange trim PID` and `vrange why PID`: what a running process is asked for from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from run_support import OBJECTS, VRANGE, program
from support import MIB, wait_until

from vrange._counters import ask as asking
from vrange.cli import main
from vrange.errors import VrangeError

BLOCKS = """
import sys
kept = [bytearray(b"x") * (100 << 10) for _ in range(1000)]
kept = kept[::8]
print("ready", flush=True)
sys.stdin.readline()
assert all(one == b"x" * (100 << 10) for one in kept)
print(79800000)
"""
# A request reaches an unprepared process while its main thread runs Python code.
BUSY = """
import select
while not select.select([sys.stdin], [], [], 0.05)[0]:
    pass
"""
CACHE = """
import sys, vrange
cache = vrange.VolatileCache(name="kept")
cache["a"] = "b" * (1 << 20)
""" + OBJECTS.removeprefix("\n")


@pytest.fixture(autouse=True)
def _directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VRANGE_RUNTIME_DIR", str(tmp_path / "runtime"))


@contextmanager
def waiting(command: list[str]) -> Iterator[psutil.Process]:
    """The program, once it is ready. In the end it computes the same as ever."""
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            yield psutil.Process(child.pid)
            out, _ = child.communicate("go on\n", timeout=30)
            assert (out, child.returncode) == ("79800000\n", 0)
        finally:
            child.kill()


def vrange(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*VRANGE, *map(str, words)], capture_output=True, text=True, timeout=60, check=False
    )


def told(*words: object) -> dict[str, Any]:
    done = vrange(*words, "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    ("options", "code", "source"),
    [
        ([], OBJECTS, "pymalloc"),
        (["--heap=libc"], OBJECTS, "glibc"),
        (["--malloc"], BLOCKS, "arrays"),
    ],
    ids=["pymalloc", "glibc", "malloc"],
)
def test_why_says_what_a_trim_then_returns(
    tmp_path: Path, options: list[str], code: str, source: str
) -> None:
    file = str(program(tmp_path, code))
    started = [*VRANGE, "run", "--trim-every", "never", *options, file]
    with waiting(started) as process:
        before = process.memory_info().rss
        why = told("why", process.pid)
        assert why["unused"][source] > 50 * MIB
        assert abs(process.memory_info().rss - before) < 4 * MIB  # modules; nothing was returned
        descriptors = process.num_fds()
        trimmed = told("trim", process.pid)
        returned = trimmed["rss_before"] - process.memory_info().rss
        assert process.num_fds() == descriptors
        assert abs(returned - why["trim"]) < 0.05 * returned + MIB, (why, trimmed)
        assert abs(sum(trimmed["returned"].values()) - returned) < 0.05 * returned + MIB
        again = told("why", process.pid)
        assert again["trim"] < 0.05 * returned + MIB
        assert why["rss"] - again["rss"] == pytest.approx(returned, rel=0.05, abs=MIB)


def test_a_process_that_uses_vrange_need_not_be_started_by_it(tmp_path: Path) -> None:
    with waiting([sys.executable, str(program(tmp_path, CACHE))]) as process:
        why = told("why", process.pid)
        assert MIB <= why["cached"] < 2 * MIB
        assert "not enabled" in why["unknown"]["pymalloc"]
        done = vrange("trim", process.pid)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"process {process.pid}: ")
        assert "pymalloc     refused: not enabled" in done.stdout


def test_people_get_a_table(tmp_path: Path) -> None:
    file = str(program(tmp_path, OBJECTS))
    with waiting([*VRANGE, "run", "--trim-every", "never", file]) as process:
        done = vrange("why", process.pid)
        assert done.returncode == 0, done.stderr
        names = [line.split()[0] for line in done.stdout.splitlines()[1:]]
        assert names[:2] == ["live", "cached"]
        assert {"pymalloc", "glibc", "arrays", "stacks", "offered", "trim"} <= set(names)


def test_a_forked_child_answers_for_itself(tmp_path: Path) -> None:
    code = """
import os, sys
pid = os.fork()
if pid:
    print(pid, flush=True)
    os.waitpid(pid, 0)
else:
    kept = [{"number": number} for number in range(200_000)][::1000]
    print("ready", flush=True)
    sys.stdin.readline()
"""
    started = [*VRANGE, "run", "--trim-every", "never", str(program(tmp_path, code))]
    with subprocess.Popen(
        started, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        lines = sorted([child.stdout.readline(), child.stdout.readline()])
        assert lines[1] == "ready\n"
        assert told("trim", int(lines[0]))["returned"]["pymalloc"] > 20 * MIB
        child.communicate("\n", timeout=30)


@pytest.mark.parametrize("what", ["trim", "why"])
def test_a_process_that_is_not_prepared_is_named_with_what_to_do(tmp_path: Path, what: str) -> None:
    code = OBJECTS.replace("sys.stdin.readline()", BUSY)
    with waiting([sys.executable, str(program(tmp_path, code))]) as process:
        if sys.version_info >= (3, 14) and what == "trim":
            assert told("trim", process.pid)["returned"]["glibc"] >= 0
            return
        done = vrange(what, process.pid)
        assert (done.returncode, done.stdout) == (2, "")
        if sys.version_info >= (3, 14):
            assert "only vrange can tell" in done.stderr
            return
        assert f"process {process.pid} is none of this user's that uses vrange" in done.stderr
        assert "`vrange run`" in done.stderr
        assert f"process {process.pid} runs an older one" in done.stderr


def test_a_program_that_is_no_python_is_refused() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        done = vrange("trim", child.pid)
        child.kill()
    assert done.returncode == 2
    assert f"process {child.pid} runs sleep, which is no Python" in done.stderr
    done = vrange("trim", child.pid)
    assert done.returncode == 2
    assert f"there is no process {child.pid}\n" in done.stderr


@pytest.mark.parametrize("words", [("trim",), ("trim", "x"), ("why", "1", "--depth", "most")])
def test_wrong_words_are_refused(words: tuple[str, ...]) -> None:
    assert vrange(*words).returncode == 2


@pytest.mark.parametrize("pid", ["0", "-5", "2147483647", "99999999999999999999"])
def test_a_process_that_is_not_there_is_refused(pid: str) -> None:
    done = vrange("why", pid)
    assert (done.returncode, done.stderr) == (2, f"vrange why: there is no process {pid}\n")


def test_an_unprepared_process_that_waits_hears_nothing_of_a_request_that_was_given_up(
    tmp_path: Path,
) -> None:
    with waiting([sys.executable, str(program(tmp_path, OBJECTS))]) as process:
        done = vrange("trim", process.pid, "--timeout", "500ms")
        assert done.returncode == 2
        reached = "once its main thread runs Python code"
        assert (reached if sys.version_info >= (3, 14) else "runs an older one") in done.stderr


# ---- whoever ends meanwhile ----------------------------------------------------------------------


def requests(tmp_path: Path) -> list[str]:
    return [path.name for path in (tmp_path / "runtime").glob("*.request")]


def test_a_stopped_process_gets_no_request_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(asking, "_TAKEN_SECONDS", 0.3)
    file = str(program(tmp_path, OBJECTS))
    with waiting([*VRANGE, "run", "--trim-every", "never", file]) as process:
        process.suspend()
        with pytest.raises(asking.NotListeningError, match="it is stopped"):
            asking.ask(process.pid, {"what": "trim"}, 5)
        if sys.version_info < (3, 14):  # the interpreter may be asked
            monkeypatch.setattr(sys, "argv", ["vrange", "why", str(process.pid)])
            assert main() == 2
            said = capsys.readouterr().err
            assert "it is stopped" in said
            assert "vrange run`" not in said  # it was
        assert requests(tmp_path) == []
        process.resume()


def test_a_process_that_is_killed_is_not_waited_for(tmp_path: Path) -> None:
    file = str(program(tmp_path, OBJECTS))
    with subprocess.Popen(
        [*VRANGE, "run", "--trim-every", "never", file], stdin=subprocess.PIPE, stdout=-1, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGSTOP)
        timer = threading.Timer(0.5, child.kill)
        timer.start()
        with pytest.raises(VrangeError, match="has ended"):
            asking.ask(child.pid, {"what": "trim"}, 5)
        timer.join()
    assert requests(tmp_path) == []


def test_a_request_whose_maker_was_killed_is_taken_away(tmp_path: Path) -> None:
    file = str(program(tmp_path, OBJECTS))
    with waiting([*VRANGE, "run", "--trim-every", "never", file]) as process:
        (segment,) = (tmp_path / "runtime").glob(f"{process.pid}-*.stats")
        left = segment.with_suffix(".request")
        left.write_text('{"what": "why"}\n')
        wait_until(lambda: not left.exists(), "nobody takes it")
        left.write_text("not finished")
        old = left.stat().st_mtime - 60
        os.utime(left, (old, old))
        wait_until(lambda: not left.exists(), "the beginning of a request stays")
        assert told("why", process.pid)["rss"] > 0  # it does not stand in the way


def test_two_at_once_are_both_answered(tmp_path: Path) -> None:
    file = str(program(tmp_path, OBJECTS))
    with waiting([*VRANGE, "run", "--trim-every", "never", file]) as process:
        found: list[dict[str, Any]] = []
        threads = [
            threading.Thread(target=lambda: found.append(told("why", process.pid)))
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 2


def test_what_is_asked_wrongly_is_the_asker_s_error(tmp_path: Path) -> None:
    file = str(program(tmp_path, OBJECTS))
    with waiting([*VRANGE, "run", "--trim-every", "never", file]) as process:
        with pytest.raises(VrangeError, match=r"answers: ValueError.*trim and why, not 'dance'"):
            asking.ask(process.pid, {"what": "dance"}, 5)
        with pytest.raises(VrangeError, match="light, deep or holes"):
            asking.ask(process.pid, {"what": "trim", "depth": "x"}, 5)


def test_a_request_at_the_end_of_a_program_does_no_harm(tmp_path: Path) -> None:
    """It ends while it is asked again and again."""
    code = """
import sys, vrange
vrange.VolatileCache()["a"] = "b" * 100_000
print("ready", flush=True)
sys.stdin.readline()
"""
    file = str(program(tmp_path, code))
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, file],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            (segment,) = (tmp_path / "runtime").glob(f"{child.pid}-*.stats")
            segment.with_suffix(".request").write_text('{"what": "trim"}\n')
            _, errors = child.communicate("\n", timeout=30)
            assert (child.returncode, errors) == (0, "")
        segment.with_suffix(".request").unlink(missing_ok=True)
