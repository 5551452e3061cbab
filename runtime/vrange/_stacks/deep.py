"""Deep recursion on stacks whose memory is returned afterwards.

A deep call runs a function on a pooled stack of any size, inside the calling thread. Meanwhile the
recursion limits of this thread are raised to what that stack holds. When the call is over, the
memory that it used is offered to the kernel, discarded or kept, as `DeepStack.release` says.

>>> import functools, vrange
>>> @functools.cache
... def steps(n):
...     return 0 if n == 0 else 1 + steps(n - 1)
>>> vrange.deep_call(steps, 50_000)
50000
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, ParamSpec, TypeVar, overload

from vrange._core import deep, lib, names
from vrange.sizes import format_bytes, parse_bytes

Release = Literal["volatile", "now", "keep"]

P = ParamSpec("P")
T = TypeVar("T")

_RELEASES = {name: number for number, name in enumerate(names(lib.VRANGE_NAMES_RELEASES))}
_LEAST_BYTES = 256 * 1024
_MOST_BYTES = 1 << 62

deep_call = deep.deep_call
StackUnavailableError = deep.StackUnavailableError


def release_number(release: str) -> int:
    """Return the native number of a release policy; ValueError names the three policies."""
    try:
        return _RELEASES[release]
    except (KeyError, TypeError):
        known = ", ".join(repr(name) for name in _RELEASES)
        raise ValueError(f"release must be one of {known}, not {release!r}") from None


def _stack_bytes(stack: int | str) -> int:
    if stack == "auto":
        return 0
    size = parse_bytes(stack, "stack")
    if not _LEAST_BYTES <= size <= _MOST_BYTES:
        limits = f"{format_bytes(_LEAST_BYTES)} to {_MOST_BYTES:,} bytes"
        raise ValueError(f"stack must be {limits}, not {stack!r}")
    return size


class Settings(NamedTuple):
    """What native/python/stacks/deep.c reads of a stack, in this order."""

    nbytes: int  # 0: automatic
    release: int
    name: str


class DeepStack:
    """How deep calls get their stack and return its memory, and a method to call on such stacks.

    Parameters
    ----------
    stack : "auto" or int or str
        With ``"auto"`` (default) recursion goes as deep as memory allows: by the limits of the
        process, and by what is free below them as the recursion goes on. Otherwise address space
        in bytes, or a string such as ``"64MiB"``; at least 256 KiB. Recursion then goes as deep as
        that stack holds, whatever memory there is.
    release : "volatile", "now" or "keep"
        What is done with the memory that a call used, except for 64 KiB. ``"volatile"`` (default)
        offers it to the kernel, which takes it when memory is needed (MADV_FREE, madvise(2)); the
        next deep call finds most of it again. It counts as resident until it is taken. ``"now"``
        discards it at once (MADV_DONTNEED). ``"keep"`` leaves it, as a thread's stack does.
    name : str
        The stack's name in the message on standard error when it is used up.

    Raises
    ------
    TypeError, ValueError
        ``stack`` is not a size, or is too small; ``release`` is none of the three.

    Notes
    -----
    A `DeepStack` holds no memory, so one object can serve any number of threads, and it survives a
    fork. Stacks of equal size are pooled together, whichever object asked for them.

    Examples
    --------
    >>> import json, vrange
    >>> parsing = vrange.DeepStack("256MiB", release="now", name="parsing")
    >>> text = "[" * 50_000 + "]" * 50_000
    >>> nested = parsing.call(json.loads, text)
    >>> len(nested)
    1

    """

    __slots__ = ("_settings", "release")

    def __init__(
        self, stack: int | str = "auto", *, release: Release = "volatile", name: str = "deep"
    ) -> None:
        if not isinstance(name, str):
            raise TypeError(f"name must be a string, not {name!r}")
        self.release: Release = release
        self._settings = Settings(_stack_bytes(stack), release_number(release), name)

    @property
    def bytes(self) -> int | None:
        """Address space of one stack; None if memory alone decides (``"auto"``)."""
        return self._settings.nbytes or None

    @property
    def name(self) -> str:
        """The stack's name in messages."""
        return self._settings.name

    def call(self, f: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call ``f(*args, **kwargs)`` as `deep_call` does, and pass every keyword on to ``f``."""
        return deep.run(self._settings, f, *args, **kwargs)

    def __repr__(self) -> str:
        size = format_bytes(self.bytes) if self.bytes else "auto"
        return f"DeepStack({size!r}, release={self.release!r}, name={self.name!r})"


def _settings(stack: int | str | DeepStack) -> Settings:
    return (stack if isinstance(stack, DeepStack) else DeepStack(stack))._settings


deep.configure(_settings, DeepStack()._settings)


@overload
def deep_recursion(
    stack: int | str | DeepStack = ..., *, release: Release = ..., name: str | None = ...
) -> Callable[[Callable[P, T]], Callable[P, T]]: ...


@overload
def deep_recursion(stack: Callable[P, T]) -> Callable[P, T]: ...


def deep_recursion(
    stack: int | str | DeepStack | Callable[..., Any] = "auto",
    *,
    release: Release = "volatile",
    name: str | None = None,
) -> Any:
    """Make a function run on a deep stack whenever it is called from an ordinary one.

    If the function calls itself, or another such function calls it, it stays on the same stack.

    Parameters
    ----------
    stack : "auto" or int or str or DeepStack
        As for `DeepStack`; or a `DeepStack`, which then decides everything.
    release : "volatile", "now" or "keep"
        As for `DeepStack`.
    name : str, optional
        As for `DeepStack`; the function's own name by default.

    Returns
    -------
    callable
        The function that runs on a deep stack, or a decorator that makes it.

    Raises
    ------
    TypeError
        The decorated object is not callable, or is a coroutine function or a generator function,
        whose body would run outside of the deep call. Decorate the ordinary function that recurses
        instead.
    ValueError
        As for `DeepStack`.

    Examples
    --------
    >>> import vrange
    >>> @vrange.deep_recursion(stack="64MiB")
    ... def depth(tree):
    ...     return 0 if tree is None else 1 + depth(tree[0])
    >>> tree = None
    >>> for _ in range(20_000):
    ...     tree = [tree]
    >>> depth(tree)
    20000

    """
    if isinstance(stack, classmethod) or (callable(stack) and not isinstance(stack, DeepStack)):
        return deep_recursion()(stack)
    size: int | str | DeepStack = stack

    def decorate(f: Any) -> Any:
        if isinstance(f, (staticmethod, classmethod)):
            return type(f)(decorate(f.__func__))
        if not callable(f):
            raise TypeError(f"deep_recursion decorates a callable, not {f!r}")
        for is_kind, kind in (
            (inspect.iscoroutinefunction, "a coroutine function"),
            (inspect.isasyncgenfunction, "an async generator function"),
            (inspect.isgeneratorfunction, "a generator function"),
        ):
            if is_kind(f):
                raise TypeError(
                    f"{f!r} is {kind}: its body runs after the call returns, outside of the "
                    "deep call. Decorate the ordinary function that recurses"
                )
        called = name or str(getattr(f, "__qualname__", "deep"))
        how = size if isinstance(size, DeepStack) else DeepStack(size, release=release, name=called)
        settings, run = how._settings, deep.run

        @functools.wraps(f)
        def on_deep_stack(*args: Any, **kwargs: Any) -> Any:
            return run(settings, f, *args, **kwargs)

        return on_deep_stack

    return decorate
