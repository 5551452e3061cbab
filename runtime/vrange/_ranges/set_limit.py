"""The memory limit of this process: the one that applies, and one that the program sets itself."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Literal

from vrange._cgroup.limits import Source
from vrange._cgroup.limits import memory_limit as tightest_limit
from vrange._core import lib
from vrange._ranges.limit_finders import find_limits
from vrange._ranges.reserve import follow_limit
from vrange.sizes import format_bytes, parse_bytes

__all__ = ["ByteLimit", "memory_limit", "on_change", "on_read", "put_limit", "set_limit"]

_lock = threading.Lock()
_followers: list[Callable[[], object]] = [follow_limit]
_lookers: list[Callable[[], object]] = []
_limits: dict[str, tuple[int, int]] = {}  # by what set it; the tightest applies
_applied = (0, 0)


class ByteLimit(int):
    """A number of bytes that says where it comes from.

    Attributes
    ----------
    source : {"cgroup v2", "cgroup v1", "machine", "RLIMIT_AS", "RLIMIT_DATA", "set_limit"}
        What has the limit.
    path : str or None
        The directory of the cgroup that has it; None if it is no cgroup's.

    """

    source: Source
    path: str | None

    def __new__(
        cls, limit_bytes: int, source: Source = "machine", path: str | None = None
    ) -> ByteLimit:
        """Make one."""
        made = super().__new__(cls, limit_bytes)
        made.source = source
        made.path = path
        return made

    def __repr__(self) -> str:
        where = self.source if self.path is None else f"{self.source}, {self.path}"
        return f"<{int(self)} bytes ({format_bytes(int(self))}) by {where}>"

    def __str__(self) -> str:
        return int.__repr__(self)


def memory_limit() -> ByteLimit:
    """Return how much memory this process may use, in bytes.

    It is the tightest of the limits of all cgroups around the process (v1 and v2), RLIMIT_AS,
    RLIMIT_DATA, what `set_limit` was given, the limit of a Dask worker in this process (its source
    is "set_limit" as well), and the machine's memory.

    Returns
    -------
    int
        The limit. Its attributes `source` and `path` tell what has it.

    Notes
    -----
    The limits are read at each call, because they change while processes run. That takes some tens
    of microseconds. memory.high of a v2 cgroup counts as a limit, because a process above it is
    slowed down.

    Examples
    --------
    >>> import vrange
    >>> limit = vrange.memory_limit()
    >>> workers = max(1, limit // (512 << 20))
    >>> limit.source in ("machine", "cgroup v1", "cgroup v2", "RLIMIT_AS", "RLIMIT_DATA")
    True

    """
    find_limits()
    for look in _lookers:
        look()
    found = tightest_limit()
    return ByteLimit(found.limit_bytes, found.source, found.path)


def set_limit(bytes: int | str | None, *, measure: Literal["rss"] = "rss") -> None:
    """Set how much memory this process may use, for a process that is judged by another one.

    Dask's nanny, supervisord's memmon and uWSGI's reload-on-rss look at the resident set (RSS) of a
    process and end it if that is too large. They know nothing of memory that the kernel could take,
    and the kernel knows nothing of their limit. So near this limit vrange itself discards the least
    valuable of what is volatile.

    Parameters
    ----------
    bytes : int or str or None
        The limit, such as ``"400MiB"``. None removes it. The limits of cgroups, of the process and
        of the machine apply all the same.
    measure : "rss"
        What is limited: the resident set, in which bytes that are offered to the kernel count
        until it has taken them.

    Raises
    ------
    ValueError, TypeError
        If `bytes` is not a size or is 0, or if `measure` is something else.

    Notes
    -----
    Give a limit below that of the judge: vrange gives way, but what the program itself holds can
    be more than the limit. The reserve (`set_reserve`) is kept free below it, by default an eighth
    of the limit, and the automatic bounds of caches follow it. Deep calls stop before it. Every
    thread may call this at any time; the child of a fork keeps the limit, for its own resident
    set. A Dask worker needs no call: vrange finds its limit.

    Examples
    --------
    >>> import vrange
    >>> vrange.set_limit("400MiB", measure="rss")
    >>> vrange.memory_limit() == 400 << 20
    True
    >>> vrange.set_limit(None)

    """
    if measure != "rss":
        raise ValueError(f'measure must be "rss", not {measure!r}')
    wanted = 0 if bytes is None else parse_bytes(bytes, "bytes")
    if bytes is not None and wanted == 0:
        raise ValueError("bytes must be more than 0, or None for no limit of your own")
    put_limit("set_limit", wanted or None)


def put_limit(setter: str, limit_bytes: int | None, *, most_bytes: int = 0) -> None:
    """Set or remove (None) one limit on the resident set. Those of other setters stay.

    Parameters
    ----------
    setter : str
        What sets it.
    limit_bytes : int or None
        The limit.
    most_bytes : int, default 0
        Up to here a copy that will be offered may exceed the limit for a moment; 0 if the judge
        counts the bytes that are offered to the kernel. If one judge of this process counts them,
        they count.

    """
    global _applied
    with _lock:
        if limit_bytes is None:
            _limits.pop(setter, None)
        else:
            _limits[setter] = limit_bytes, most_bytes
        tightest = min((limit for limit, _ in _limits.values()), default=0)
        most = min((most for _, most in _limits.values()), default=0)
        if (tightest, most) == _applied:
            return
        lib.vrange_set_limit(tightest, most)
        _applied = tightest, most
        for follow in _followers:
            follow()
    if tightest:
        # What was offered before counts, and nothing else would take it.
        lib.vrange_heap_trim()
        lib.vrange_stacks_trim_pooled()


def on_read(look: Callable[[], object]) -> None:
    """Call `look` before the limit is read, to see whether what it found still applies."""
    _lookers.append(look)


def on_change(follow: Callable[[], object]) -> None:
    """Call `follow` whenever a limit was set; for the rooms above, whose bounds follow it."""
    _followers.append(follow)


def _forget_lock() -> None:
    global _lock
    _lock = threading.Lock()  # another thread of the parent may have held the old one


os.register_at_fork(after_in_child=_forget_lock)
