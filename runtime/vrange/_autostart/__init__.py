"""What `vrange run` switches on inside the program; the hook calls it before the program starts.

Each part is switched on separately. If one fails, it is off, and the record contains the reason.
None of vrange's exceptions reaches the program, and the program needs no knowledge of vrange.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

from vrange._autostart.settings import Settings
from vrange._working_child import when_working

if TYPE_CHECKING:
    from vrange._autostart.record import Record

__all__ = ["start", "trims"]

_started: Record | None = None  # a second sitecustomize, or an embedding, calls start() twice


def start(told: Mapping[str, Any]) -> None:
    """Switch on what `told` asks for, once a process. Never raise.

    Parameters
    ----------
    told : Mapping[str, Any]
        The fields of Settings.

    Notes
    -----
    A child after fork keeps what was on. Threads start anew there once the child works, and the
    child's record begins at zero.

    Examples
    --------
    >>> start({"watch": False, "numpy": False, "trim_every": 0})

    """
    global _started
    if _started is not None:
        return
    try:
        from vrange._autostart.record import Record  # here: the command itself needs none of it

        settings = Settings.read(told)
        record = _started = Record(settings.records)
        _switch_on(settings, record)
    except Exception as error:
        _say(f"vrange run: {error}: the program runs without it\n")


def trims() -> int:
    """Return how many trims `vrange run` made in this process; 0 if it was started without it.

    Examples
    --------
    >>> trims()
    0

    """
    return 0 if _started is None else _started.trims


def _say(text: str) -> None:
    with suppress(Exception):  # standard error may be closed (None), or full
        sys.stderr.write(text)


def _switch_on(settings: Settings, record: Record) -> None:
    def part(name: str, switch: Callable[[], str]) -> None:
        try:
            record.parts[name] = switch()
        except Exception as error:
            record.parts[name] = f"off: {_reason(error)}"

    if settings.only_deep:
        _deepen(settings, record, part)
        return
    if settings.deep is not None:
        # Threads that the parts below start must not have gigabytes of stack each.
        part("deep", lambda: _usual_threads(settings))
    # The interpreter's own allocator first: arenas made before that stay out of its reach.
    part("interpreter", lambda: _interpreter(settings))
    part("segment", _segment)
    part("malloc", lambda: _malloc(settings))
    if record.parts["malloc"] == "on":
        part("arrow", lambda: _arrow(record))
    if settings.stacks:
        part("stacks", lambda: _stacks(record))
    if settings.rss:
        part("rss", _rss)
    if settings.numpy:
        part("numpy", lambda: _numpy(record))
    else:
        record.parts["numpy"] = "off: not asked for"
    if settings.watch:
        part("watcher", lambda: _watcher(record))
        # The child of a fork has no watcher.
        os.register_at_fork(
            after_in_child=lambda: when_working(lambda: part("watcher", lambda: _watcher(record)))
        )
    if settings.metrics is not None:
        address, port = settings.metrics
        part("metrics", lambda: _metrics(address, port))
        if record.parts["metrics"].startswith("off"):
            _say(f"vrange run: metrics are {record.parts['metrics']}\n")
    part("trims", lambda: _trims(settings, record))
    _deepen(settings, record, part)
    if settings.records is not None:
        atexit.register(record.at_exit)
        os.register_at_fork(after_in_child=record.after_fork)
        record.write()


def _reason(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError) and (error.name or "").startswith("vrange"):
        return f"this vrange has no {error.name}"
    return str(error) or type(error).__name__


def _usual_threads(settings: Settings) -> str:
    from vrange._autostart.deep import restore_default

    restore_default(settings.deep or "")
    return "off: not yet"


def _deepen(settings: Settings, record: Record, part: Callable[..., None]) -> None:
    if settings.deep is None:
        return
    from vrange._autostart.deep import deepen_program

    told = settings.deep
    part("deep", lambda: deepen_program(told))
    if record.parts["deep"].startswith("off"):
        _say(f"vrange run: --deep is {record.parts['deep']}\n")


def _interpreter(settings: Settings) -> str:
    if settings.heap == "libc":
        return "libc's malloc (PYTHONMALLOC=malloc)"
    if settings.mimalloc:
        return f"mimalloc, which {settings.mimalloc}"
    import_module("vrange.heap.interpreter").enable()
    return "on"


def _malloc(settings: Settings) -> str:
    if not settings.malloc:
        return f"off: {settings.malloc_refused or 'not asked for'}"
    from vrange._core import lib

    return "on" if lib.vrange_malloc_is_served() else "off: another allocator serves the program"


def _arrow(record: Record) -> str:
    from vrange._autostart.arrow import allocate_by_malloc

    def tell(what: str) -> None:
        record.parts["arrow"] = what
        record.write()

    return allocate_by_malloc(tell)


def _segment() -> str:
    from vrange._core import ffi, lib

    refusal = lib.vrange_segment_refusal()
    if refusal == ffi.NULL:
        return "on"
    return f"off: {ffi.string(refusal).decode(errors='replace')}"


def _stacks(record: Record) -> str:
    from vrange._autostart.threads import register_executors

    register_executors(record)
    return "on, for executors' threads"


def _rss() -> str:
    import_module("vrange.heap").return_idle()
    return "on"


def _numpy(record: Record) -> str:
    from vrange._when_imported import when_imported

    def use() -> None:
        try:
            import_module("vrange.heap").use_for_numpy(new_threads=True)
            record.parts["numpy"] = f"on, NumPy {sys.modules['numpy'].__version__}"
        except Exception as error:
            record.parts["numpy"] = f"off: {_reason(error)}"
        record.write()

    if "numpy" in sys.modules:
        use()
        return record.parts["numpy"]
    when_imported("numpy", use)
    return "ready, NumPy wasn't imported"


def _watcher(record: Record) -> str:
    record.watcher = None
    quiet = import_module("vrange.pressure.watched_cgroups").quiet
    before = quiet.set(True)  # the record says if a cgroup can't be read
    try:
        record.watcher = import_module("vrange.pressure").watch()
    finally:
        quiet.reset(before)
    return "on"


def _metrics(address: str, port: int) -> str:
    from vrange import metrics

    server = metrics.serve(port, address, processes="group")
    return f"on, http://{address}:{server.port}/metrics"


def _trims(settings: Settings, record: Record) -> str:
    from vrange._autostart.trimmer import Trimmer

    Trimmer(settings, record).start()
    if settings.trim_every == 0:
        return "off: not asked for"
    if settings.trim_every is None:
        return "on"
    return f"on, every {settings.trim_every:g} s"
