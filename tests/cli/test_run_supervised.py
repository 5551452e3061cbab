"""The parent that reports: signals, job control and the end pass through it."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from run_support import VRANGE, plain, program, run
from support import wait_until

from vrange.cli.memory_cgroup import MemoryCgroup

MIB = 1 << 20
LISTENS = """
import os, signal, sys, time
def told(number, frame):
    print(signal.Signals(number).name, flush=True)
    if number == signal.SIGTERM: sys.exit(3)
for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(one, told)
print("ready", os.getpid(), os.getppid(), flush=True)
while True: time.sleep(1)
"""


def supervised(file: Path, *options: str, **more: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*VRANGE, "run", "--report", *options, str(file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **more,
    )


def test_signals_reach_the_program_once(tmp_path: Path) -> None:
    with supervised(program(tmp_path, LISTENS)) as parent:
        assert parent.stdout is not None
        ready, child, its_parent = parent.stdout.readline().split()
        assert (ready, int(its_parent)) == ("ready", parent.pid)
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            parent.send_signal(number)
            assert parent.stdout.readline() == f"{number.name}\n"
        parent.send_signal(signal.SIGTERM)
        out, err = parent.communicate(timeout=30)
    assert out == "SIGTERM\n"
    assert parent.returncode == 3
    assert "ended with exit status 3" in err
    assert not psutil.pid_exists(int(child))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGINT])
def test_the_signal_that_ends_it_ends_the_parent_and_is_told(
    tmp_path: Path, number: signal.Signals
) -> None:
    code = f"import os, signal\nsignal.signal({int(number)}, signal.SIG_DFL) if {int(number)} != 9 "
    code += f"else 0\nos.kill(os.getpid(), {int(number)})\n"
    file = program(tmp_path, code)
    done = run("--report", file)
    assert done.returncode == plain(file).returncode == -number
    assert f"killed by {number.name}" in done.stderr
    assert "did not reach its exit" in done.stderr


def test_ctrl_c_and_ctrl_z_at_a_terminal(tmp_path: Path) -> None:
    """As a shell with job control: a terminal, and the program's group in its foreground."""
    # Not by print, which is made of several writes: another handler may have its say in between.
    code = """
import os, signal, time
count = continued = 0
def told(number, frame):
    global count
    count += 1
    os.write(1, b"interrupted %d\\n" % count)
def going_on(number, frame):
    global continued
    continued += 1
    os.write(1, b"going on\\n")
signal.signal(signal.SIGINT, told)
signal.signal(signal.SIGCONT, going_on)
os.write(1, b"ready\\n")
end = time.monotonic() + 30
while time.monotonic() < end and not os.path.exists("end"):
    time.sleep(0.02)
os.write(1, b"over: %d interrupts, %d times continued\\n" % (count, continued))
"""
    file = program(tmp_path, code)
    shell = """
import os, signal, sys
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
pid = os.fork()
if pid == 0:
    os.setpgid(0, 0)
    os.tcsetpgrp(0, os.getpid())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    os.execv(sys.argv[1], sys.argv[1:])
while True:
    _, status = os.waitpid(pid, os.WUNTRACED)
    os.tcsetpgrp(0, os.getpgrp())
    if not os.WIFSTOPPED(status):
        print("shell: ended", os.waitstatus_to_exitcode(status), flush=True)
        break
    children = open(f"/proc/{pid}/task/{pid}/children").read().split()
    states = [open(f"/proc/{child}/stat").read().rsplit(") ")[-1][0] for child in children]
    print("shell: stopped", *states, flush=True)
    os.tcsetpgrp(0, pid)
    os.killpg(pid, signal.SIGCONT)
"""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        command = [*VRANGE, "run", "--json", "told.json", str(file)]
        os.execv(VRANGE[0], [VRANGE[0], "-c", shell, *command])
    seen = b""

    def read_until(word: bytes) -> None:
        nonlocal seen
        while word not in seen:
            assert select.select([terminal], [], [], 20)[0], seen
            seen += os.read(terminal, 4096)

    read_until(b"ready")
    os.write(terminal, b"\x03")
    read_until(b"interrupted 1")
    os.write(terminal, b"\x1a")
    read_until(b"shell: stopped T")
    read_until(b"going on")
    os.write(terminal, b"\x03")
    read_until(b"interrupted 2")
    (tmp_path / "end").touch()
    read_until(b"over: 2 interrupts, 1 times continued")
    read_until(b"shell: ended 0")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.close(terminal)
    assert json.loads((tmp_path / "told.json").read_text())["exit_status"] == 0


@pytest.mark.parametrize("program_first", [False, True])
def test_the_program_hears_once_that_it_may_go_on(tmp_path: Path, program_first: bool) -> None:
    """By `kill -CONT` of the parent, or as by `fg`, which tells the whole group."""
    code = """
import os, signal, time
signal.signal(signal.SIGCONT, lambda *_: os.write(1, b"going on\\n"))
os.write(1, b"%d\\n" % os.getpid())
os.kill(os.getpid(), signal.SIGSTOP)
time.sleep(0.5)
"""
    with supervised(program(tmp_path, code)) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        own = psutil.Process(parent.pid)
        wait_until(lambda: own.status() == psutil.STATUS_STOPPED, "the parent does not stop too")
        assert child.status() == psutil.STATUS_STOPPED
        heard = ""
        if program_first:
            child.send_signal(signal.SIGCONT)
            heard = parent.stdout.readline()
        parent.send_signal(signal.SIGCONT)
        out, err = parent.communicate(timeout=30)
    assert (heard + out, parent.returncode) == ("going on\n", 0), err


def test_report_json_and_picture_agree_with_what_the_program_did(tmp_path: Path) -> None:
    file = program(
        tmp_path, "import time\nx = bytearray(200 << 20)\ntime.sleep(.4)\ndel x\ntime.sleep(.4)\n"
    )
    told, picture = tmp_path / "told.json", tmp_path / "memory.svg"
    done = run("--report", "--json", told, "--plot", picture, file, "an argument")
    assert done.returncode == 0
    assert done.stdout == ""
    assert "memory       peak 2" in done.stderr
    figures = json.loads(told.read_text())
    rss = figures["rss_bytes"]
    assert 200 * MIB < rss["peak"] < 280 * MIB
    assert rss["final"] - figures["final_lazyfree_bytes"] < 80 * MIB
    assert rss["average"] <= rss["peak"]
    assert figures["command"][-1] == "an argument"
    assert figures["processes"][0]["ended"]
    assert max(one[1] for one in figures["samples"]) > 200 * MIB
    assert figures["sampling"]["cpu_seconds"] < figures["seconds"] * 0.02
    assert "<svg" in picture.read_text()


def test_the_parent_holds_hardly_any_memory(tmp_path: Path) -> None:
    """All that it holds is charged to the program's cgroup."""
    code = """
import os
parent = f"/proc/{os.getppid()}/"
rollup = open(parent + "smaps_rollup").read()
print(rollup.partition("Anonymous:")[2].split()[0], "libvrange" in open(parent + "maps").read())
"""
    done = run("--report", program(tmp_path, code))
    held, has_vrange = done.stdout.split()
    assert has_vrange == "False"
    assert int(held) << 10 < 8 * MIB  # an interpreter without any module has 3.5


def test_an_environment_in_any_encoding_and_descriptors_reach_the_program(tmp_path: Path) -> None:
    code = """
import os, sys

def link(descriptor):
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:  # the one that lists
        return ""

told = int(sys.argv.pop())
names = [link(descriptor) for descriptor in os.listdir("/proc/self/fd")]
pipes = [name for name in names if name.startswith(("pipe:", "socket:"))]
print(os.environb[b"NAME"], sys.argv[1:], os.read(told, 9), len(pipes))
"""
    file = program(tmp_path, code)
    for options in ([], ["--report"]):
        read, write = os.pipe()
        os.write(write, b"reached")
        done = run(
            *options,
            file,
            "b\udcfe",
            read,
            environment={"NAME": "a\udcff"},
            errors="surrogateescape",
            pass_fds=[read],
        )
        os.close(read)
        os.close(write)
        # Standard output, standard error, and the one that was passed on
        assert done.stdout == "b'a\\xff' ['b\\udcfe'] b'reached' 3\n"


def test_children_are_measured_with_it(tmp_path: Path) -> None:
    code = """
import os, time
if os.fork() == 0:
    x = bytearray(150 << 20)
    time.sleep(1.6)
    os._exit(0)
os.wait()
"""
    told = tmp_path / "told.json"
    assert run("--json", told, program(tmp_path, code)).returncode == 0
    figures = json.loads(told.read_text())
    assert figures["rss_bytes"]["peak"] > 150 * MIB
    assert max(one[3] for one in figures["samples"]) == 2


PARENT = """
import os, subprocess, sys, time
child = "import time; time.sleep(1)" if len(sys.argv) == 1 else sys.argv[1]
subprocess.run([sys.executable, "-c", child], check=True)
if os.fork() == 0:
    time.sleep(1)
    os._exit(0)
os.wait()
subprocess.run(["sleep", "1"], check=True)
"""


def test_children_that_ran_without_vrange_are_told(tmp_path: Path) -> None:
    told = tmp_path / "told.json"
    done = run("--report", "--json", told, program(tmp_path, PARENT))
    assert done.returncode == 0, done.stderr
    assert "children     started 1 Python without vrange; --children" in done.stderr
    # The forked child has vrange, and sleep is no Python.
    assert json.loads(told.read_text())["pythons_without_vrange"] == 1


def test_a_part_that_only_a_child_uses_is_told_of_the_child(tmp_path: Path) -> None:
    child = "import numpy, time; time.sleep(1)"
    done = run("--children", "--report", program(tmp_path, PARENT), child)
    assert done.returncode == 0, done.stderr
    assert re.search(r"numpy +on, NumPy \S+ \(in 1 of 3 processes\)", done.stderr), done.stderr
    assert "without vrange" not in done.stderr


def test_the_picture_has_what_the_kernel_may_take(tmp_path: Path) -> None:
    code = """
import mmap, time
# The kernel leaves out what a processor still has in a batch on its way to the lists, some pages.
held = mmap.mmap(-1, 101 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for at in range(0, len(held), 4096):
    held[at] = 1
held.madvise(mmap.MADV_FREE)
time.sleep(4)  # the larger a process is, the less often its LazyFree is read
"""
    told, picture = tmp_path / "told.json", tmp_path / "memory.svg"
    done = run("--no-numpy", "--json", told, "--plot", picture, program(tmp_path, code))
    assert done.returncode == 0, done.stderr
    known = [one[4] for one in json.loads(told.read_text())["samples"] if one[4] is not None]
    assert max(known) >= 100 * MIB
    assert "LazyFree" in picture.read_text()


def test_a_program_that_leaves_a_thread_or_a_child_behind_is_not_waited_for(tmp_path: Path) -> None:
    code = "import subprocess\nsubprocess.Popen(['sleep', '20'])\n"
    began = time.monotonic()
    done = run("--report", program(tmp_path, code), capture_output=False, stderr=subprocess.DEVNULL)
    assert done.returncode == 0
    assert time.monotonic() - began < 15  # the bound is for a broken build


@pytest.mark.memory_cgroup
def test_a_program_that_the_kernel_kills_for_want_of_memory(tmp_path: Path) -> None:
    file = program(tmp_path, "x = []\nwhile True: x.append(bytearray(1 << 20))\n")
    with MemoryCgroup(128 * MIB) as cgroup:
        enter = f'echo $$ > {cgroup.path}/cgroup.procs && exec "$@"'
        command = ["sh", "-c", enter, "sh", *VRANGE, "run", "--report", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    assert "killed by SIGKILL, because its cgroup was out of memory" in done.stderr
    assert "of 128.0 MiB" in done.stderr


def test_nothing_inside_is_said(tmp_path: Path) -> None:
    done = run("--report", "true")
    assert done.returncode == 0
    assert "no interpreter with vrange was started" in done.stderr


def test_metrics_are_served_while_it_runs(tmp_path: Path) -> None:
    code = """
import sys, urllib.request
url = sys.argv[1]
print(b"vrange_info" in urllib.request.urlopen(url, timeout=20).read())
"""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("--metrics", port, "-c", "print('ran')")
        assert done.stdout == "ran\n"
        assert "the port is already in use" in done.stderr
    url = f"http://127.0.0.1:{port}/metrics"
    assert run("--metrics", port, program(tmp_path, code), url).stdout == "True\n"


@pytest.mark.parametrize("option", ["--report", "--compare", "--json=/dev/full"])
def test_a_report_that_fails_changes_nothing_about_the_end(tmp_path: Path, option: str) -> None:
    """Its reader has gone, or its disk is full."""
    file = program(tmp_path, "import sys; sys.exit(3)")
    with open("/dev/full", "w") as full:
        assert run(option, file, capture_output=False, stderr=full).returncode == 3
    reads, writes = os.pipe()
    os.close(reads)
    try:
        assert run(option, file, capture_output=False, stderr=writes).returncode == 3
    finally:
        os.close(writes)


def test_a_file_that_fails_is_told_and_the_report_comes(tmp_path: Path) -> None:
    file = program(tmp_path, "import os, sys; os.mkdir(sys.argv[1]); sys.exit(3)")
    told = tmp_path / "a.json"
    done = run("--report", f"--json={told}", file, told)
    assert done.returncode == 3
    assert f"vrange run: {told}: " in done.stderr
    assert "ended with exit status 3" in done.stderr


def test_a_report_where_no_directory_for_temporary_files_can_be_written_to(tmp_path: Path) -> None:
    """A container with a read-only file system, but for /dev/shm."""
    code = """
import os, sys, tempfile
make = tempfile.mkdtemp
def refuse(suffix=None, prefix=None, dir=None):
    if dir is None or sys.argv[1] == "all":
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")
    return make(suffix, prefix, dir)
tempfile.mkdtemp = refuse
from vrange.cli import main
sys.exit(main(["run", "--report", "-c", "print(5); raise SystemExit(3)"]))
"""
    file = program(tmp_path, code)
    done = plain(file, "some")
    assert (done.returncode, done.stdout) == (3, "5\n")
    assert "ended with exit status 3" in done.stderr
    done = plain(file, "all")
    assert (done.returncode, done.stdout) == (2, "")
    assert "needs a directory that can be written to" in done.stderr
