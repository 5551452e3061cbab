"""One call that returns to the system what allocators hold and nothing uses."""

from __future__ import annotations

import _thread
import gc
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal, Self

from vrange._core import lib
from vrange.heap import allocators, interpreter, pools, trim_lock
from vrange.sizes import format_bytes

Deep = Literal[False, True, "holes"]


class Trimmed(int):
    """The bytes that were returned to the system: an int, with the parts that it sums.

    Attributes
    ----------
    by_source : Mapping[str, int]
        The bytes by source, for every source that was asked.
    refused : Mapping[str, str]
        Why a source returned nothing, or not everything.
    later : tuple[str, ...]
        The sources that a thread in the background is still asking. Their bytes are not in the sum.

    """

    by_source: Mapping[str, int]
    refused: Mapping[str, str]
    later: tuple[str, ...]

    def __new__(
        cls, by_source: Mapping[str, int], refused: Mapping[str, str], later: tuple[str, ...] = ()
    ) -> Self:
        """Create the sum of what each source returned."""
        self = super().__new__(cls, sum(by_source.values()))
        self.by_source, self.refused, self.later = by_source, refused, later
        return self

    def __repr__(self) -> str:
        parts = [f"{name} {format_bytes(count)}" for name, count in self.by_source.items()]
        parts += [f"{name} refused" for name in self.refused if name not in self.by_source]
        parts += [f"{name} later" for name in self.later]
        return f"<Trimmed {format_bytes(self)}: {', '.join(parts) or 'nothing to ask'}>"


def trim(deep: Deep = False, *, collect: bool = True) -> Trimmed:
    """Return what the process's allocators hold and nothing uses to the system.

    These sources are asked, each through its own call:

    - "stacks": the stacks of `vrange.deep_call` that nothing runs on, and those of registered
      threads that are blocked;
    - "arrays": freed array data, after `use_for_numpy`;
    - "pyarrow": the pools of libraries that are imported;
    - "glibc", "jemalloc", "mimalloc", "tcmalloc": the allocators behind malloc that are loaded.

    Cached values, volatile arrays and ranges are left alone: the kernel reclaims those when it
    needs memory.

    Parameters
    ----------
    deep : bool or "holes", default False
        If True, collect garbage first, and trim the interpreter's own allocator ("pymalloc") if
        `vrange.heap.interpreter.enable` was called. If "holes", also discard whole pages between
        its objects; their pools then lose these pages until the last object of each pool is freed.
    collect : bool, default True
        Whether a deep trim collects garbage first (`gc.collect`), which runs finalizers on this
        thread. The trims of `vrange run` leave that to the program.

    Returns
    -------
    Trimmed
        The returned bytes, an int with `by_source`, `refused` and `later`. For stacks and pymalloc,
        these are the bytes of the discarded pages. For the others, they are the decrease of the
        process's RSS during the call, so what other threads do meanwhile disturbs the figure.

    Raises
    ------
    ValueError
        If `deep` is none of these values.

    Notes
    -----
    Any thread may call it; one trim runs at a time. It takes milliseconds, or tens of milliseconds
    for a large heap. Therefore, on the thread of a running asyncio event loop, it asks only the
    quick sources, and a thread in the background asks the others (`later`). To wait for all and get
    all figures, use `await asyncio.to_thread(vrange.heap.trim, True)`. Other threads wait for the
    GIL for at most 2 ms while pymalloc is trimmed. In the child of a fork it works as in the
    parent.

    References
    ----------
    malloc_trim(3), jemalloc(3), mi_collect of mimalloc, MallocExtension of gperftools

    Examples
    --------
    >>> import vrange.heap
    >>> trimmed = vrange.heap.trim()
    >>> int(trimmed) == sum(trimmed.by_source.values())
    True

    """
    if deep not in (False, True, "holes"):
        raise ValueError(f"deep must be False, True or 'holes', not {deep!r}")
    sources = _sources(deep, collect)
    if not _is_on_event_loop():
        return Trimmed(*_ask(sources))
    at_once = {"stacks", "arrays", *allocators.of_the_calling_thread()}
    slow = {name: ask for name, ask in sources.items() if name not in at_once}
    quick = {name: ask for name, ask in sources.items() if name in at_once}
    try:
        return Trimmed(*_ask_unless_busy(quick), later=tuple(slow))
    finally:
        # threading.Thread.start waits for ever for a thread that gets no memory for its beginning.
        _thread.start_new_thread(_ask_later, (slow,))


# ---- the sources: each is a call that returns its bytes and what it refused ----------------------

_Source = Callable[[], tuple[int, str | None]]


def _sources(deep: Deep, collect: bool) -> dict[str, _Source]:
    # Trim pools before the allocators to which they return their memory.
    sources: dict[str, _Source] = {"stacks": _trim_stacks, "arrays": _trim_arrays}
    sources |= {name: _measured(release) for name, release in pools.imported().items()}
    if deep:
        sources["pymalloc"] = lambda: _trim_interpreter(deep, collect)
    sources |= {name: _told(release) for name, release in allocators.loaded().items()}
    return sources


def _trim_stacks() -> tuple[int, str | None]:
    return int(lib.vrange_stacks_trim()), None


def _trim_arrays() -> tuple[int, str | None]:
    return int(lib.vrange_heap_trim()), None


def _trim_interpreter(deep: Deep, collect: bool) -> tuple[int, str | None]:
    if collect:
        gc.collect()  # a full collection, which also empties the interpreter's free lists
    interpreter.clear_caches()
    return interpreter.trim(holes=deep == "holes")


def _told(release: Callable[[], int]) -> _Source:
    return lambda: (release(), None)


def _measured(release: Callable[[], Any]) -> _Source:
    def ask() -> tuple[int, str | None]:
        before = lib.vrange_resident_bytes()
        try:
            release()
        except Exception as error:  # foreign code must not stop the other sources
            return 0, repr(error)
        return max(0, before - lib.vrange_resident_bytes()), None

    return ask


# ---- asking them ---------------------------------------------------------------------------------


def _ask(sources: Mapping[str, _Source]) -> tuple[dict[str, int], dict[str, str]]:
    with trim_lock.lock:
        return _ask_each(sources)


def _ask_later(sources: Mapping[str, _Source]) -> None:
    lib.vrange_thread_name(b"vrange-trim")
    _ask(sources)


def _ask_unless_busy(sources: Mapping[str, _Source]) -> tuple[dict[str, int], dict[str, str]]:
    if not trim_lock.lock.acquire(blocking=False):
        return {}, dict.fromkeys(sources, "another thread is trimming")
    try:
        return _ask_each(sources)
    finally:
        trim_lock.lock.release()


def _ask_each(sources: Mapping[str, _Source]) -> tuple[dict[str, int], dict[str, str]]:
    started = time.perf_counter_ns()
    by_source: dict[str, int] = {}
    refused: dict[str, str] = {}
    for name, ask in sources.items():
        count, reason = ask()
        if count or reason is None:
            by_source[name] = count
        if reason is not None:
            refused[name] = reason
    if any(by_source.values()):
        lib.vrange_heap_trimmed(time.perf_counter_ns() - started)
    return by_source, refused


def _is_on_event_loop() -> bool:
    asyncio = sys.modules.get("asyncio")  # if it is not imported, there is no loop
    if asyncio is None:
        return False
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
