"""A digest of what a variable of a notebook contains: data, and code with what it refers to."""

from __future__ import annotations

import hashlib
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from types import CodeType, FunctionType, ModuleType
from typing import Any

try:
    import cloudpickle
except ImportError as error:
    raise ImportError(
        '%load_ext vrange needs cloudpickle: pip install "vrange[jupyter]"'
    ) from error

_DIGEST_BYTES = 20  # of BLAKE2b: two contents with one digest are not to be expected
_INSTALLED = tuple({sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")})


def digest_of(value: Any) -> bytes:
    """Return a digest of the content of a value. Raise an error of pickling if it has none.

    Functions and classes of the notebook count by their code and the variables that they use. Those
    of modules that are not installed, which a user may edit and reload, count by all code of their
    module.
    """
    sink = _Sink()
    pickler = _Pickler(sink, protocol=5, buffer_callback=sink.write_buffer)
    pickler.dump(value)
    seen: set[str] = set()
    while names := pickler.modules - seen:
        seen |= names
        for name in sorted(names):
            pickler.dump((name, list(_code_in(vars(sys.modules[name]), name))))
            pickler.modules |= _modules_in(vars(sys.modules[name]))
    return sink.digest.digest()


class _Sink:
    """A file of which only a digest is kept."""

    def __init__(self) -> None:
        self.digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)

    def write(self, data: Any) -> None:
        self.digest.update(data)

    def write_buffer(self, buffer: Any) -> None:
        raw = buffer.raw()
        self.write(raw.nbytes.to_bytes(8, "little"))
        self.write(raw)


class _Pickler(cloudpickle.Pickler):
    """Notes the modules that a user may edit and to which a value refers."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.modules: set[str] = set()

    def reducer_override(self, value: Any) -> Any:
        self.modules |= _modules_in({"": value})
        return super().reducer_override(value)


def _modules_in(names: Mapping[str, Any]) -> set[str]:
    """Return the modules, of a user's own, of the functions, classes and modules among these."""
    found = set()
    for value in names.values():
        if isinstance(value, ModuleType):
            found.add(value.__name__)
        elif isinstance(value, FunctionType | type):
            found.add(value.__module__)
    return {name for name in found if _is_own(name)}


def _is_own(name: Any) -> bool:
    file: str | None = getattr(sys.modules.get(name), "__file__", None)
    return name != "__main__" and file is not None and not file.startswith(_INSTALLED)


def _code_in(names: Mapping[str, Any], module: str) -> Iterator[tuple[str, CodeType]]:
    for name, value in sorted(names.items()):
        if getattr(value, "__module__", None) != module:
            continue
        if isinstance(value, FunctionType):
            yield name, value.__code__
        elif isinstance(value, type):
            for inner, code in _code_in(vars(value), module):
                yield f"{name}.{inner}", code
