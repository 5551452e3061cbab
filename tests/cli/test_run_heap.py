"""What `vrange run` switches on comes down, seen from outside."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import psutil
import pytest
from run_support import OBJECTS, VRANGE, plain, program, run
from support import wait_until

MIB = 1 << 20


def rss_after(command: list[str], below: int | None) -> int:
    """Its resident bytes while it waits; waited for until it is below, where that is given."""
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        process = psutil.Process(child.pid)
        if below is not None:
            wait_until(lambda: process.memory_info().rss < below, "it doesn't come down")
        rss = int(process.memory_info().rss)
        out, _ = child.communicate("go on\n", timeout=30)
    assert (out, child.returncode) == ("79800000\n", 0)
    return rss


def test_objects_that_are_gone_come_down_with_libc_furthest(tmp_path: Path) -> None:
    file = str(program(tmp_path, OBJECTS))
    started = [*VRANGE, "run", "--trim-every", "50ms"]
    untouched = rss_after([*VRANGE, "run", "--trim-every", "never", "--no-watch", file], None)
    assert untouched > 100 * MIB
    assert rss_after([*started, file], below=85 * MIB) < 85 * MIB
    assert rss_after([*started, "--heap=libc", file], below=58 * MIB) < 58 * MIB


def test_nobody_has_to_say_how_often(tmp_path: Path) -> None:
    rss_after([*VRANGE, "run", "--heap=libc", str(program(tmp_path, OBJECTS))], below=58 * MIB)


@pytest.mark.parametrize("where", ["main", "thread", "executor", "fork"])
def test_array_data_is_vrange_s_in_every_thread(tmp_path: Path, where: str) -> None:
    code = """
import os, sys, threading
from concurrent.futures import ThreadPoolExecutor
import numpy as np
name = getattr(np, "_core", None) or np.core
def look():
    print(name.multiarray.get_handler_name(np.ones(1 << 20)), flush=True)
where = sys.argv[1]
if where == "main": look()
elif where == "thread":
    t = threading.Thread(target=look); t.start(); t.join()
elif where == "executor":
    with ThreadPoolExecutor(1) as pool: pool.submit(look).result()
elif os.fork() == 0:
    look(); os._exit(0)
else: os.wait()
"""
    file = program(tmp_path, code)
    assert run(file, where).stdout == "vrange\n"
    assert run("--no-numpy", file, where).stdout == "default_allocator\n"


def test_somebody_else_s_handler_takes_over_where_the_program_sets_it(tmp_path: Path) -> None:
    code = """
import numpy as np
from heap.test_numpy_handlers import Foreign, handler_name
from vrange._core import numpy_handler
ours = np.arange(1 << 20)
foreign = Foreign()
numpy_handler.set(foreign.capsule)
theirs = ours + 1
name = np._core.multiarray.get_handler_name
print(name(ours), name(theirs), int(theirs[-1]), handler_name())
del ours, theirs
numpy_handler.set(None)
"""
    tests = Path(__file__).parents[1]
    environment = {"PYTHONPATH": f"{tests}:{tests / 'helpers'}"}
    done = run("--trim-every", "5ms", program(tmp_path, code), environment=environment)
    assert (done.stdout, done.returncode) == ("vrange somebody 1048576 somebody\n", 0), done.stderr


def test_numpy_that_fails_to_be_imported_fails_as_it_would(tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("1/0\n")
    file = program(tmp_path, "import numpy\n")
    without, within = plain(file), run(file)
    assert (within.stderr, within.returncode) == (without.stderr, without.returncode)


def test_numpy_that_is_too_old_is_left_alone_and_told(tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("__version__ = '1.10'\n")
    done = run("--report", program(tmp_path, "import numpy\nprint(numpy.__version__)\n"))
    assert (done.returncode, done.stdout) == (0, "1.10\n")
    assert "numpy        off: " in done.stderr


def test_the_module_is_as_it_would_be(tmp_path: Path) -> None:
    code = "import numpy, sys\nprint(type(numpy.__loader__), type(numpy.__spec__.loader))\n"
    code += "print(numpy.__spec__.loader is numpy.__loader__)\n"
    file = program(tmp_path, code)
    assert run(file).stdout == plain(file).stdout


def test_executors_stacks_are_trimmed_and_all_is_reported(tmp_path: Path) -> None:
    code = """
import time
from concurrent.futures import ThreadPoolExecutor
def deep(n):
    return sorted([1, 2], key=lambda _: deep(n - 1)) if n else 0
with ThreadPoolExecutor(2) as pool:
    list(pool.map(deep, [10] * 4))
    x = [{} for _ in range(200_000)]
    x = x[::1000]
    time.sleep(0.5)
"""
    told = tmp_path / "told.json"
    done = run("--trim-every", "50ms", "--report", "--json", told, program(tmp_path, code))
    assert done.returncode == 0, done.stderr
    figures = json.loads(told.read_text())
    own = figures["processes"][0]
    assert own["executor_threads"] >= 1
    assert own["trims"] == figures["trims"] > 2
    assert figures["returned_bytes"]["pymalloc"] > 5 * MIB
    assert " returned" in done.stderr


def test_the_program_is_right_under_trims_every_few_milliseconds(tmp_path: Path) -> None:
    code = """
import json, random
import numpy as np
generator = random.Random(1)
kept = {}
for turn in range(60_000):
    kept[generator.randrange(5_000)] = [turn, {"a": str(turn) * 3}, (turn,) * (turn % 30)]
    if turn % 100 == 0:
        a = np.full(200_000, turn); b = a * 2 + a
        assert (b == turn * 3).all()
for turn, one, _ in kept.values():
    assert json.loads(json.dumps(one)) == {"a": str(turn) * 3}
print(len(kept))
"""
    file = program(tmp_path, code)
    for depth in ("deep", "holes"):
        done = run("--trim-every", "3ms", "--trim", depth, file)
        assert (done.stdout, done.stderr) == (plain(file).stdout, ""), done.returncode


def test_a_program_without_an_event_loop_does_not_pay_for_asyncio(tmp_path: Path) -> None:
    code = """
import sys
print([name for name in ("asyncio", "ssl", "logging") if name in sys.modules])
"""
    done = run(program(tmp_path, code))
    assert (done.stdout, done.stderr) == ("[]\n", "")
