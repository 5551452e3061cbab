"""The interpreter's own allocator: what stays, whether content is right, and where it refuses."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from heap.outside import Child
from heap.test_trim import CHECK, MANY
from support import FORK_WITH_THREADS, python, succeeds

import vrange
from vrange.heap import interpreter

if interpreter.refusal():
    pytest.skip(reason=f"not this interpreter: {interpreter.refusal()}", allow_module_level=True)

# scripts/test-all-under-trims asks for more.
TESTS = os.environ.get("VRANGE_UNDER_TRIMS", "test_list test_json").split()
ENABLE = "import vrange.heap; vrange.heap.interpreter.enable()\n"


def test_it_comes_down_and_content_is_right() -> None:
    code = (
        ENABLE
        + MANY
        + "stop(vrange.heap.trim(deep=True).by_source['pymalloc'])\n"
        + "stop(vrange.heap.trim(deep='holes').by_source['pymalloc'])"
        + CHECK
        + 'again = [{"id": i, "s": f"item{i}"} for i in range(400_000)]\n'
        + "assert all(one['s'] == f\"item{one['id']}\" for one in again)"
        + CHECK
    )
    with Child(code) as child:
        child.next_stop()
        full = child.anonymous_mib()
        child.next_stop()
        dropped = child.anonymous_mib()
        told = int(child.next_stop()) / 2**20
        tails = child.anonymous_mib()
        told_holes = int(child.next_stop()) / 2**20
        holes = child.anonymous_mib()
        child.finish()
    assert dropped > 0.9 * full, "pymalloc gave it back by itself"
    assert tails < 0.45 * full
    assert told == pytest.approx(dropped - tails, abs=2)
    assert holes < tails - 1
    assert told_holes == pytest.approx(tails - holes, abs=2)


def test_it_is_opted_into() -> None:
    succeeds(
        """
        import vrange.heap

        trimmed = vrange.heap.trim(deep=True)
        assert "pymalloc" not in trimmed.by_source
        assert "enable()" in trimmed.refused["pymalloc"]
        assert not vrange.heap.interpreter.is_enabled()
        vrange.heap.interpreter.enable()
        vrange.heap.interpreter.enable()
        assert vrange.heap.interpreter.is_enabled()
        assert "pymalloc" in vrange.heap.trim(deep=True).by_source
        assert "pymalloc" not in vrange.heap.trim().by_source
        """
    )


@pytest.mark.parametrize("name", ["malloc", "debug", "pymalloc_debug"])
def test_other_allocators_are_refused(name: str) -> None:
    code = """
    import vrange.heap

    try:
        vrange.heap.interpreter.enable()
    except vrange.VrangeError as error:
        print(error)
    print(vrange.heap.trim(deep=True).refused["pymalloc"])
    """
    told = succeeds(code, environment={"PYTHONMALLOC": name})
    assert told.count("not pymalloc (PYTHONMALLOC, or -X dev)") == 2
    assert "can't be trimmed" in told


def test_a_version_that_is_not_known_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreter, "VERSIONS", ((3, 8), (3, 9)))
    assert "its layout is known of CPython 3.8 to 3.9" in str(interpreter.refusal())


@pytest.mark.parametrize(
    ("variable", "value", "why"),
    [
        ("Py_GIL_DISABLED", 1, "free-threaded"),
        ("CONFIG_ARGS", "'--with-pymalloc-hugepages'", "arenas of 2 MiB"),
    ],
)
def test_builds_that_lay_memory_out_otherwise_are_refused(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: object, why: str
) -> None:
    known = sysconfig.get_config_var
    monkeypatch.setattr(
        "sysconfig.get_config_var", lambda name: value if name == variable else known(name)
    )
    with pytest.raises(vrange.VrangeError, match=f"can't be trimmed: .*{why}"):
        interpreter.enable()


def test_stamped_objects_while_another_thread_trims() -> None:
    """Objects of all sizes come and go, and each is what it was when it is looked at."""
    succeeds(
        """
        import random, sys, threading, time
        from vrange._core import pymalloc
        from vrange.heap import interpreter

        interpreter.enable()
        sys.setswitchinterval(0.0005)
        going_on, trims, odd, given_back = True, 0, 0, 0

        def trim():
            global trims, odd, given_back
            while going_on:
                given_back += pymalloc.sweep(trims % 3)
                trims += 1
                odd += pymalloc.left()[1]
                time.sleep(0.001)

        def is_right(key, value):
            return value == bytes([key % 256]) * len(value)

        trimmer = threading.Thread(target=trim)
        trimmer.start()
        chance, live, made = random.Random(7), {}, 0
        try:
            deadline = time.monotonic() + 4
            while time.monotonic() < deadline:
                for _ in range(2000):
                    made += 1
                    live[made] = bytes([made % 256]) * chance.randrange(1, 480)
                if chance.random() < 0.3:
                    share = chance.choice((0.5, 0.9, 0.99))
                    for key in chance.sample(list(live), int(len(live) * share)):
                        assert is_right(key, live.pop(key))
                for key in chance.sample(list(live), min(500, len(live))):
                    assert is_right(key, live[key])
        finally:
            going_on = False
            trimmer.join()
        assert all(is_right(key, value) for key, value in live.items())
        assert trims > 20 and given_back > 1 << 20 and odd == 0, (trims, given_back, odd)
        """
    )


def test_forked_children_go_on_and_trim() -> None:
    succeeds(
        """
        import os, threading, vrange.heap
        from vrange.heap import interpreter

        interpreter.enable()
        over = threading.Event()

        def come_and_go():
            while not over.is_set():
                kept = [[i] for i in range(100_000)][::500]
                assert kept[7] == [3500]

        threads = [threading.Thread(target=come_and_go) for _ in range(2)]
        for thread in threads:
            thread.start()
        everything = [{"n": i} for i in range(200_000)]
        for _ in range(10):
            child = os.fork()
            if child == 0:
                kept = everything[::1000]
                everything.clear()
                given_back, _ = interpreter.trim(holes=True)
                more = [{"n": i} for i in range(50_000)]
                right = all(one["n"] == 1000 * at for at, one in enumerate(kept))
                os._exit(0 if right and given_back and more[-1] == {"n": 49_999} else 1)
            assert os.waitpid(child, 0)[1] == 0
        over.set()
        for thread in threads:
            thread.join()
        """,
        environment=FORK_WITH_THREADS,
    )


def test_other_interpreters_keep_their_arenas(tmp_path: Path) -> None:
    """From 3.12 on they have a GIL of their own, and allocate while ours trims."""
    succeeds(
        """
        import sys, threading
        from vrange.heap import interpreter

        over = sys.argv[1]
        if sys.version_info >= (3, 13):
            import _interpreters as interpreters
            make = lambda: interpreters.create("isolated")
        else:
            import _xxsubinterpreters as interpreters
            make = interpreters.create
        interpreter.enable()
        CODE = f'''
        import os
        turns = 0
        while turns < 15 or not os.path.exists({over!r}):
            turns += 1
            everything = [dict(n=i) for i in range(30_000)]
            kept = everything[::100]
            del everything
            assert all(one["n"] == 100 * at for at, one in enumerate(kept))
        '''
        import textwrap
        others = [make() for _ in range(2)]
        failed = []

        def run(one):
            try:
                if interpreters.run_string(one, textwrap.dedent(CODE)) is not None:
                    failed.append(one)
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=run, args=(one,)) for one in others]
        for thread in threads:
            thread.start()
        given_back = 0
        for _ in range(30):  # while they work: they go on until they are told
            mine = [{"n": i} for i in range(20_000)][::200]
            given_back += interpreter.trim(holes=True)[0]
            assert all(one["n"] == 200 * at for at, one in enumerate(mine))
        open(over, "w").close()
        for thread in threads:
            thread.join()
        assert not failed, failed
        assert given_back > 0
        for one in others:
            interpreters.destroy(one)
        """,
        tmp_path / "over",
    )


def test_another_provider_of_arenas_is_noticed() -> None:
    """What it frees would stay noted, and be looked at where nothing is mapped."""
    succeeds(
        """
        import ctypes, gc, vrange.heap
        from vrange.heap import interpreter

        def provider():
            now = (ctypes.c_void_p * 3)()
            ctypes.pythonapi.PyObject_GetArenaAllocator(now)
            return now

        old = provider()
        interpreter.enable()
        ours = provider()
        assert list(old) != list(ours)
        many = [{"n": i} for i in range(300_000)]
        ctypes.pythonapi.PyObject_SetArenaAllocator(old)
        del many
        gc.collect()
        refused = vrange.heap.trim(deep=True).refused
        assert "another arena provider" in refused["pymalloc"], refused
        """
    )


def test_a_frame_stack_of_an_arenas_size_is_no_arena() -> None:
    """A frame with so many variables needs a chunk of 1 MiB from the provider of arenas."""
    succeeds(
        """
        import vrange.heap
        from vrange.heap import interpreter

        interpreter.enable()
        many = 70_000
        lines = ["def work(trim):"]
        lines += [f" v{i} = {i}" for i in range(many)]
        lines += [" trim()"]
        lines += [f" assert v{i} == {i}" for i in range(0, many, 7)]
        lines += [" return v0 + v69999"]
        space = {}
        exec("\\n".join(lines), space)
        seen = []

        def trim():
            seen.append(interpreter.status().arenas)
            vrange.heap.trim(deep="holes")

        before = interpreter.status().arenas
        for _ in range(3):
            assert space["work"](trim) == 69_999
        assert seen[0] > before, (seen, before)  # the chunk is among what is noted
        """
    )


def test_disabled_it_is_left_alone_and_enabled_it_has_all_again() -> None:
    code = (
        ENABLE
        + MANY
        + """
from vrange.heap import interpreter
interpreter.disable()
refused = vrange.heap.trim(deep=True).refused["pymalloc"]
assert "enable()" in refused and not interpreter.status().enabled
stop()
interpreter.enable()
stop(vrange.heap.trim(deep=True).by_source["pymalloc"])
"""
        + CHECK
    )
    with Child(code) as child:
        child.next_stop()
        child.next_stop()
        dropped = child.anonymous_mib()
        child.next_stop()
        assert child.anonymous_mib() > 0.95 * dropped
        child.next_stop()
        assert child.anonymous_mib() < 0.45 * dropped
        child.finish()


def test_arenas_from_before_stay_as_they_are() -> None:
    code = (
        MANY + ENABLE + "stop(vrange.heap.trim(deep='holes').by_source.get('pymalloc', 0))" + CHECK
    )
    with Child(code) as child:
        child.next_stop()
        child.next_stop()
        dropped = child.anonymous_mib()
        assert int(child.next_stop()) < 5 << 20
        assert child.anonymous_mib() > 0.9 * dropped
        child.finish()


def test_the_variable_has_it_on_from_the_beginning() -> None:
    code = "import vrange; from vrange.heap import interpreter; print(interpreter.is_enabled())"
    assert succeeds(code, environment={interpreter.VARIABLE: "1"}) == "True\n"
    assert succeeds(code, environment={interpreter.VARIABLE: "0"}) == "False\n"
    done = python(code, environment={interpreter.VARIABLE: "1", "PYTHONMALLOC": "malloc"})
    assert (done.returncode, done.stdout) == (0, "False\n")
    assert "not pymalloc" in done.stderr


@pytest.mark.parametrize("debug", [False, True])
def test_what_stands_before_it_hides_no_debug_hooks(debug: bool) -> None:
    """With tracemalloc on, the interpreter can't tell which allocator is behind it."""
    code = """
    import tracemalloc, vrange.heap
    tracemalloc.start()
    try:
        vrange.heap.interpreter.enable()
    except vrange.VrangeError as error:
        print(error)
    kept = [{"n": i} for i in range(100_000)][::1000]
    print(vrange.heap.trim(deep="holes").by_source.get("pymalloc", 0))
    assert all(one["n"] == 1000 * at for at, one in enumerate(kept))
    """
    told = succeeds(code, environment={"PYTHONDEVMODE": "1" if debug else ""}).splitlines()
    if debug:
        assert "can't be trimmed" in told[0]
    else:
        assert int(told[-1]) > 5 << 20


def test_a_finalizer_that_trims_during_a_trim() -> None:
    succeeds(
        """
        import vrange.heap
        told = []
        class Trims:
            def __del__(self): told.append(vrange.heap.trim())
        one = Trims()
        one.itself = one
        del one
        vrange.heap.trim(deep=True)
        assert len(told) == 1
        """
    )


@pytest.mark.timeout(1000)
def test_cpython_s_own_tests_with_a_trim_every_few_milliseconds() -> None:
    """The short version: scripts/test-under-trims takes more of them, and other interpreters."""
    pytest.importorskip("test.test_list", reason="this CPython came without its tests")
    script = Path(__file__).parents[2] / "scripts" / "test-under-trims"
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", str(script), *TESTS],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "trims returned" in done.stdout
    print(" ".join(TESTS), done.stdout.splitlines()[-1], sep=": ")
    assert python("print(1)").stdout == "1\n"
