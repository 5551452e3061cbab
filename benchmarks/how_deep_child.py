"""One recursion to a number of levels, for how_deep.py: exits with 0, or names what stopped it.

    python how_deep_child.py NAME LEVELS [call]

With "call" the recursion runs in a vrange.deep_call. Every interpreter can read this file.
"""

from __future__ import annotations

import ast
import copy
import functools
import json
import os
import pickle
import re
import sys
import threading
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from typing import Any

N = 0


def nested() -> list[Any]:
    inner: list[Any] = []
    for _ in range(N):
        inner = [inner]
    return inner


def python() -> None:
    def steps(n: int) -> int:
        return 0 if n == 0 else 1 + steps(n - 1)

    assert steps(N) == N


def cache() -> None:
    @functools.cache
    def steps(n: int) -> int:
        return 0 if n == 0 else 1 + steps(n - 1)

    assert steps(N) == N


def generators() -> None:
    def down(n: int) -> Any:
        if n:
            yield from down(n - 1)
        yield n

    assert next(down(N)) == 0


def json_loads() -> None:
    json.loads("[" * N + "]" * N)


def json_dumps() -> None:
    json.dumps(nested())


def pickle_dumps() -> None:
    pickle.dumps(nested())


def deepcopy() -> None:
    copy.deepcopy(nested())


def representation() -> None:
    repr(nested())


def comparison() -> None:
    assert nested() == nested()


def elements() -> None:
    copy.deepcopy(ElementTree.fromstring("<a>" * N + "</a>" * N))


def visitor() -> None:
    node: ast.expr = ast.Constant(1)
    for _ in range(N):
        node = ast.BinOp(node, ast.Add(), ast.Constant(1))
    ast.NodeTransformer().visit(node)


def sympy_str() -> None:
    import sympy

    expression = sympy.Symbol("x")
    for _ in range(N):
        expression = sympy.sin(expression, evaluate=False)
    assert len(str(expression)) == 5 * N + 1


def lark_interpreter() -> None:
    import lark

    class Depth(lark.visitors.Interpreter[Any, Any]):  # type: ignore[misc, unused-ignore]
        def start(self, tree: Any) -> int:
            return 1 + int(sum(self.visit_children(tree)))

    parser = lark.Lark('start: "(" start? ")"', parser="lalr")
    assert Depth().visit(parser.parse("(" * N + ")" * N)) == N


def networkx_tree() -> None:
    import networkx

    networkx.tree_data(networkx.path_graph(N, create_using=networkx.DiGraph), 0)


def lxml_walk() -> None:
    from lxml import etree

    root = last = etree.Element("a")
    for _ in range(N):
        last = etree.SubElement(last, "a")

    def depth(element: Any) -> int:
        return 1 + max((depth(child) for child in element), default=0)

    assert depth(root) == N + 1


def regular_expression() -> None:
    re.compile("(?:a" * N + ")" * N)


def compile_sum() -> None:
    compile("x" + "+x" * N, "", "eval")


def parse_signs() -> None:
    ast.parse("-" * N + "1")


def parse_brackets() -> None:
    ast.parse("[" * N + "]" * N)


def lxml_parse() -> None:
    from lxml import etree

    etree.fromstring("<a>" * N + "</a>" * N, etree.XMLParser(huge_tree=True))


WORK: dict[str, Callable[[], None]] = {
    "recursion in pure Python": python,
    "functools.cache": cache,
    "yield from": generators,
    "json.loads": json_loads,
    "json.dumps": json_dumps,
    "pickle.dumps": pickle_dumps,
    "copy.deepcopy": deepcopy,
    "repr of a list": representation,
    "== of lists": comparison,
    "deepcopy of an ElementTree": elements,
    "ast.NodeTransformer": visitor,
    "str of a sympy expression": sympy_str,
    "lark Interpreter": lark_interpreter,
    "networkx.tree_data": networkx_tree,
    "a walk through lxml elements": lxml_walk,
    "re.compile of groups": regular_expression,
    "compile of a + a + …": compile_sum,
    "ast.parse of - - … 1": parse_signs,
    "ast.parse of [[…]]": parse_brackets,
    "lxml's own parser": lxml_parse,
}


def main() -> None:
    global N
    name, N = sys.argv[1], int(sys.argv[2])
    work = WORK[name]
    stopped = ""
    try:
        if "call" in sys.argv[3:]:
            import vrange

            vrange.deep_call(work)
        elif "thread" in sys.argv[3:]:
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
        else:
            work()
    except ModuleNotFoundError:
        stopped = "not installed"
    except Exception as error:
        stopped = f"{type(error).__name__}: {error}"
    sys.stdout.write(json.dumps({"stopped": stopped[:200]}))
    sys.stdout.flush()
    os._exit(0)  # freeing what is nested may take as long again


if __name__ == "__main__":
    main()
