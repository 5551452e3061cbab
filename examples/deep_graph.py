"""Strongly connected components by Tarjan's algorithm, in the recursive form of its publication.

The graph is a real one: which functions of a large package refer to which, found in its source. The
default package is the installed numpy. With ``--chain``, each function also refers to the next one
in its file. Then one walk goes through thousands of them, each nested in the one before.
"""

from __future__ import annotations

import ast
import importlib.util
import itertools
import sys
from collections import defaultdict
from pathlib import Path

import vrange

Graph = dict[str, list[str]]


def package_sources(name: str) -> list[Path]:
    """Return every Python file of an installed package except its tests, in order."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"{name} is not an installed package")
    files = sorted(Path(spec.submodule_search_locations[0]).rglob("*.py"))
    return [path for path in files if "tests" not in path.parts]


def call_graph(sources: list[Path], chain: bool) -> Graph:
    """Return the functions by name, each with the names of functions that it refers to."""
    names_in: dict[str, set[str]] = defaultdict(set)
    order: list[str] = []
    for path in sources:
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue  # templates, and tests with broken code
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
                names |= {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}
                if node.name not in names_in:
                    order.append(node.name)
                names_in[node.name] |= names - {node.name}
    graph = {name: sorted(names & names_in.keys()) for name, names in names_in.items()}
    if chain:
        for name, following in itertools.pairwise(order):
            graph[name].insert(0, following)
    return graph


@vrange.deep_recursion(stack="4GiB")
def components(graph: Graph) -> tuple[list[list[str]], int]:
    """Return the strongly connected components, and the depth that the recursion reached.

    >>> components({"a": ["b"], "b": ["a", "c"], "c": []})
    ([['c'], ['b', 'a']], 3)
    """
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    open_nodes: list[str] = []
    is_open: set[str] = set()
    found: list[list[str]] = []
    deepest = 0

    def visit(node: str, depth: int) -> None:
        nonlocal deepest
        deepest = max(deepest, depth)
        index[node] = low[node] = len(index)
        open_nodes.append(node)
        is_open.add(node)
        for other in graph[node]:
            if other not in index:
                visit(other, depth + 1)
                low[node] = min(low[node], low[other])
            elif other in is_open:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            component: list[str] = []
            while not component or component[-1] != node:
                component.append(open_nodes.pop())
                is_open.discard(component[-1])
            found.append(component)

    for node in graph:
        if node not in index:
            visit(node, 1)
    return found, deepest


def main() -> None:
    arguments = [a for a in sys.argv[1:] if a != "--chain"]
    sources = package_sources(arguments[0] if arguments else "numpy")
    graph = call_graph(sources, chain="--chain" in sys.argv)
    found, deepest = components(graph)
    edges = sum(map(len, graph.values()))
    largest = max(map(len, found))
    print(f"{len(sources)} files, {len(graph):,} functions, {edges:,} references")
    print(f"{len(found):,} components, the largest of {largest:,}; {deepest:,} levels deep")


if __name__ == "__main__":
    main()
