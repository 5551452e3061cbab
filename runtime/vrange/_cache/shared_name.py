"""The name by which the processes of a service find the cache of a function."""

from __future__ import annotations

import sys
from types import CodeType
from typing import Any

from vrange._cache.options import name_of

__all__ = ["shared_name_of"]

_DIGEST_BYTES = 8
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
