"""%%cached in a real IPython shell: what a user of a notebook sees."""

from __future__ import annotations

import ast
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from vrange.integrations._cell_names import names_read


class Notebook:
    """Runs cells; the namespace of the shell is that of __main__, as in a notebook."""

    def __init__(self) -> None:
        config = Config()
        config.HistoryManager.enabled = False
        self.shell: Any = InteractiveShell(config=config, colors="nocolor")
        self.names = self.shell.user_ns
        self.run("%load_ext vrange")
        self.names["ran"] = []  # not a variable of cells: these use note()
        self.shell.push({"note": _Note(self)})

    def run(self, cell: str) -> Any:
        done = self.shell.run_cell(textwrap.dedent(cell).strip("\n"), store_history=True)
        done.raise_error()
        return done.result


class _Note:
    """Counts how often cells call it. Its pickle, and so its digest, stays the same."""

    def __init__(self, notebook: Notebook) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1

    def __reduce__(self) -> tuple[Any, ...]:
        return (_Note, (None,))


@pytest.fixture
def notebook() -> Iterator[Notebook]:
    main = sys.modules["__main__"]
    notebook = Notebook()
    try:
        yield notebook
    finally:
        notebook.run("%unload_ext vrange")
        notebook.shell.restore_sys_module_state()
        sys.modules["__main__"] = main


def ran(notebook: Notebook) -> int:
    count: int = notebook.names["note"].count
    return count


def test_a_cell_that_reads_the_same_is_not_run_again(notebook: Notebook) -> None:
    cell = """
    %%cached
    import math
    note()
    roots = [math.sqrt(n) for n in range(size)]
    for last in roots:
        total = last
    sum(roots)
    """
    notebook.run("size = 5")
    first = notebook.run(cell)
    assert notebook.run(cell) == first == sum(notebook.names["roots"])
    assert ran(notebook) == 1
    notebook.run("del roots, last, total, math")
    notebook.run(cell)
    assert ran(notebook) == 1
    assert notebook.names["roots"][4] == notebook.names["last"] == notebook.names["total"] == 2.0
    assert notebook.names["math"] is sys.modules["math"]
    notebook.run("size = 6")
    assert notebook.run(cell) > first
    assert ran(notebook) == 2


def test_what_a_user_changes_afterwards_changes_no_later_answer(notebook: Notebook) -> None:
    cell = "%%cached\nimport numpy as np\nnote()\nrows = np.arange(100_000)\npair = rows, [1]"
    for _ in range(3):
        notebook.run(cell)
        assert notebook.names["rows"][0] == 0
        assert notebook.names["pair"][1] == [1]
        assert notebook.names["pair"][0] is notebook.names["rows"]
        notebook.run("rows[0] = 7; pair[1].append(2)")
    assert ran(notebook) == 1


def test_code_that_a_cell_uses_counts(notebook: Notebook) -> None:
    cell = "%%cached\nnote()\nanswer = outer(2)"
    notebook.run("def inner(x): return x * factor\nfactor = 10\ndef outer(x): return inner(x)")
    notebook.run(cell)
    notebook.run(cell)
    assert (notebook.names["answer"], ran(notebook)) == (20, 1)
    notebook.run("factor = 100")
    notebook.run(cell)
    assert notebook.names["answer"] == 200
    notebook.run("def inner(x): return x + factor")
    notebook.run(cell)
    assert notebook.names["answer"] == 102
    notebook.run("class Point:\n    def value(self): return 1\npoint = Point()")
    cell = "%%cached\nanswer = point.value()"
    notebook.run(cell)
    notebook.run("Point.value = lambda self: 2")
    notebook.run(cell)
    assert notebook.names["answer"] == 2


def test_code_of_a_module_that_was_reloaded_counts(
    notebook: Notebook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "vrange_cell_helper.py").write_text("def f():\n    return 1\n")
    notebook.run("import importlib, vrange_cell_helper\nfrom vrange_cell_helper import f")
    of_module, of_function = "%%cached\na = vrange_cell_helper.f()", "%%cached\nb = f()"
    notebook.run(of_module)
    notebook.run(of_function)
    (tmp_path / "vrange_cell_helper.py").write_text("def f():\n    return 2000\n")
    notebook.run("importlib.reload(vrange_cell_helper)\nfrom vrange_cell_helper import f")
    notebook.run(of_module)
    notebook.run(of_function)
    assert (notebook.names["a"], notebook.names["b"]) == (2000, 2000)


@pytest.mark.parametrize(
    ("before", "cell", "why"),
    [
        ("rows = [1]", "rows.append(2)", "changes rows in place"),
        ("import random\nchance = random.Random(1)", "x = chance.random()", "changes chance in"),
        ("lines = iter([1, 2, 3])\ndef f(): return lines", "x = next(f())", "in place"),
        ("import threading\nlock = threading.Lock()", "x = lock.locked()", "lock, which it reads"),
        ("", "def f(): return 1", "defines f"),
        ("", "class C: pass", "defines C"),
    ],
)
def test_a_cell_for_which_an_answer_could_be_wrong_runs_each_time(
    notebook: Notebook, before: str, cell: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    notebook.run(before)
    for count in (1, 2):
        notebook.run(f"%%cached\nnote()\n{cell}")
        assert ran(notebook) == count
        assert why in capsys.readouterr().err


def test_what_a_cell_shows_is_shown_again(
    notebook: Notebook, capsys: pytest.CaptureFixture[str]
) -> None:
    cell = """
    %%cached
    import sys
    from IPython.display import display, HTML
    note()
    print("printed")
    handle = display({"text/plain": "0 %"}, raw=True, display_id="bar")
    display({"text/plain": "100 %"}, raw=True, display_id="bar", update=True)
    print("a warning", file=sys.stderr)
    handle = None
    "the result"
    """
    notebook.run(cell)
    first = capsys.readouterr()
    notebook.run(cell)
    again = capsys.readouterr()
    assert ran(notebook) == 1
    assert "printed" in first.out
    assert "100 %" in again.out
    assert "0 %\n100" not in again.out
    assert again.out.splitlines()[0] == "printed"
    assert "'the result'" in again.out
    assert again.err == first.err == "a warning\n"


def test_a_semicolon_hides_the_result(
    notebook: Notebook, capsys: pytest.CaptureFixture[str]
) -> None:
    notebook.run("%%cached\n'hidden';")
    assert "hidden" not in capsys.readouterr().out


def test_an_error_is_not_cached_and_names_the_line(
    notebook: Notebook, capsys: pytest.CaptureFixture[str]
) -> None:
    for count in (1, 2):
        with pytest.raises(ZeroDivisionError):
            notebook.run("%%cached\nnote()\nx = 1\n1 / 0")
        assert ran(notebook) == count
    assert "----> 3 1 / 0" in capsys.readouterr().out
    notebook.run("print('still shown')")
    assert capsys.readouterr().out == "still shown\n"


def test_names_that_are_deleted_or_assigned_by_functions(notebook: Notebook) -> None:
    notebook.run("def count():\n    global counted\n    counted = 5")
    cell = "%%cached\nnote()\ncount()\nscratch = 1\ndel scratch"
    notebook.run(cell)
    notebook.run("counted, scratch = 0, 9")
    notebook.run(cell)
    notebook.run("counted, scratch = 0, 9")
    notebook.run(cell)
    assert notebook.names["counted"] == 5
    assert "scratch" not in notebook.names


def test_a_name_that_only_some_runs_assign(notebook: Notebook) -> None:
    cell = "%%cached\nif flag:\n    x = 'assigned'"
    notebook.run("flag, x = False, 'first'")
    notebook.run(cell)
    notebook.run("x = 'second'")
    notebook.run(cell)
    assert notebook.names["x"] == "second"


def test_a_cached_function_shows_itself_as_its_cache_does(notebook: Notebook) -> None:
    notebook.run("import vrange\n@vrange.cached\ndef f(n): return n\nf(1); f(1)")
    notebook.run("@vrange.cached\nasync def g(n): return n")
    for name in ("f", "g"):
        html = notebook.shell.display_formatter.format(notebook.names[name])[0]["text/html"]
        assert f"__main__.{name}" in html


def test_options(notebook: Notebook) -> None:
    for count in (1, 2):
        notebook.run("%%cached --again\nnote()\nx = 1")
        assert ran(notebook) == count
    notebook.run("%%cached --ttl 100\nnote()\nx = 1")
    assert ran(notebook) == 2


def test_await_is_refused_with_a_message(
    notebook: Notebook, capsys: pytest.CaptureFixture[str]
) -> None:
    notebook.run("async def f(): return 1")
    notebook.shell.run_cell("%%cached\nx = await f()")
    assert "can't run this cell" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("cell", "names"),
    [
        ("x = 1\ny = x", ""),
        ("y = x\nx = 1", "x"),
        ("x += 1", "x"),
        ("for i in range(3): x = i", "range"),
        ("for i in a: b = i\nc = i", "a i"),
        ("if a: x = 1\nelse: x = 2\nx", "a"),
        ("if a: x = 1\nx", "a x"),
        ("def f(): return x\nx = 1\nf()", "x"),
        ("x = 1\ndef f(): return x\nf()", ""),
        ("with open(p) as s: x = s.read()\nx", "open p x"),
        ("try:\n    x = 1\nexcept E:\n    pass\nx", "E x"),
        ("x = a.b.c", "a"),
        ("[y for y in z]", "z"),
        ("del x", "x"),
        ("x: int = 1\nx", "int"),
        ("while a:\n    x = 1\nx", "a x"),
        ("(x := 1)\nx", "x"),
        ("class C:\n    y = x", "x"),
        ("import a.b\na", ""),
    ],
)
def test_names_that_a_cell_reads(cell: str, names: str) -> None:
    found = names_read(ast.parse(cell))
    assert found - {"__name__", "__annotations__", "__conditional_annotations__"} == {
        *names.split()
    }
