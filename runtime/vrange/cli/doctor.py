"""`vrange doctor`: what this machine lets vrange do, and what to change.

Everything is read anew, from inside this process, because a container may refuse what the machine
allows. A finding states a fact; if something better is available, it also says what to change.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import platform
import resource
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

import vrange
from vrange._cgroup.limits import MemoryLimit, memory_limit, memory_usage
from vrange._core import lib
from vrange._counters.names import RUNGS
from vrange._counters.stats import stats
from vrange._ranges.capabilities import capabilities
from vrange._ranges.reserve import ensure_reserve
from vrange.cli.memory_cgroup import MemoryCgroup
from vrange.cli.printable import printable
from vrange.sizes import format_bytes

__all__ = ["Finding", "add_parser", "examine", "run"]

_TIGHT = 0.9  # the fraction of the limit above which usage is reported
_SUPPORTED = (5, 14)
_SCAN = (6, 7)  # has PAGEMAP_SCAN, which finds lost pages three times as fast as reading pagemap
_NEVER_OVERCOMMIT = "2"
_OVERCOMMIT = {"0": "heuristic", "1": "always", "2": "never"}


@dataclass(frozen=True)
class Finding:
    """One fact about this machine.

    Attributes
    ----------
    name : str
        What it is about.
    value : int, float, str, bool or None
        The value: bytes, seconds or words; None if the machine doesn't report one.
    text : str
        The same as readable text.
    change : str or None
        What to change, if something better is available.

    """

    name: str
    value: int | float | str | bool | None
    text: str
    change: str | None = None


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `vrange doctor`."""
    parser = subparsers.add_parser(
        "doctor",
        help="what this machine lets vrange do, and what to change",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print an object of findings by name")
    parser.add_argument(
        "--check",
        action="store_true",
        help="print only what to change, and exit with 1 if there is something",
    )


def run(args: argparse.Namespace) -> int:
    """Print the findings. Return 0, or, with --check, 1 if something is to be changed."""
    findings = examine()
    status = 0
    if args.check:
        findings = [finding for finding in findings if finding.change is not None]
        status = int(bool(findings))
    if args.json:
        by_name = {finding.name: asdict(finding) for finding in findings}
        for fields in by_name.values():
            del fields["name"]
        print(json.dumps(by_name, indent=2))
        return status
    width = max((len(finding.name) for finding in findings), default=0)
    for finding in findings:
        # Names of cgroups and mount points were chosen by others, and may contain escape sequences.
        print(f"{finding.name:<{width}}  {printable(finding.text)}")
        if finding.change is not None:
            print(f"{'':<{width}}  -> {printable(finding.change)}")
    changes = sum(finding.change is not None for finding in findings)
    if findings:
        print()
    print(f"{changes} to change, marked ->" if changes else "nothing to change")
    return status


def examine(
    proc: str | os.PathLike[str] = "/proc", sys: str | os.PathLike[str] = "/sys"
) -> list[Finding]:
    """Examine the machine and return all findings.

    Parameters
    ----------
    proc : path, default "/proc"
        The directory of the kernel's settings; for tests.
    sys : path, default "/sys"
        The directory of the settings of devices and memory; for tests.

    Returns
    -------
    list[Finding]
        One finding a fact, in the order of display.

    Raises
    ------
    VrangeError
        If VRANGE_RUNG names no rung.

    Examples
    --------
    >>> [finding.name for finding in examine()][:2]
    ['rung', 'kernel']

    """
    proc, sys = Path(proc), Path(sys)
    limit = memory_limit()
    return [
        *_rung(),
        _kernel(),
        _python(),
        Finding("vrange", vrange.__version__, vrange.__version__),
        *_memory(limit),
        _huge_pages(sys),
        _swap(limit),
        _overcommit(proc),
        _address_space(),
        *_reserve(),
        _forked_children(proc),
        _cgroups(),
    ]


def _rung() -> Iterator[Finding]:
    found = capabilities()
    forced = os.environ.get("VRANGE_RUNG")
    change = None
    if forced == found.rung:
        change = "VRANGE_RUNG forces this rung: unset it to get the highest available one"
    elif found.rung != RUNGS[-1]:
        change = (
            "allow userfaultfd: containers refuse it by their seccomp profile"
            if found.rung == "sentinel"
            else "run on a kernel that frees pages lazily (MADV_FREE), and where nothing forbids it"
        )
    yield Finding(
        "rung", found.rung, found.rung + (" (VRANGE_RUNG)" if forced == found.rung else ""), change
    )
    for rung, why in found.refusals.items():
        yield Finding(f"not {rung}", why, why)


def _kernel() -> Finding:
    release = platform.release()
    text = f"Linux {release}, {platform.machine()}"
    version = _version(release)
    if version < _SUPPORTED:
        return Finding("kernel", release, text, "vrange is made for Linux 5.14 and later")
    if version < _SCAN:
        return Finding("kernel", release, text + " (6.7 and later find lost pages faster)")
    return Finding("kernel", release, text)


def _version(release: str) -> tuple[int, ...]:
    digits = [part for part in release.split("-")[0].split(".")[:2] if part.isdigit()]
    return tuple(map(int, digits))


def _python() -> Finding:
    version = platform.python_version()
    return Finding("python", version, f"{platform.python_implementation()} {version}")


def _memory(limit: MemoryLimit) -> Iterator[Finding]:
    where = limit.source if limit.path is None else f"{limit.source}, {_shown(limit.path)}"
    yield Finding("limit", limit.limit_bytes, f"{format_bytes(limit.limit_bytes)} ({where})")
    usage = memory_usage()
    share = usage / limit.limit_bytes
    yield Finding(
        "usage",
        usage,
        f"{format_bytes(usage)}, {share:.0%} of the limit",
        "little is spare, so caches will be purged often: raise the limit or run less beside them"
        if share > _TIGHT
        else None,
    )


def _huge_pages(sys: Path) -> Finding:
    text = _read(sys / "kernel/mm/transparent_hugepage/enabled")
    if text is None:
        return Finding("huge pages", None, "the kernel has none that are transparent")
    setting = text[text.find("[") + 1 : text.find("]")]
    # A huge page is reclaimed as a whole or split, which costs more than it saved; os_commit
    # declines.
    return Finding(
        "huge pages", setting, setting + (", not in arenas" if setting == "always" else "")
    )


def _swap(limit: MemoryLimit) -> Finding:
    total = psutil.swap_memory().total
    if total == 0:
        return Finding("swap", 0, "none")
    own = _shown(limit.path or "this process's cgroup")
    return Finding(
        "swap",
        total,
        format_bytes(total),
        "idle values may be swapped out although purging them would be cheaper: set a lower "
        f"vm.swappiness, or memory.swap.max = 0 for {own}",
    )


def _overcommit(proc: Path) -> Finding:
    mode = _read(proc / "sys/vm/overcommit_memory")
    if mode is None:
        return Finding("overcommit", None, "unknown")
    return Finding(
        "overcommit",
        int(mode),
        f"{mode}, {_OVERCOMMIT.get(mode, 'unknown')}",
        "what is volatile counts as committed: set vm.overcommit_memory = 0, or a higher "
        "vm.overcommit_ratio"
        if mode == _NEVER_OVERCOMMIT
        else None,
    )


def _address_space() -> Finding:
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft == resource.RLIM_INFINITY:
        return Finding("address space", None, "unlimited")
    return Finding(
        "address space",
        soft,
        f"{format_bytes(soft)} (RLIMIT_AS)",
        "vrange reserves an eighth of it at most, and what finds no address space is not cached: "
        "lift RLIMIT_AS (ulimit -v unlimited)",
    )


def _reserve() -> Iterator[Finding]:
    ensure_reserve()
    reserve = stats().reserve
    if not reserve.running:
        yield Finding(
            "reserve",
            0,
            "no thread keeps it",
            "every range is offered at release, which is slower and loses the more valuable ones: "
            "allow this process another thread",
        )
        return
    yield Finding(
        "reserve",
        reserve.bytes,
        f"{format_bytes(reserve.bytes)} offered ahead of need",
    )
    yield Finding(
        "reserve tick",
        reserve.tick_seconds,
        f"checked every {reserve.tick_seconds * 1e3:g} ms",
    )


def _forked_children(proc: Path) -> Finding:
    error = -lib.vrange_children_can_read()
    if error == 0:
        return Finding(
            "forked children",
            True,
            "they read what their parent has cached, and so do processes that share a cache",
        )
    scope = _read(proc / "sys/kernel/yama/ptrace_scope")
    if scope in ("2", "3"):
        change = "set kernel.yama.ptrace_scope to 1"
    elif error == errno.EPERM:
        change = (
            "allow process_vm_readv in the seccomp profile; a process that has changed its user "
            "has to call prctl(PR_SET_DUMPABLE, 1)"
        )
    else:
        change = "allow process_vm_readv"
    return Finding(
        "forked children",
        False,
        "they may not read what their parent has cached, and a shared cache is one of each "
        f"process: {os.strerror(error)}",
        change,
    )


def _cgroups() -> Finding:
    reason = MemoryCgroup.unavailable()
    if reason is None:
        return Finding("cgroups", True, "memory cgroups can be made: the demo has a real limit")
    return Finding("cgroups", False, f"the demo runs without a real limit: {reason}")


def _shown(path: str) -> str:
    """Return the path as text that can be printed, whatever bytes it has."""
    return os.fsencode(path).decode(errors="backslashreplace")


def _read(file: Path) -> str | None:
    try:
        return file.read_text().strip()
    except OSError:
        return None
