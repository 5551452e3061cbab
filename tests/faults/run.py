"""Let each operation of operations.py meet each failure, and judge what it does.

    run.py calls|allocations [--trials N] [--seed S] [OPERATION…]

`calls`: each system call and C allocation that vrange makes during the operation fails, one at a
time: only that one, or also every later call of the same function. `allocations`: each allocation
of the interpreter fails (CPython's _testcapi). Every trial is a process of its own.

An operation may succeed or be refused: VrangeError, OSError, MemoryError, KeyError. It may not
return something else, crash, hang, or leave anything behind that does not work afterwards.
"""

from __future__ import annotations

import argparse
import collections
import ctypes
import faulthandler
import gc
import os
import random
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
HANGS_SECONDS = 30
MOST = 100_000
# What vrange writes before it ends a process that could otherwise compute with lost content.
MEANT_TO_END = (
    b"was touched and can't be put back",
    b"can't be set right after fork",
    b"volatile arrays can't be read any more",
)
BY_TOUCH = (-signal.SIGBUS, -signal.SIGSEGV)
# A sandbox that began to refuse what the refault rung needs can't be told from one that will end.
FELL = "refuses what the refault rung needs"


def library() -> Path:
    """Compile inject.c."""
    made = Path(tempfile.gettempdir()) / f"vrange-inject-{os.getuid()}-{os.getpid()}.so"
    source = HERE / "inject.c"
    options = ["-O1", "-fPIC", "-shared", "-Wall", "-Werror"]
    subprocess.run(["cc", *options, str(source), "-o", str(made), "-ldl"], check=True)
    return made


ALL = -1  # a way: everything fails from there on


class Calls:
    """Fails system calls and C allocations."""

    ways = 6  # once or from then on, with one of three errors

    def __init__(self) -> None:
        self._native = ctypes.CDLL(os.environ["LD_PRELOAD"].split()[0])
        self._native.inject_failed.restype = ctypes.c_char_p
        assert self._native.inject_find() >= 2, "vrange's libraries were not found"

    def arm(self, nth: int, way: int) -> None:
        self._native.inject_arm(ctypes.c_long(nth), ctypes.c_bool(way % 2), way // 2)

    def disarm(self) -> int:
        return int(self._native.inject_disarm())

    def failed(self) -> str:
        error = ctypes.c_int()
        name = self._native.inject_failed(ctypes.byref(error))
        return f"{name.decode()}: {os.strerror(error.value)}" if name else ""


class Allocations:
    """Fails the interpreter's allocations, one at a time: CPython itself does not survive more."""

    ways = 1

    def __init__(self) -> None:
        import _testcapi  # type: ignore[import-not-found,unused-ignore]

        self._hooks = _testcapi
        self._nth = 0

    def arm(self, nth: int, way: int) -> None:
        """Let one allocation fail, or all from then on."""
        self._nth = nth
        self._hooks.set_nomemory(nth - 1, 0 if way == ALL else nth)

    def disarm(self) -> None:
        self._hooks.remove_mem_hooks()

    def failed(self) -> str:
        return f"allocation {self._nth}"


def trial(name: str, injector: Any, nth: int, way: int) -> str:
    """Run one operation in this process, and return how it ended."""
    import operations  # type: ignore[import-not-found,unused-ignore]

    import vrange

    world = None if name in operations.FRESH else operations.World(name)

    refusals = (vrange.VrangeError, OSError, MemoryError, KeyError, RuntimeError)
    operation = operations.OPERATIONS[name]
    check: Callable[[], None] | None = None
    ended = "done"
    gc.disable()
    injector.arm(nth, way)
    try:
        check = operation(world)
    except refusals as error:
        injector.disarm()
        ended = f"refused with {type(error).__name__}"
    except BaseException as error:
        injector.disarm()
        return f"WRONG: {type(error).__name__}: {error} ({injector.failed()})"
    injector.disarm()
    gc.enable()
    what = injector.failed()
    try:
        if check:
            check()
        check = None
        gc.collect()
        (world or operations.World()).works()
    except BaseException as error:
        if FELL in str(error) and way % 2 == 1:
            return f"{ended}, on a lower rung ({what})"
        return f"WRONG afterwards: {type(error).__name__}: {error} ({what})"
    return f"{ended} ({what})" if what else "nothing failed"


def count(name: str, injector: Calls) -> str:
    """Run an operation in which nothing fails, and return how many calls it made."""
    import operations  # type: ignore[import-not-found,unused-ignore]

    world = None if name in operations.FRESH else operations.World(name)
    injector.arm(MOST, 0)
    operations.OPERATIONS[name](world)
    return str(injector.disarm())


def in_child(work: Callable[[], str]) -> tuple[int, str, bytes]:
    """Run `work` in a forked child: its status, what it returned, and what it wrote."""
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as told:
        pid = os.fork()
        if pid == 0:
            faulthandler.dump_traceback_later(HANGS_SECONDS, exit=True, file=told)
            os.dup2(told.fileno(), 2)
            faulthandler.enable()
            faulthandler.dump_traceback_later(HANGS_SECONDS, exit=True)
            try:
                os.write(said.fileno(), work().encode())
            except BaseException as error:
                os.write(said.fileno(), f"WRONG: {error!r}".encode())
            finally:
                os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        said.seek(0)
        told.seek(0)
        return status, said.read().decode(), told.read()


def size_of(name: str, injector: Any) -> int:
    """Return how many places an operation has at which something can fail."""

    def ends_before(nth: int) -> bool:
        return in_child(partial(trial, name, injector, nth, ALL))[1].startswith("done")

    if isinstance(injector, Calls):
        return int(in_child(partial(count, name, injector))[1])
    low, high = 1, 2
    while high < MOST and not ends_before(high):
        low, high = high, 2 * high
    while high - low > max(1, high // 16):
        middle = (low + high) // 2
        low, high = (low, middle) if ends_before(middle) else (middle, high)
    return high


def chosen(name: str, injector: Any, options: argparse.Namespace) -> list[tuple[int, int]]:
    """Return the places to try, each with the way in which it fails."""
    if options.place:
        return [(options.place, options.way or 0)]
    everything = [
        (nth, way) for nth in range(1, size_of(name, injector) + 1) for way in range(injector.ways)
    ]
    if options.trials is None or options.trials >= len(everything):
        return everything
    return random.Random(f"{name} {options.seed}").sample(everything, options.trials)


def judge(name: str, injector: Any, options: Any) -> list[str]:
    """Try every place in an operation; the failures."""
    seen: collections.Counter[str] = collections.Counter()
    wrong = []
    for nth, way in chosen(name, injector, options):
        status, ended, told = in_child(partial(trial, name, injector, nth, way))
        if status and any(message in told for message in MEANT_TO_END):
            ended = "ended with a message"
        elif name == "array touch" and way % 2 == 1 and status in BY_TOUCH:
            # What knows the userfaultfd is refused for good: a touch can't be refused in words.
            ended = f"ended by {signal.Signals(-status).name}"
        elif status:
            ended = f"WRONG: ended with {status}: {told.decode(errors='replace')[-1500:]}"
        seen[ended.split(" (")[0][:60]] += 1
        if ended.startswith("WRONG"):
            wrong.append(f"{name}, place {nth}, way {way}: {ended}")
            print(wrong[-1], flush=True)
    print(f"{name}: {sum(seen.values())} trials: {dict(seen)}", flush=True)
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("calls", "allocations"))
    parser.add_argument("--trials", type=int, help="of each operation; default: all")
    parser.add_argument("--seed", type=int, default=0, help="which of them")
    parser.add_argument("--place", type=int, help="try this one alone")
    parser.add_argument("--way", type=int, default=0, help="in which --place fails")
    parser.add_argument("operations", nargs="*")
    options = parser.parse_intermixed_args()
    if options.what == "calls" and "inject" not in os.environ.get("LD_PRELOAD", ""):
        made = library()
        try:
            preload = " ".join([str(made), *os.environ.get("LD_PRELOAD", "").split()])
            environment = {**os.environ, "LD_PRELOAD": preload}
            command = [sys.executable, __file__, *sys.argv[1:]]
            return subprocess.run(command, env=environment, check=False).returncode
        finally:
            made.unlink()
    warnings.simplefilter("ignore")
    sys.path.insert(0, str(HERE))
    import operations  # type: ignore[import-not-found,unused-ignore]

    with tempfile.TemporaryDirectory(prefix="vrange-faults-", ignore_cleanup_errors=True) as place:
        tempfile.tempdir = place
        wrong = judge_all(options, operations)
    print(f"{len(wrong)} wrong")
    return bool(wrong)


def judge_all(options: argparse.Namespace, operations: Any) -> list[str]:
    """Try the operations that were asked for; the failures."""
    injector: Any = Calls() if options.what == "calls" else Allocations()
    default = operations.ALLOCATING if options.what == "allocations" else operations.OPERATIONS
    names = options.operations or list(default)
    wrong = []
    for name in names:
        wrong += judge(name, injector, options)
    return wrong


if __name__ == "__main__":
    sys.exit(main())
