"""Deep calls where it hurts, on real input, and that it hurts without them."""

from __future__ import annotations

import ast
import copy
import importlib.util
import json
import operator
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from deep_helpers import cached_steps, depth_of, limits_unchanged, nested_list

import vrange

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
DEPTH = 200_000


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", sorted(path.stem for path in EXAMPLES.glob("deep_*.py")))
def test_examples_run(name: str) -> None:
    arguments = ["_pytest", "--chain"] if name == "deep_graph" else []
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert "deep" in done.stdout


def fails_without(f: Callable[..., Any], *args: Any) -> None:
    with pytest.raises((RecursionError, pickle.PicklingError)):
        f(*args)


def test_memoised_recursion() -> None:
    module = example("memoised_recursion")
    fails_without(cached_steps(), DEPTH)
    with limits_unchanged():
        assert vrange.deep_call(module.steps, 1_000_000) == 1_000_000
        assert module.edit_distance("kitten", "sitting") == 3
        text = "recursion " * 60
        assert module.edit_distance(text, text[::-1]) == edit_distance_by_table(text, text[::-1])


def edit_distance_by_table(a: str, b: str) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, start=1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1]


def test_json_both_ways() -> None:
    text = "[" * DEPTH + "]" * DEPTH
    fails_without(json.loads, text)
    with limits_unchanged():
        nested = vrange.deep_call(json.loads, text)
        assert depth_of(nested) == DEPTH
        fails_without(json.dumps, nested)
        assert vrange.deep_call(json.dumps, nested) == text
        objects = '{"a": ' * DEPTH + "null" + "}" * DEPTH
        assert vrange.deep_call(json.dumps, vrange.deep_call(json.loads, objects)) == objects


def test_pickle_both_ways() -> None:
    nested = nested_list(DEPTH)
    fails_without(pickle.dumps, nested)
    with limits_unchanged():
        pickled = vrange.deep_call(pickle.dumps, nested)
        assert depth_of(vrange.deep_call(pickle.loads, pickled)) == DEPTH


def test_deepcopy_and_comparison() -> None:
    nested = nested_list(DEPTH)
    fails_without(copy.deepcopy, nested)
    with limits_unchanged():
        copied = vrange.deep_call(copy.deepcopy, nested)
        assert copied is not nested
        assert depth_of(copied) == DEPTH
        fails_without(operator.eq, copied, nested)
        assert vrange.deep_call(operator.eq, copied, nested) is True
        assert vrange.deep_call(operator.eq, copied, nested_list(DEPTH - 1)) is False


def test_repr() -> None:
    nested = nested_list(50_000)
    if sys.version_info < (3, 14):  # from there on 8 MiB of ordinary stack carry this one
        fails_without(repr, nested)
    with limits_unchanged():
        assert vrange.deep_call(repr, nested) == "[" * 50_000 + "]" * 50_000


def test_syntax_trees_of_deep_code() -> None:
    module = example("deep_code")
    source = module.chain(20_000)
    with pytest.raises((RecursionError, MemoryError)):
        ast.NodeVisitor().visit(ast.parse(source))
    with limits_unchanged():
        deepest, nodes = module.measure(source)
    assert deepest == 20_000 + 3  # and the module, the assignment, and the context of a name
    assert nodes == 20_000 * 2 + 20_000 - 1 + 20_000 - 1 + 4


def test_syntax_trees_built_directly_compile_and_run() -> None:
    def build(depth: int) -> ast.Expression:
        body: ast.expr = ast.Constant(1)
        for _ in range(depth):
            body = ast.IfExp(ast.Name("x", ast.Load()), body, ast.Constant(0))
        return ast.fix_missing_locations(ast.Expression(body))

    depth = 8_000
    with limits_unchanged():
        tree = vrange.deep_call(build, depth)
        code = vrange.deep_call(compile, tree, "<built>", "eval")
        assert eval(code, {"x": 1}) == 1
        del tree


def test_the_standard_librarys_own_code_round_trips() -> None:
    module = example("deep_code")
    for path in module.library_sources(3):
        source = path.read_text(encoding="utf-8")
        deepest, nodes = module.measure(source)
        assert deepest > 10
        assert nodes > 5_000
        tree = ast.parse(source)
        again = vrange.deep_call(lambda tree=tree: ast.parse(ast.unparse(tree)))
        assert ast.dump(again) == ast.dump(tree)


def test_the_parsers_own_limits_stay_and_are_errors() -> None:
    """Constants of CPython's tokenizer and parser, whatever the stack."""
    with limits_unchanged():
        with pytest.raises(SyntaxError, match="too many nested parentheses"):
            vrange.deep_call(ast.parse, "(" * 300 + ")" * 300)
        with pytest.raises((MemoryError, SyntaxError, RecursionError)):
            vrange.deep_call(ast.parse, "-" * 100_000 + "1")
        assert vrange.deep_call(eval, "1") == 1


def test_tarjan_on_the_call_graph_of_an_installed_package() -> None:
    module = example("deep_graph")
    sources = module.package_sources("_pytest")
    for chain in (False, True):
        graph = module.call_graph(sources, chain=chain)
        assert len(graph) > 1_000
        with limits_unchanged():
            found, deepest = module.components(graph)
        assert deepest > (1_000 if chain else 10)
        assert sorted(name for component in found for name in component) == sorted(graph)
        reachable = {name: reached_from(graph, name) for name in list(graph)[:40]}
        component_of = {name: i for i, component in enumerate(found) for name in component}
        for a in reachable:
            for b in reachable:
                together = b in reachable[a] and a in reachable[b]
                assert together == (component_of[a] == component_of[b])


def reached_from(graph: dict[str, list[str]], start: str) -> set[str]:
    reached, waiting = {start}, [start]
    while waiting:
        for other in graph[waiting.pop()]:
            if other not in reached:
                reached.add(other)
                waiting.append(other)
    return reached
