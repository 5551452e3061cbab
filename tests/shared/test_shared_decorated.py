"""@cached(shared=True): one cache for a function in all processes that have it."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import textwrap
import uuid
from pathlib import Path
from typing import Any

import pytest

import vrange

PROGRAM = """
import sys
import vrange

@vrange.cached(shared=True)
def double(n, *, more=0):
    print("computed", n)
    return [n * 2 + more]

if __name__ == "__main__":
    print(double(4), double(n=4), double(4, more=1), double(True), double(1.0))
    if len(sys.argv) > 1:
        import subprocess
        subprocess.run([sys.executable, *sys.argv[1:]], check=True)
"""


def run(*arguments: Any) -> list[str]:
    environment = {**os.environ, "VRANGE_SERVICE": f"test-{uuid.uuid4().hex[:12]}"}
    done = subprocess.run(
        [sys.executable, "-u", *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def write(path: Path, text: str) -> Path:
    path.write_text(textwrap.dedent(text))
    return path


def test_another_process_does_not_compute_again(tmp_path: Path) -> None:
    program = write(tmp_path / "program.py", PROGRAM)
    answers = "[8] [8] [9] [2] [2]"
    computed = ["computed 4", "computed 4", "computed 4", "computed True"]
    assert run(program) == [*computed, answers]
    assert run(program, program) == [*computed, answers, answers]


def test_other_code_is_another_function(tmp_path: Path) -> None:
    program = write(tmp_path / "program.py", PROGRAM)
    for place, text in (
        ("program2.py", PROGRAM),  # another file
        ("changed.py", PROGRAM.replace("n * 2", "n * 3")),
    ):
        other = write(tmp_path / place, text)
        assert sum("computed" in line for line in run(program, other)) == 8


def test_a_changed_file_is_another_function(tmp_path: Path) -> None:
    program = write(tmp_path / "program.py", PROGRAM)
    changed = PROGRAM.replace("n * 2", "n * 3").replace("'", '"')
    change = f"open({str(program)!r}, 'w').write({changed!r})"
    again = f"import runpy\nrunpy.run_path({str(program)!r}, run_name='__main__')"
    other = write(tmp_path / "change.py", f"{change}\n{again}")
    assert run(program, other)[-1] == "[12] [12] [13] [3] [3]"


@vrange.cached(shared=True)
def square(n: int) -> int:
    return n * n


@vrange.cached(shared=True, skip=lambda value: value is None)
def maybe(n: int) -> int | None:
    calls.append(n)
    return n or None


@vrange.cached(shared=True, typed=True)
def kind(n: Any) -> str:
    return type(n).__name__


@vrange.cached(shared=True)
async def later(n: int) -> int:
    calls.append(n)
    await asyncio.sleep(0)
    return n * n


calls: list[int] = []


@pytest.fixture(autouse=True)
def _clear() -> None:
    for function in (square, maybe, kind, later):
        function.cache_clear()
    calls.clear()


def test_it_has_what_decorated_functions_have() -> None:
    assert square(3) == square(3) == 9
    assert square.cache_contains(3)
    assert square.cache_info().hits == 1
    assert square.cache_info().misses == 1
    assert square.cache_discard(3)
    assert not square.cache_contains(3)
    assert square.__wrapped__(3) == 9
    assert "square#" in square.cache_parameters()["shared"]


def test_what_is_skipped_is_not_cached() -> None:
    assert [maybe(0), maybe(0), maybe(1), maybe(1)] == [None, None, 1, 1]
    assert calls == [0, 0, 1]


def test_types_can_be_told_apart() -> None:
    assert [kind(1), kind(1.0), kind(True)] == ["int", "float", "bool"]


def test_coroutine_functions() -> None:
    async def ask() -> list[int]:
        return await asyncio.gather(*(later(3) for _ in range(4)))

    assert asyncio.run(ask()) == [9] * 4
    assert calls == [3]


def test_a_function_that_depends_on_more_than_its_code_needs_a_name() -> None:
    factor = 2

    def times(n: int) -> int:
        return n * factor

    with pytest.raises(TypeError, match=r"uses variables of the function around it \(factor\)"):
        vrange.cached(shared=True)(times)
    named = vrange.cached(shared=f"times-{uuid.uuid4().hex[:8]}")(times)
    assert named(3) == named(3) == 6

    class Callable:
        def __call__(self, n: int) -> int:
            return n

    with pytest.raises(TypeError, match="no plain function"):
        vrange.cached(shared=True)(Callable())


def test_two_functions_can_not_have_one_name() -> None:
    """Each would return what the other has computed."""
    name = f"two-{uuid.uuid4().hex[:8]}"

    def one(n: int) -> int:
        return n

    def another(n: int) -> int:
        return -n

    first = vrange.cached(shared=name)(one)
    assert first(1) == 1
    with pytest.raises(ValueError, match=rf"one and .*another have the same shared='{name}'"):
        vrange.cached(shared=name)(another)
    again = vrange.cached(shared=name)(one)  # as where a module is loaded again
    assert again(1) == 1
    del first, again
    gc.collect()
    assert vrange.cached(shared=name)(another)(2) == -2


def test_methods_need_a_key() -> None:
    class Model:
        @vrange.cached(shared=True)
        def predict(self, n: int) -> int:
            return n

        @vrange.cached(shared=True, key=lambda self, n: n)
        def keyed(self, n: int) -> int:
            return n + 1

    with pytest.raises(TypeError, match="key="):
        Model().predict(1)
    assert Model().keyed(1) == Model().keyed(1) == 2


@pytest.mark.parametrize("wrong", [1, None, b"name"])
def test_other_values_are_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match="shared must be"):
        vrange.cached(shared=wrong)


def test_a_shared_cache_is_given_by_name_only() -> None:
    with (
        vrange.VolatileCache[Any, Any](shared="given") as cache,
        pytest.raises(TypeError, match="can't be given as cache="),
    ):
        vrange.cached(cache=cache)(len)


def test_a_function_with_a_very_long_name_is_shared(tmp_path: Path) -> None:
    name = "a_very_long_näme_" * 9
    program = write(tmp_path / "program.py", PROGRAM.replace("double", name))
    computed = ["computed 4", "computed 4", "computed 4", "computed True"]
    assert run(program, program) == [*computed, "[8] [8] [9] [2] [2]", "[8] [8] [9] [2] [2]"]
