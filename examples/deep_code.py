"""Recursive visitors over the syntax trees of deep code: generated, and the standard library's own.

An expression of 20,000 operands is a tree 20,000 levels deep. CPython's parser reads a chain of
operators without recursion, but nested brackets with it: at 200 open brackets its tokenizer stops
("too many nested parentheses"), and at some thousand levels of other nesting its parser stops
("parser stack overflowed", MAXSTACK in pegen). Those are constants of the parser that no stack
lifts. Deeper trees come from chains, or are built directly.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import vrange


class Depth(ast.NodeVisitor):
    """Measures the depth of a tree by recursion, which is the form that NodeVisitor expects."""

    def __init__(self) -> None:
        self.depth = self.deepest = self.nodes = 0

    def generic_visit(self, node: ast.AST) -> None:
        """Count a node, and visit the nodes below it."""
        self.nodes += 1
        self.depth += 1
        self.deepest = max(self.deepest, self.depth)
        super().generic_visit(node)
        self.depth -= 1


@vrange.deep_recursion(stack="4GiB")
def measure(source: str) -> tuple[int, int]:
    """Return a tree's depth and nodes, after compiling its source as a tree.

    >>> measure("1 + 2 + 3")[0] >= 4
    True
    """
    tree = ast.parse(source)
    visitor = Depth()
    visitor.visit(tree)
    compile(tree, "<measured>", "exec")
    return visitor.deepest, visitor.nodes


def chain(operands: int) -> str:
    """Return an expression of `operands` operands. They are names, so that nothing is folded."""
    return "total = " + " + ".join(["x"] * operands)


def library_sources(most: int) -> list[Path]:
    """Return the largest modules of the standard library."""
    sources = Path(ast.__file__).parent.glob("*.py")
    return sorted(sources, key=lambda path: path.stat().st_size, reverse=True)[:most]


def main() -> None:
    operands = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    deepest, nodes = measure(chain(operands))
    print(f"generated: {operands:,} operands, a tree {deepest:,} deep of {nodes:,} nodes")
    for path in library_sources(5):
        deepest, nodes = measure(path.read_text(encoding="utf-8"))
        print(f"{path.name}: {deepest} deep, {nodes:,} nodes")


if __name__ == "__main__":
    main()
