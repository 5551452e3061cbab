"""Which variables a cell of a notebook reads before it assigns them itself."""

from __future__ import annotations

import ast
import dis
from collections.abc import Iterator
from types import CodeType

_BOUND = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def names_read(module: ast.Module, flags: int = 0) -> set[str]:
    """Return the global names that a cell may read before it has certainly assigned them.

    What is not certain counts as read. So the result may have too many names, and never too few.
    `flags` are those of `compile`. Raise SyntaxError for code that can't be compiled.
    """
    compile(module, "<cell>", "exec", flags=flags, dont_inherit=True)
    read: set[str] = set()
    _read_of(module.body, set(), read)
    return read


def _read_of(statements: list[ast.stmt], assigned: set[str], read: set[str]) -> None:
    """Add to `read` what the statements read, and to `assigned` what they certainly assign."""
    for statement in statements:
        if isinstance(statement, ast.For) and not statement.orelse:
            _note([ast.Expr(statement.iter)], assigned, read)
            # Its target is assigned in the body; afterwards only if there was anything.
            _note([_assignment(statement.target)], assigned, read)
            _read_of(statement.body, assigned | _targets(statement.target), read)
        elif isinstance(statement, ast.If):
            _note([ast.Expr(statement.test)], assigned, read)
            branches = [set(assigned), set(assigned)]
            _read_of(statement.body, branches[0], read)
            _read_of(statement.orelse, branches[1], read)
            assigned |= branches[0] & branches[1]
        elif isinstance(statement, ast.With):
            for item in statement.items:
                _note([ast.Expr(item.context_expr)], assigned, read)
                if item.optional_vars is not None:
                    _note([_assignment(item.optional_vars)], assigned, read)
                    assigned |= _targets(item.optional_vars)
            _read_of(statement.body, set(assigned), read)  # it may suppress an exception
        else:
            _note([statement], assigned, read)
            assigned |= _certainly_assigned(statement)


def _certainly_assigned(statement: ast.stmt) -> set[str]:
    if isinstance(statement, ast.Assign):
        return set().union(*map(_targets, statement.targets))
    if isinstance(statement, ast.AugAssign):
        return _targets(statement.target)
    if isinstance(statement, ast.AnnAssign):
        return _targets(statement.target) if statement.value is not None else set()
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name.partition(".")[0] for alias in statement.names}
    return {statement.name} if isinstance(statement, _BOUND) else set()


def _targets(target: ast.expr) -> set[str]:
    return {
        node.id
        for node in ast.walk(target)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }


def _assignment(target: ast.expr) -> ast.stmt:
    return ast.Assign([target], ast.Constant(None))


def _note(statements: list[ast.stmt], assigned: set[str], read: set[str]) -> None:
    module = ast.fix_missing_locations(ast.Module(statements, []))
    read |= set(_loaded(compile(module, "<cell>", "exec", dont_inherit=True))) - assigned


def _loaded(code: CodeType) -> Iterator[str]:
    """Yield the global names that code loads or deletes, and those that its functions assign."""
    for instruction in dis.get_instructions(code):
        operation = instruction.opname
        if operation.startswith(("LOAD_NAME", "LOAD_GLOBAL", "LOAD_FROM_DICT", "DELETE_NAME")) or (
            operation in ("STORE_GLOBAL", "DELETE_GLOBAL")
        ):
            yield instruction.argval
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _loaded(constant)
