"""Running off a deep stack: RecursionError where it can be, a message and the default action else.

The recursion that CPython does not count is a C function of a shared library, called by ctypes: it
calls itself through nothing of Python's.
"""

from __future__ import annotations

import signal
import subprocess
import textwrap
from pathlib import Path

import pytest
from deep_helpers import output_of, run_apart

UNCOUNTED = """
#include <string.h>
/* `bytes` of stack a level, none of it seen by Python. */
long uncounted(long levels, long bytes) {
    volatile char frame[bytes];
    memset((char *)frame, 1, bytes);
    return levels == 0 ? frame[0] : uncounted(levels - 1, bytes) + frame[bytes - 1];
}
/* The same, and then Python goes on at the bottom. */
extern void *PyObject_CallNoArgs(void *callable);
void *descend(long levels, long bytes, void *then) {
    volatile char frame[bytes];
    memset((char *)frame, 1, bytes);
    void *result = levels == 0 ? PyObject_CallNoArgs(then) : descend(levels - 1, bytes, then);
    return frame[bytes - 1] == 1 ? result : 0;
}
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uncounted")
    (folder / "uncounted.c").write_text(UNCOUNTED)
    built = folder / "uncounted.so"
    command = ["cc", "-O1", "-fno-optimize-sibling-calls", "-shared", "-fPIC", "-o", str(built)]
    subprocess.run([*command, str(folder / "uncounted.c")], check=True)
    return built


def program(library: Path, rest: str) -> str:
    return (
        f"import ctypes, faulthandler, sys, vrange\n"
        f"c = ctypes.PyDLL({str(library)!r})\n"
        "c.uncounted.argtypes = [ctypes.c_long] * 2\n"
        "c.uncounted.restype = ctypes.c_long\n"
    ) + textwrap.dedent(rest)


def test_the_stack_carries_what_is_not_counted_either(library: Path) -> None:
    rest = "print(vrange.deep_call(c.uncounted, 50_000, 1024, stack='64MiB'))"
    assert output_of(program(library, rest)) == "50001"


def test_the_guard_names_the_stack_its_size_and_the_depth(library: Path) -> None:
    done = run_apart(
        program(
            library,
            """
            stack = vrange.DeepStack("16MiB", name="walking")
            def f(n): return c.uncounted(1 << 30, 1024) if n == 0 else f(n - 1)
            stack.call(f, 100)
            """,
        )
    )
    assert done.returncode == -signal.SIGSEGV
    assert 'vrange: the deep stack "walking" of 16 MiB is used up at a depth of 16' in done.stderr
    depth = int(done.stderr.split("depth of ")[1].split(" bytes")[0])
    assert 16 << 20 < depth <= (16 << 20) + 65536
    levels = int(done.stderr.split(" bytes and ")[1].split(" levels")[0])
    assert 100 <= levels < 120


@pytest.mark.parametrize("when", ["before", "after", "after and before", "never"])
def test_faulthandler_prints_its_traceback_too(library: Path, when: str) -> None:
    done = run_apart(
        program(
            library,
            f"""
            if "before" in {when!r}: faulthandler.enable()
            vrange.deep_call(len, [], stack="16MiB")
            if "after" in {when!r}: faulthandler.enable()
            def falling(): c.uncounted(1 << 30, 1024)
            vrange.deep_call(falling, stack="16MiB")
            """,
        )
    )
    assert done.returncode == -signal.SIGSEGV
    assert 'the deep stack "deep" of 16 MiB is used up' in done.stderr
    assert ("in falling" in done.stderr) == (when != "never")
    assert done.stderr.count("Fatal Python error: Segmentation fault") == (when != "never")


def test_faulthandler_disabled_meanwhile(library: Path) -> None:
    done = run_apart(
        program(
            library,
            """
            faulthandler.enable()
            vrange.deep_call(len, [], stack="16MiB")
            faulthandler.disable()
            vrange.deep_call(c.uncounted, 1 << 30, 1024, stack="16MiB")
            """,
        )
    )
    assert done.returncode == -signal.SIGSEGV
    assert 'the deep stack "deep" of 16 MiB is used up' in done.stderr
    assert "Fatal Python error" not in done.stderr


@pytest.mark.parametrize("enabled", [False, True])
def test_faults_that_are_not_ours_end_as_without_us(enabled: bool) -> None:
    rest = f"""
    import ctypes, faulthandler, os, signal, vrange
    if {enabled}: faulthandler.enable()
    vrange.deep_call(len, [])
    def f(): {{}}
    """
    for fault in ("ctypes.string_at(8)", "os.kill(os.getpid(), signal.SIGSEGV)"):
        for call in ("f()", "vrange.deep_call(f)"):
            done = run_apart(textwrap.dedent(rest).format(fault) + call)
            assert done.returncode == -signal.SIGSEGV, (fault, call)
            assert "vrange: the deep stack" not in done.stderr
            assert ("Fatal Python error: Segmentation fault" in done.stderr) == enabled


def test_another_handler_of_the_process_keeps_its_signals() -> None:
    answer = output_of(
        """
        import os, signal, vrange
        seen = []
        signal.signal(signal.SIGSEGV, lambda *_: seen.append(1))
        vrange.deep_call(len, [])
        os.kill(os.getpid(), signal.SIGSEGV)
        signal.signal(signal.SIGSEGV, signal.SIG_IGN)
        vrange.deep_call(len, [])
        os.kill(os.getpid(), signal.SIGSEGV)
        print(seen)
        """
    )
    assert answer == "[1]"


def test_the_handler_is_gone_after_the_interpreter() -> None:
    """An embedding program finds SIGSEGV as it was once Python is finalized."""
    answer = output_of(
        """
        import ctypes, vrange
        vrange.deep_call(len, [])
        c = ctypes.PyDLL(None)
        class Action(ctypes.Structure):
            _fields_ = [("handler", ctypes.c_void_p), ("rest", ctypes.c_char * 256)]
        def handler():
            action = Action()
            assert c.sigaction(11, None, ctypes.byref(action)) == 0
            return action.handler
        assert handler()
        from vrange._core import lib
        ctypes.PyDLL(lib.__file__ if hasattr(lib, "__file__") else vrange._native.__file__)
        child = __import__("os").fork()
        if child == 0:
            # what Py_AtExit runs, in a process that can still look
            import vrange._native
            ctypes.PyDLL(vrange._native.__file__).vrange_sigsegv_disarm()
            assert handler() is None
            __import__("os")._exit(9)
        import os
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        """,
        "-W",
        "ignore",
    )
    assert answer == "9"


def test_what_takes_too_much_stack_for_its_levels_gets_a_recursion_error(library: Path) -> None:
    """Each level takes 6 KiB of C stack, so the counts would never stop it: before 3.14 the warning
    zone does, and CPython's own look at the stack from 3.14 on."""
    answer = output_of(
        program(
            library,
            """
            from vrange._core import deep
            c.descend.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.py_object]
            c.descend.restype = ctypes.py_object
            reached, errors = 0, []
            def level():
                global reached
                reached += 1
                c.descend(1, 3_000, level)
            def guarded():
                try:
                    level()
                except (RecursionError, ctypes.ArgumentError) as error:
                    errors.append(str(error))
                return errors, reached
            own = deep.levels_left()
            for _ in range(3):
                reached = 0
                # twice in one call: what was caught inside leaves the rest as deep
                _, first = vrange.deep_call(lambda: (guarded(), guarded())[0], stack="16MiB")
                assert 2000 < first < 3200, first
                assert 4000 < reached < 6400, reached
                assert len(errors) == 2, errors
                assert all("recursion depth" in error or "overflow" in error for error in errors)
                assert deep.levels_left() == own, (deep.levels_left(), own)
                errors.clear()
            use = [use for use in vrange.stack_info().stacks if use.reserved_bytes == 16 << 20]
            assert len(use) == 1 and use[0].high_water_bytes > 13 << 20, use
            print("sound")
            """,
        )
    )
    assert answer == "sound"


@pytest.mark.parametrize("stack", ["4MiB", "16MiB"])
def test_an_overflow_by_larger_levels_after_another_is_a_recursion_error_again(stack: str) -> None:
    answer = output_of(
        f"""
        import json, vrange
        class Thin:
            def __getattr__(self, name):
                return self.missing
        def thin(): Thin().missing
        def fat(): sorted([1, 2], key=lambda _: fat() or 1)
        lists, dicts = [], {{}}
        for _ in range(200_000): lists, dicts = [lists], {{"k": dicts}}
        def both():
            errors = 0
            for _ in range(5):
                for f in (thin, fat, lambda: json.dumps(lists), lambda: json.dumps(dicts)):
                    try:
                        f()
                    except RecursionError:
                        errors += 1
            return errors
        print([vrange.DeepStack({stack!r}).call(both) for _ in range(2)])
        """
    )
    assert answer == "[20, 20]"
