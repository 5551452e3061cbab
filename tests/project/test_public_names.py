"""The public names: type checkers find each of them, and each is imported at its first use."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from support import succeeds

import vrange

SOURCE = Path(vrange.__file__)


def typed(on: str) -> dict[str, str]:
    """Name -> module, as a type checker finds them: on "linux", or on other platforms."""
    tree = ast.parse(SOURCE.read_text())
    checked = next(
        node
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    return dict(imported(checked.body, on))


def imported(body: list[ast.stmt], on: str) -> Iterator[tuple[str, str]]:
    for node in body:
        if isinstance(node, ast.If):
            assert ast.unparse(node.test) == "sys.platform == 'linux'"
            yield from imported(node.body if on == "linux" else node.orelse, on)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            for alias in node.names:
                yield alias.name, node.module.removeprefix("vrange").removeprefix(".")


def test_what_a_type_checker_finds_is_what_runs() -> None:
    linux, other = typed("linux"), typed("other")
    modules = {*vrange._MODULES, *vrange._MODULES_ON_LINUX}
    assert linux == {
        **dict.fromkeys(modules, ""),
        **vrange._DEFINED_IN,
        **vrange._DEFINED_ON_LINUX_IN,
    }
    # A VolatileArray is refused there, where it is used.
    on_linux = vrange._DEFINED_ON_LINUX_IN.keys() - {"VolatileArray"}
    assert {name for name, module in other.items() if module == "_portable"} == on_linux
    eager = {name for name in vrange.__all__ if name in vars(vrange.errors)}
    assert set(vrange.__all__) == {*linux, *eager} - {"dask"}


def test_each_name_is_imported_when_it_is_used_first() -> None:
    code = """
    import sys, vrange
    ours = {name for name in sys.modules if name.startswith("vrange.")}
    print(sorted(name for name in ours if "_stacks" in name or "_service" in name))
    print("vrange._cache.cache" in ours, "dataclasses" in sys.modules, "pathlib" in sys.modules)
    cached = vrange.cached
    print("vrange._cache.cache" in sys.modules, vrange.cached is cached, "cached" in vars(vrange))
    from vrange import *
    print(all(name in globals() for name in vrange.__all__))
    try:
        vrange.no_such_name
    except AttributeError as error:
        print(error)
    """
    assert succeeds(code).splitlines() == [
        "[]",
        "False False False",
        "True True True",
        "True",
        "module 'vrange' has no attribute 'no_such_name'",
    ]
