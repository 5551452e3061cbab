"""The watcher, and the thread that acts on a change."""

from __future__ import annotations

import atexit
import errno
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vrange._closing import Closing
from vrange._core import lib
from vrange._counters.names import PRESSURE_LEVELS
from vrange._paused_thread import PausedThread
from vrange.errors import VrangeError
from vrange.pressure.actions import ACTIONS, Action, Actions
from vrange.pressure.callbacks import (
    Callback,
    Level,
    LevelChange,
    LoopCallback,
    OnLevel,
    ThreadCallback,
)
from vrange.pressure.info import PressureInfo
from vrange.pressure.levels import level_of, read_watcher
from vrange.pressure.settings import checked_actions, checked_functions, native_settings
from vrange.pressure.watched_cgroups import Places
from vrange.sizes import format_bytes

if TYPE_CHECKING:
    import asyncio

__all__ = ["Level", "PressureInfo", "Watcher", "current", "watch"]

_FOR_EVER = (1 << 62) - 1
_CLOSE_PATIENCE_SECONDS = 2.0

_lock = threading.Lock()  # held while a watcher is started or closed
_current: Watcher | None = None


class Watcher(Closing):
    """The running watcher of this process, made by `watch`. A context manager.

    Notes
    -----
    Any thread may use it. In the child of a fork it is closed and `level` is None; there, `watch`
    starts another one.

    """

    def __init__(self, places: Places, settings: Any, actions: Actions) -> None:
        self._places = places
        self._settings = settings
        self._actions = actions
        self._callbacks: list[Callback] = []
        self._closed = False
        self._thread = PausedThread("vrange-pressure", self._run, lib.vrange_pressure_poke)
        # Start from normal, so that a level that is up already counts as a change.
        self._rank, self._growths = lib.VRANGE_PRESSURE_NORMAL, 0
        self._acted_on: Level = "normal"  # the last level that the acting thread has handled

    @property
    def level(self) -> Level | None:
        """The level now; None once it is closed, and in the child of a fork."""
        return None if self._closed else level_of(read_watcher())

    def info(self) -> PressureInfo:
        """Return its state and what it has done so far.

        Returns
        -------
        PressureInfo
            A snapshot. It takes some microseconds and reads no files.

        """
        now = read_watcher()
        actions = self._actions
        return PressureInfo(
            running=not self._closed and bool(now.running),
            level=None if self._closed else level_of(now),
            usage_bytes=now.usage_bytes,
            used_bytes=now.used_bytes,
            limit_bytes=now.limit_bytes,
            stalled=now.stalled,
            source=self._places.name(now.place),
            watched=tuple(self._places.directories) or ("machine",),
            refused=dict(self._places.refused),
            changes=now.changes,
            growths=now.growths,
            done=dict(actions.done),
            skipped=dict(actions.skipped),
            failed=dict(actions.failed),
            returned_bytes=dict(actions.returned_bytes),
            hot_grown=actions.grown,
            callbacks=tuple(callback.info() for callback in self._callbacks),
            polls=now.polls,
            read_errors=now.read_errors,
            busy_seconds=now.busy_ns * 1e-9,
        )

    def close(self) -> None:
        """Stop watching, and let the hot fronts grow back. A second call does nothing.

        If a callback is running, wait for it up to two seconds. It is not called again.
        """
        global _current
        with _lock:
            if self._closed:
                return
            self._closed = True
            lib.vrange_pressure_stop()
            if _current is self:
                _current = None
        self._thread.join(_CLOSE_PATIENCE_SECONDS)
        for callback in self._callbacks:
            callback.close(_CLOSE_PATIENCE_SECONDS)
        self._actions.close()

    def __repr__(self) -> str:
        now = self.info()
        if not now.running:
            return "<vrange.pressure.Watcher, closed>"
        return (
            f"<vrange.pressure.Watcher: {now.level}, {format_bytes(now.used_bytes)} of "
            f"{format_bytes(now.limit_bytes)} in use in {now.source}>"
        )

    # ---- the acting thread -----------------------------------------------------------------------

    def _run(self, thread: PausedThread) -> bool:
        """Act on changes until the watcher is closed. Return False for a pause."""
        while True:
            now = read_watcher()  # first: a pause or an end after it also ends the wait below
            if self._closed or not now.running:
                return True
            if thread.is_paused:
                return False
            if now.moved:
                self._follow()
            before, self._rank = self._rank, now.level
            is_up = self._rank > lib.VRANGE_PRESSURE_NORMAL
            if self._rank > before or (now.growths != self._growths and is_up):
                self._actions.ask(PRESSURE_LEVELS[self._rank])
            elif self._rank < before:
                self._actions.relax(PRESSURE_LEVELS[self._rank])
            self._growths = now.growths
            # Callbacks first: the user's reaction must not wait for the built-in actions.
            waits = [self._tell(now, self._rank != before)]
            waits.append(self._actions.run(PRESSURE_LEVELS[self._rank], now.used_bytes))
            self._acted_on = level_of(now) or "normal"
            wait = min((seconds for seconds in waits if seconds is not None), default=None)
            timeout = _FOR_EVER if wait is None else int(wait * 1e9) + 1_000_000
            lib.vrange_pressure_wait(now.turn, timeout)

    def _follow(self) -> None:
        try:
            self._places.tell()
        except (OSError, RuntimeWarning) as error:
            # Cgroups may come and go faster than they are read; then keep watching the old ones.
            self._places.refused["moved"] = str(error)

    def _tell(self, now: Any, changed: bool) -> float | None:
        """Call each callback that has not seen the level. Return the seconds until one is due."""
        level = level_of(now)
        assert level is not None
        waits = []
        for callback in self._callbacks:
            if callback.told == level:
                continue
            due = callback.due()
            if due == 0:
                callback.offer(
                    LevelChange(
                        level,
                        callback.told,
                        now.used_bytes,
                        now.limit_bytes,
                        now.stalled,
                        self._places.name(now.place),
                    )
                )
                continue
            if changed:
                callback.skip()
            if due is not None:
                waits.append(due)
        return min(waits, default=None)


def current() -> Watcher | None:
    """Return the watcher of this process, or None if none runs."""
    return _current


def watch(
    *,
    elevated: float = 0.85,
    critical: float = 0.95,
    hysteresis: float = 0.05,
    stalled: float = 0.1,
    interval: float = 0.1,
    min_interval: float = 1.0,
    actions: Iterable[Action] = ACTIONS,
    on_level: OnLevel | Iterable[OnLevel] | None = None,
    loop: asyncio.AbstractEventLoop | None = None,
    proc_self: str | os.PathLike[str] = "/proc/self",
) -> Watcher:
    """Watch how near this process's memory limit is, and give way as it comes nearer.

    The limit is that of the process's cgroup or of any cgroup around it, whichever is nearest to
    being reached; if none has a limit, it is the machine's memory. The watcher follows limits that
    change and a process that is moved. Usage counts without what the kernel can reclaim at once.

    Parameters
    ----------
    elevated, critical : float
        The fractions of the limit at which these levels begin.
    hysteresis : float
        A level ends this far below the fraction at which it began.
    stalled : float
        Elevated becomes critical once tasks wait for memory for this fraction of the time (PSI). 1
        means never.
    interval : float
        The seconds between two readings by a native thread; twice that while less than half of what
        would be elevated is used, and five times once that has not changed for a second. A reading
        takes 20 to 120 µs, depending on the number of cgroups.
    min_interval : float
        The least seconds between two runs of an action, and between two calls of a callback.
        Earlier ones are postponed, not lost.
    actions : iterable of {"hot", "stacks", "heap"}
        The actions when the level rises, and again when usage keeps growing while it is up. "hot":
        hot fronts of caches shrink to half (elevated) or to nothing (critical), and may grow back
        as the level falls. "stacks": idle stacks are trimmed. "heap": the heap is trimmed, deeply
        if the level is critical.
    on_level : callable or iterable of callables, optional
        Called with a `LevelChange` when the level rises or falls. Each callable runs on a thread of
        its own and delays no other. It is not called again while it runs; when it returns, it is
        called again if the level has changed meanwhile. Its exceptions go to threading.excepthook
        and are counted; they end nothing.
    loop : asyncio.AbstractEventLoop, optional
        Run the callbacks on this loop instead; they may then be coroutine functions. Their
        exceptions go to the loop's exception handler.
    proc_self : path
        The directory with `cgroup` and `mountinfo`; for tests.

    Returns
    -------
    Watcher
        It runs until it is closed or the interpreter ends.

    Raises
    ------
    VrangeError
        If a watcher already runs in this process (`current()` returns it), if no thread can be
        started, or if no figures about memory can be read. A cgroup that can't be read is left out
        with a RuntimeWarning, and is listed in ``info().refused``.
    ValueError, TypeError
        If an argument is invalid, or a coroutine function is given without a loop.

    Notes
    -----
    No Python runs while the level does not change. The child of a fork has no watcher: call this
    again there. With gevent's patches, callbacks run on real threads, not greenlets.

    References
    ----------
    The kernel's cgroup-v2.rst, cgroup-v1/memory.rst and psi.rst

    Examples
    --------
    >>> import vrange
    >>> watcher = vrange.pressure.watch(elevated=0.8, actions=["hot", "heap"])
    >>> vrange.pressure.current() is watcher
    True
    >>> watcher.close()
    >>> watcher.level is None
    True

    """
    global _current
    settings = native_settings(elevated, critical, hysteresis, stalled, interval, min_interval)
    which = checked_actions(actions)
    functions = checked_functions(on_level, loop)
    with _lock:
        if _current is not None:
            raise VrangeError(f"{_current!r} runs in this process already: close it first")
        places = Places(Path(proc_self))
        watcher = Watcher(places, settings, Actions(which, min_interval))
        places.tell()
        try:
            # Start the threads first; then only the native one can still fail.
            for function in functions:
                watcher._callbacks.append(
                    ThreadCallback(function, min_interval)
                    if loop is None
                    else LoopCallback(function, min_interval, loop)
                )
            result = lib.vrange_pressure_start(settings)
            if result == -errno.ENODATA:
                raise VrangeError("neither a cgroup's memory nor the machine's can be read here")
            if result < 0:
                raise VrangeError(f"no thread can be started to watch: {os.strerror(-result)}")
            watcher._thread.start()
        except BaseException as error:
            lib.vrange_pressure_stop()
            watcher._closed = True
            for callback in watcher._callbacks:
                callback.close(_CLOSE_PATIENCE_SECONDS)
            if isinstance(error, RuntimeError):
                raise VrangeError(f"no thread can be started to watch: {error}") from error
            raise
        _current = watcher
    return watcher


def _after_fork_in_child() -> None:
    global _lock, _current
    _lock = threading.Lock()  # another thread of the parent may have held the old one
    watcher, _current = _current, None
    if watcher is not None:
        watcher._closed = True
        watcher._actions.close()


def _at_exit() -> None:
    # Before the interpreter is torn down while the threads wait.
    if _current is not None:
        _current.close()


os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_at_exit)
