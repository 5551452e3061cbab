"""The name by which the processes of a service find the cache of a function."""

from __future__ import annotations

import sys
import weakref
from types import CodeType
from typing import Any

from vrange._cache.options import name_of

__all__ = ["check_shared_name", "name_with_function", "shared_name_of", "take_shared_name"]

_DIGEST_BYTES = 8
# By the name that users gave: the function that has it, and its cache, with which the name is free.
_taken: dict[str, tuple[str, weakref.ref[object]]] = {}
_PLAIN = (str, bytes, int, float, complex, bool, type(None))


def shared_name_of(function: Any, bytes_most: int | None, parameter: str = "shared") -> str:
    """Return a name that only the same function has: in the same module and file, with its code.

    Parameters
    ----------
    function : object
        What `cached` decorates.
    bytes_most : int or None
        The bytes that a name may have. None: any number.
    parameter : str
        The parameter by which users name it themselves, for the message.

    Raises
    ------
    TypeError
        If the function's results depend on more than that and its arguments.

    """
    import hashlib  # OpenSSL's, which takes long to load; few programs share caches

    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    code = getattr(function, "__code__", None)
    if isinstance(code, CodeType):
        if code.co_freevars:
            raise TypeError(
                f"{name_of(function)} uses variables of the function around it "
                f"({', '.join(code.co_freevars)}), and other processes can't tell whether "
                f"theirs are the same: give it a name of its own, {parameter}='name'"
            )
        _add_code(digest, code)
        for default in (function.__defaults__, function.__kwdefaults__):
            digest.update(_described(default).encode())
    elif type(function).__name__ != "builtin_function_or_method":
        raise TypeError(
            f"{function!r} is no plain function, and other processes can't tell whether theirs is "
            f"the same: give it a name of its own, {parameter}='name'"
        )
    ending = f"#{digest.hexdigest()}"
    name = name_of(function).encode()
    if bytes_most is not None:
        name = name[-(bytes_most - len(ending)) :]
    return name.decode(errors="ignore") + ending


def _identity_of(function: Any) -> str:
    """Return the module and the name of a function, which are the same in all processes."""
    module = getattr(function, "__module__", None) or ""
    if module == "__mp_main__":  # so multiprocessing calls the program's module in its children
        module = "__main__"
    return f"{module}.{getattr(function, '__qualname__', type(function).__qualname__)}"


def name_with_function(name: str, function: Any) -> str:
    """Return a name that two functions with the same `name` do not have in common."""
    import hashlib  # see shared_name_of

    digest = hashlib.blake2b(_identity_of(function).encode(), digest_size=_DIGEST_BYTES)
    return f"{name}#{digest.hexdigest()}"


def check_shared_name(name: str, function: Any) -> None:
    """Raise ValueError if another function has this name: each would answer for the other."""
    taken = _taken.get(name)
    if taken is None or taken[1]() is None:
        return
    if taken[0] != (identity := _identity_of(function)):
        raise ValueError(
            f"{taken[0]} and {identity} have the same shared={name!r}, and each would return what "
            "the other has computed: give each function a name of its own"
        )


def take_shared_name(name: str, function: Any, cache: object) -> None:
    """Note whose name it is."""
    _taken[name] = _identity_of(function), weakref.ref(cache)


def _add_code(digest: Any, code: CodeType) -> None:
    parts = (sys.version, code.co_filename, code.co_qualname, code.co_names, code.co_varnames)
    digest.update(repr(parts).encode())
    digest.update(code.co_code)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            _add_code(digest, constant)
        else:
            digest.update(_described(constant).encode())


def _described(value: Any) -> str:
    """Return a text that is the same in all processes."""
    if isinstance(value, _PLAIN):
        return f"{type(value).__name__}:{value!r}"
    if isinstance(value, frozenset):  # in a hash's order otherwise
        return f"frozenset:{sorted(map(_described, value))}"
    if isinstance(value, tuple):
        return f"tuple:{[_described(item) for item in value]}"
    if isinstance(value, dict):
        return f"dict:{[(_described(k), _described(v)) for k, v in value.items()]}"
    kind = type(value)
    return f"{kind.__module__}.{kind.__qualname__}"
