"""Keys of calls without the arguments that do not change the result."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable
from typing import Any

from vrange._cache.calls import MakeKey

_BY_POSITION = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD


def ignoring(
    make_key: MakeKey,
    function: Callable[..., Any],
    names: tuple[str, ...],
    *,
    drops_first: bool,
) -> MakeKey:
    """Return a function that makes keys of calls of `function` without the parameters `names`.

    With `drops_first`, it is called without the first argument. Raises TypeError if the function
    has no such parameters.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise TypeError(f"ignore needs a signature, and {function!r} has none") from error
    parameters = signature.parameters
    kinds = {parameter.kind: name for name, parameter in parameters.items()}
    all_positional = kinds.get(inspect.Parameter.VAR_POSITIONAL)
    all_named = kinds.get(inspect.Parameter.VAR_KEYWORD)
    for name in names:
        if name not in parameters and all_named is None:
            qualname = getattr(function, "__qualname__", repr(function))
            raise TypeError(
                f"ignore names {name!r}, which is no parameter of {qualname}{signature}"
            )
    by_position = [name for name, one in parameters.items() if one.kind in _BY_POSITION]
    by_position = by_position[drops_first:]
    dropped = {place for place, name in enumerate(by_position) if name in names}
    most = len(by_position) if all_positional in names else None

    def make(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hashable:
        kept = tuple(value for i, value in enumerate(args[:most]) if i not in dropped)
        named = {
            name: value
            for name, value in kwargs.items()
            if name not in names and (name in parameters or all_named not in names)
        }
        return make_key(kept, named)

    return make
