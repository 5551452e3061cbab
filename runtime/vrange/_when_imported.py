"""A call once the program imports a module, and not earlier: most programs never import it."""

from __future__ import annotations

import _frozen_importlib
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.abc import Loader, MetaPathFinder
    from importlib.machinery import ModuleSpec
else:
    # The import system asks for methods only, and importlib.abc imports tempfile, random and more.
    Loader = MetaPathFinder = object

__all__ = ["when_imported"]


def when_imported(
    name: str,
    then: Callable[[], None],
    during: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> None:
    """Call `then` once, right after the module is imported, in the thread that imports it.

    If the import fails, nothing is called, and the next attempt counts. When the module's first
    line runs, its `__loader__` and `__spec__` are already its own. The module runs within the
    context that `during` makes.
    """
    sys.meta_path.insert(0, _Finder(name, then, during))


class _Finder(MetaPathFinder):
    def __init__(
        self,
        name: str,
        then: Callable[[], None],
        during: Callable[[], AbstractContextManager[object]],
    ) -> None:
        self._name = name
        self._then = then
        self.during = during

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != self._name:
            return None
        for finder in sys.meta_path:
            if isinstance(finder, _Finder):
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _Loader(spec, spec.loader, self)
                return spec
        return None

    def imported(self) -> None:
        if self in sys.meta_path:
            sys.meta_path.remove(self)
            self._then()


class _Loader(Loader):
    """Loads a module with its own loader, and then calls the finder."""

    def __init__(self, spec: ModuleSpec, loader: Loader, finder: _Finder) -> None:
        self._spec = spec
        self._loader = loader
        self._finder = finder

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._spec.loader = self._loader
        module.__loader__ = self._loader
        with self._finder.during():
            self._loader.exec_module(module)
        self._finder.imported()


# Python removes the frames of its import system from tracebacks, by their file name. So the program
# sees an error in the module as it would without vrange.
_Loader.exec_module.__code__ = _Loader.exec_module.__code__.replace(
    co_filename=_frozen_importlib._find_and_load.__code__.co_filename  # type: ignore[attr-defined]
)
