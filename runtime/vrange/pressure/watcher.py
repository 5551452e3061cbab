"""The watcher: what it is told, what it tells, and the thread that acts on a change."""

from __future__ import annotations

import asyncio
import atexit
import errno
import inspect
import os
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from vrange._core import ffi, lib
from vrange.errors import VrangeError
from vrange.pressure.actions import ACTIONS, Action, Actions
from vrange.pressure.callbacks import (
    Callback,
    CallbackInfo,
    Level,
    LevelChange,
    LoopCallback,
    OnLevel,
    ThreadCallback,
)
from vrange.pressure.places import Places
from vrange.pressure.seen import level_of, read_watcher
from vrange.pressure.threads import Thread
from vrange.reserve import watch_limits
from vrange.segment import PRESSURE_LEVELS
from vrange.sizes import format_bytes

__all__ = ["Level", "PressureInfo", "Watcher", "current", "watch"]

_FOR_EVER = (1 << 62) - 1
_CLOSE_PATIENCE_SECONDS = 2.0
_RANK = {"normal": 1, "elevated": 2, "critical": 3}

_lock = threading.Lock()  # of starting and closing
_current: Watcher | None = None


@dataclass(frozen=True)
class PressureInfo:
    """What a watcher sees and did.

    `used_bytes` are `usage_bytes`, which the kernel counts, without what can be taken at once:
    clean file pages, offered and idle bytes. `source` is the directory of the cgroup whose limit is
    nearest, or "machine"; `watched` all of them; `refused` those that can't be read, and why.
    `done`, `skipped` (put off: done a moment ago), `returned_bytes` are by action; `failed` has the
    last reason. `polls` looks took `busy_seconds` of processor time.
    """

    running: bool
    level: Level | None
    usage_bytes: int
    used_bytes: int
    limit_bytes: int
    stalled: float
    source: str
    watched: tuple[str, ...]
    refused: dict[str, str]
    changes: int
    growths: int
    done: dict[str, int]
    skipped: dict[str, int]
    failed: dict[str, str]
    returned_bytes: dict[str, int]
    hot_grown: int
    callbacks: tuple[CallbackInfo, ...]
    polls: int
    read_errors: int
    busy_seconds: float


class Watcher:
    """The running watcher of this process, made by `watch`. A context manager.

    Any thread may use it. In the child of a fork it is closed, `level` is None, and `watch` starts
    another.
    """

    def __init__(self, places: Places, settings: Any, actions: Actions) -> None:
        self._places = places
        self._settings = settings
        self._actions = actions
        self._callbacks: list[Callback] = []
        self._closed = False
        self._thread: Thread | None = None
        self._acted_on: Level = "normal"  # the level that the thread which acts has seen

    @property
    def level(self) -> Level | None:
        """The level now; None once closed, and in the child of a fork."""
        return None if self._closed else level_of(read_watcher())

    def info(self) -> PressureInfo:
        """What it sees and did so far. Some microseconds; reads no files."""
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
        """Stops watching and lets the hot fronts grow back. Closing twice is allowed.

        A callback that runs is waited for up to two seconds; it is not called again.
        """
        global _current
        with _lock:
            if self._closed:
                return
            self._closed = True
            lib.vrange_pressure_stop()
            if _current is self:
                _current = None
        if self._thread is not None:
            self._thread.join(_CLOSE_PATIENCE_SECONDS)
        for callback in self._callbacks:
            callback.close(_CLOSE_PATIENCE_SECONDS)
        self._actions.close()

    def __enter__(self) -> Watcher:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        now = self.info()
        if not now.running:
            return "<vrange.pressure.Watcher, closed>"
        return (
            f"<vrange.pressure.Watcher: {now.level}, {format_bytes(now.used_bytes)} of "
            f"{format_bytes(now.limit_bytes)} in use in {now.source}>"
        )

    # ---- the thread that acts --------------------------------------------------------------------

    def _start(self) -> None:
        self._thread = Thread("vrange-pressure", self._run)

    def _run(self) -> None:
        # From the beginning: a level that is up already is a change.
        rank, growths, turn = _RANK["normal"], 0, 0
        while not self._closed:
            now = read_watcher()
            if not now.running:
                return
            turn = now.turn
            if now.moved:
                self._follow()
            before, rank = rank, now.level
            if rank > before or (now.growths != growths and rank > _RANK["normal"]):
                self._actions.ask()
            elif rank < before:
                self._actions.relax(PRESSURE_LEVELS[rank])
            growths = now.growths
            # First: what the user does may not wait for what we do.
            waits = [self._tell(now, rank != before)]
            waits.append(self._actions.run(PRESSURE_LEVELS[rank]))
            self._acted_on = level_of(now) or "normal"
            wait = min((seconds for seconds in waits if seconds is not None), default=None)
            timeout = _FOR_EVER if wait is None else int(wait * 1e9) + 1_000_000
            lib.vrange_pressure_wait(turn, timeout)

    def _follow(self) -> None:
        watch_limits()
        try:
            self._places.tell()
        except (OSError, RuntimeWarning) as error:
            # Cgroups come and go faster than they are read: what was watched stays.
            self._places.refused["moved"] = str(error)

    def _tell(self, now: Any, changed: bool) -> float | None:
        """Offers the level to each callback that doesn't know it; seconds until one may hear."""
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
    """The watcher of this process; None where none runs."""
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
    """Starts to watch how near this process's memory limit is, and gives way as it comes nearer.

    The limit is that of the process's cgroup or of any around it, whichever is nearest to being
    reached; the machine's memory where none has one. Limits that change and a process that is moved
    are followed. What is in use is usage without what the kernel can take at once.

    Parameters
    ----------
    elevated, critical : float
        The shares of the limit at which these levels begin.
    hysteresis : float
        A level is left this much below the share that it began at.
    stalled : float
        Elevated is critical once tasks wait for memory for this share of the time (PSI). 1: never.
    interval : float
        Seconds between looks, by a native thread; twice that while less than half of what would be
        elevated is used. A look takes some 20 to 120 µs, by how many cgroups there are.
    min_interval : float
        Seconds that pass at least between two runs of an action, and two calls of a callback. What
        comes sooner is put off, not lost.
    actions : of "hot", "stacks", "heap"
        What is done when the level rises, and again when usage goes on to grow while it is up: hot
        fronts of caches shrink to half (elevated) or nothing (critical), and may grow back as the
        level falls; idle stacks are trimmed; the heap is trimmed, deeply if critical.
    on_level : callable or several
        Told a `LevelChange`, up and down. Each is called on a thread of its own. It is not called
        again while it runs, and then told the level of that moment; it delays nobody else. What it
        raises goes to threading.excepthook, is counted, and ends nothing.
    loop : event loop
        Callbacks run there instead, and may be coroutine functions. What they raise goes to the
        loop's exception handler.
    proc_self : path
        The directory with `cgroup` and `mountinfo`; for tests.

    Returns
    -------
    Watcher
        It runs until it is closed or the interpreter ends.

    Raises
    ------
    VrangeError
        One runs in this process already (`current()` is it); no thread can be had; nothing that
        tells of memory can be read. A cgroup that can't be read is left out with a RuntimeWarning
        and stands in ``info().refused``.
    ValueError, TypeError
        Bad arguments; a coroutine function without a loop.

    Notes
    -----
    No Python runs while the level does not change. The child of a fork has no watcher: call this
    again there. With gevent's patches, callbacks run on real threads, not greenlets. Sources: the
    kernel's cgroup-v2.rst, cgroup-v1/memory.rst and psi.rst.

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
    _check_shares(elevated, critical, hysteresis, stalled)
    seconds = {"interval": (interval, 0.001, 60.0), "min_interval": (min_interval, 0.0, 86400.0)}
    for name, (value, least, most) in seconds.items():
        if not _is_number(value) or not least <= value <= most:
            raise ValueError(f"{name} must be {least:g} to {most:g} seconds, not {value!r}")
    which = _checked_actions(actions)
    functions = _checked_functions(on_level, loop)
    settings = ffi.new("vrange_pressure_settings *")
    settings.interval_ns = int(interval * 1e9)
    settings.again_ns = int(min_interval * 1e9)
    settings.elevated, settings.critical = elevated, critical
    settings.hysteresis, settings.stalled = hysteresis, stalled
    with _lock:
        if _current is not None:
            raise VrangeError(f"{_current!r} runs in this process already: close it first")
        places = Places(Path(proc_self))
        watcher = Watcher(places, settings, Actions(which, min_interval))
        places.tell()
        try:
            # Threads first: the native one is then the only thing that can fail.
            for function in functions:
                watcher._callbacks.append(
                    ThreadCallback(function, min_interval)
                    if loop is None
                    else LoopCallback(function, min_interval, loop)
                )
            result = lib.vrange_pressure_start(
                settings, str(Path(proc_self) / "cgroup").encode(), b"/proc/pressure/memory"
            )
            if result == -errno.ENODATA:
                raise VrangeError("neither a cgroup's memory nor the machine's can be read here")
            if result < 0:
                raise VrangeError(f"no thread can be started to watch: {os.strerror(-result)}")
            watcher._start()
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


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_shares(elevated: float, critical: float, hysteresis: float, stalled: float) -> None:
    shares = {"elevated": elevated, "critical": critical, "stalled": stalled}
    for name, value in shares.items():
        if not _is_number(value) or not 0 < value <= 1:
            raise ValueError(f"{name} must be more than 0 and at most 1, not {value!r}")
    if elevated >= critical:
        raise ValueError(f"elevated ({elevated:g}) must be less than critical ({critical:g})")
    if not _is_number(hysteresis) or not 0 <= hysteresis < elevated:
        raise ValueError(f"hysteresis must be 0 or more and below elevated, not {hysteresis!r}")


def _checked_actions(actions: Iterable[Action]) -> tuple[Action, ...]:
    given = [actions] if isinstance(actions, str) else list(actions)
    unknown = [action for action in given if action not in ACTIONS]
    if unknown:
        raise ValueError(f"actions are of {', '.join(map(repr, ACTIONS))}, not {unknown[0]!r}")
    return tuple(action for action in ACTIONS if action in given)


def _checked_functions(
    on_level: OnLevel | Iterable[OnLevel] | None, loop: asyncio.AbstractEventLoop | None
) -> list[OnLevel]:
    if loop is not None and not isinstance(loop, asyncio.AbstractEventLoop):
        raise TypeError(f"loop must be an event loop, not {loop!r}")
    if loop is not None and loop.is_closed():
        raise ValueError(f"loop is closed: {loop!r}")
    if on_level is None:
        return []
    functions: list[Any] = [on_level] if callable(on_level) else list(on_level)
    for function in functions:
        if not callable(function):
            raise TypeError(f"on_level must be callable, not {function!r}")
        if loop is None and inspect.iscoroutinefunction(function):
            raise TypeError(f"{function!r} is a coroutine function: pass the loop= it is to run on")
    return functions


def _after_fork_in_child() -> None:
    global _lock, _current
    _lock = threading.Lock()  # another thread of the parent may have held it
    watcher, _current = _current, None
    if watcher is not None:
        watcher._closed = True
        watcher._actions.close()


def _at_exit() -> None:
    # Before the interpreter is taken down under the threads that wait.
    if _current is not None:
        _current.close()


os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_at_exit)
