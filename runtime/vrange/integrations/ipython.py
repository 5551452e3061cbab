"""Cells of a notebook that are not run again while nothing changed that they read.

`%load_ext vrange` loads it, in Jupyter and in IPython. Then the first line of a cell says::

    %%cached
    table = slow(parameters)
    table.describe()
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from types import FunctionType, ModuleType
from typing import Any

from IPython.core.error import UsageError
from IPython.core.magic import Magics, cell_magic, magics_class, output_can_be_silenced
from IPython.core.magic_arguments import argument, magic_arguments, parse_argstring

from vrange import VolatileCache
from vrange.integrations._cell_content import digest_of
from vrange.integrations._cell_names import names_read

__all__ = ["CellCache"]

_ABSENT = object()


@dataclass
class _Outcome:
    """What a cell did."""

    assigned: dict[str, Any] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    shown: list[Any] = field(default_factory=list)  # text, and what was displayed
    result: Any = None  # of its last expression


@magics_class
class CellCache(Magics):
    """The magic `%%cached` of one IPython shell.

    Attributes
    ----------
    cache : VolatileCache
        What cells did, by their code and the content of what they read.

    """

    shell: Any  # the InteractiveShell

    def __init__(self, shell: Any) -> None:
        super().__init__(shell)
        self.cache: VolatileCache[Any, _Outcome] = VolatileCache(name="cells", copy=True)

    @output_can_be_silenced
    @magic_arguments()
    @argument("--ttl", type=float, help="seconds after which the cell runs again")
    @argument("--again", action="store_true", help="run the cell, and keep what it does now")
    @cell_magic
    def cached(self, line: str, cell: str) -> Any:
        """Run the cell, or do what it did when it had this code and read these values.

        A cell that was found assigns its variables, prints and displays what it did before, and
        returns its last expression. Each time these are copies of their own.
        """
        options = parse_argstring(self.cached, line)
        code = self.shell.transform_cell(cell)
        try:
            module = ast.parse(code)
            names = sorted(names_read(module, self.shell.compile.flags))
        except SyntaxError as error:
            raise UsageError(f"%%cached can't run this cell: {error}") from None
        read = {name: self.shell.user_ns[name] for name in names if name in self.shell.user_ns}
        digests = self._digests(read)
        if digests is None:
            return self._run(code, module).result
        key = code, tuple(digests.items())
        found = None if options.again else self.cache.get(key)
        if found is not None:
            return self._do_again(found)
        outcome = self._run(code, module)
        if self._may_be_kept(outcome, read, digests):
            self.cache.set(key, outcome, ttl=options.ttl)
        return outcome.result

    # ---- what it reads ------------------------------------------------------------------------

    def _digests(self, read: dict[str, Any]) -> dict[str, bytes] | None:
        """Return a digest of the content of each variable; None, and say so, if one has none."""
        digests = {}
        for name, value in read.items():
            try:
                digests[name] = digest_of(value)
            except Exception as error:
                self._say(f"{name}, which it reads, can't be pickled: {error}")
                return None
        return digests

    def _may_be_kept(
        self, outcome: _Outcome, read: dict[str, Any], digests: dict[str, bytes]
    ) -> bool:
        """Return whether doing the same again is as good as running the cell; if not, say why."""
        after = self._digests(read)
        if after is None:
            return False
        if changed := [name for name, digest in after.items() if digest != digests[name]]:
            self._say(f"it changes {', '.join(changed)} in place: assign a changed copy instead")
            return False
        for name, value in outcome.assigned.items():
            if isinstance(value, FunctionType | type) and value.__module__ == "__main__":
                self._say(f"it defines {name}: define functions and classes in a cell of their own")
                return False
            if isinstance(value, ModuleType) and sys.modules.get(value.__name__) is value:
                outcome.assigned[name] = _Module(value.__name__)
        return True

    def _say(self, why: str) -> None:
        print(f"%%cached: the cell ran and is not cached, because {why}", file=sys.stderr)

    # ---- running it ---------------------------------------------------------------------------

    def _run(self, code: str, module: ast.Module) -> _Outcome:
        names = self.shell.user_ns
        before, recorded, outcome = dict(names), _Recorded(names), _Outcome()
        filename = self.shell.compile.cache(code, self.shell.execution_count)
        compiled = _compiler(filename, self.shell.compile.flags)
        *statements, last = module.body or [ast.Pass()]
        if not isinstance(last, ast.Expr):
            statements.append(last)
        with _noting(outcome.shown, self.shell.display_pub):
            exec(compiled(ast.Module(statements, []), "exec"), names, recorded)
            if isinstance(last, ast.Expr):
                outcome.result = eval(compiled(ast.Expression(last.value), "eval"), names, recorded)
        # Functions assign global names without `recorded`.
        others = {name for name, value in names.items() if before.get(name, _ABSENT) is not value}
        outcome.assigned = {
            name: names[name] for name in sorted(recorded.assigned | others) if name in names
        }
        outcome.deleted = (before.keys() | recorded.assigned) - names.keys()
        return outcome

    def _do_again(self, found: _Outcome) -> Any:
        names = self.shell.user_ns
        for name in found.deleted:
            names.pop(name, None)
        for name, value in found.assigned.items():
            names[name] = value.imported() if isinstance(value, _Module) else value
        for what in found.shown:
            if isinstance(what, _Displayed):
                self.shell.display_pub.publish(what.data, what.metadata)
            else:
                stream, text = what
                getattr(sys, stream).write(text)
        return found.result


class _Recorded(MutableMapping[str, Any]):
    """The variables of a cell while it runs: those of the shell, and which ones it assigns."""

    def __init__(self, names: dict[str, Any]) -> None:
        self._names = names
        self.assigned: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        return self._names[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self.assigned.add(name)
        self._names[name] = value

    def __delitem__(self, name: str) -> None:
        del self._names[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@dataclass(frozen=True)
class _Module:
    """Stands for a module in an outcome, because modules can't be pickled."""

    name: str

    def imported(self) -> ModuleType:
        __import__(self.name)
        return sys.modules[self.name]


def _compiler(filename: str, flags: int) -> Callable[[Any, str], Any]:
    def compiled(tree: Any, mode: str) -> Any:
        tree = ast.fix_missing_locations(tree)
        return compile(tree, filename, mode, flags=flags, dont_inherit=True)

    return compiled


def load(shell: Any) -> None:
    """Add `%%cached` to a shell, unless it has it."""
    if not isinstance(shell.magics_manager.registry.get(CellCache.__name__), CellCache):
        shell.register_magics(CellCache)


def unload(shell: Any) -> None:
    """Remove `%%cached` from a shell, with all that it keeps."""
    magics = shell.magics_manager
    cells = magics.registry.pop(CellCache.__name__, None)
    magics.magics["cell"].pop("cached", None)
    if cells is not None:
        cells.cache.close()


# ---- what it shows ----------------------------------------------------------------------------


@dataclass
class _Displayed:
    data: Any
    metadata: Any
    place: Any  # the id by which it is updated, or None


@contextmanager
def _noting(shown: list[Any], publisher: Any) -> Iterator[None]:
    """Note what is printed and displayed. It is shown all the same."""
    publish = publisher.publish

    def noting(data: Any, metadata: Any = None, **options: Any) -> None:
        publish(data, metadata, **options)
        place = (options.get("transient") or {}).get("display_id")
        now = _Displayed(data, metadata, place)
        if options.get("update"):
            shown[:] = [now if getattr(one, "place", None) == place else one for one in shown]
        else:
            shown.append(now)

    publisher.publish = noting
    try:
        with ExitStack() as stack:
            stack.enter_context(redirect_stdout(_Tee("stdout", sys.stdout, shown)))
            stack.enter_context(redirect_stderr(_Tee("stderr", sys.stderr, shown)))
            yield
    finally:
        del publisher.publish


class _Tee:
    """A stream that also notes what is written to it."""

    def __init__(self, name: str, stream: Any, shown: list[Any]) -> None:
        self._name, self._stream, self._shown = name, stream, shown

    def write(self, text: str) -> int:
        self._shown.append((self._name, text))
        return self._stream.write(text)  # type: ignore[no-any-return]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
