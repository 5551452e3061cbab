"""`vrange run --compare`: the program run twice, without vrange and with it, side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vrange.cli.run.supervise import Ending
from vrange.sizes import format_bytes

__all__ = ["as_table", "compared"]

_LAST_SECONDS = 0.25


@dataclass(frozen=True)
class Row:
    """One figure of both runs; None where it was not measured."""

    name: str
    plain: float | None
    within: float | None
    is_bytes: bool = True


def _last_rss(ending: Ending) -> float | None:
    """Return the most that was resident within the last moments.

    The last sample of all may be of a process that is just being torn down.
    """
    samples = ending.sampler.samples
    since = samples[-1].seconds - _LAST_SECONDS if samples else 0.0
    return max((one.rss_bytes for one in samples if one.seconds >= since), default=None)


def _last_kept(ending: Ending) -> float | None:
    """Return what was resident without what the kernel could take, when that was last read."""
    known = [one for one in ending.sampler.samples if one.lazyfree_bytes is not None]
    return known[-1].rss_bytes - (known[-1].lazyfree_bytes or 0) if known else None


_BYTES: dict[str, Callable[[Ending], float | None]] = {
    "peak RSS": lambda one: max(one.sampler.peak_rss_bytes, one.largest_rss_bytes),
    "average RSS": lambda one: one.sampler.average_rss_bytes,
    "RSS at the end": _last_rss,
    "not reclaimable, when last read": _last_kept,
    "peak of the cgroup": lambda one: one.sampler.peak_cgroup_bytes,
}


def compared(plain: Ending, within: Ending) -> list[Row]:
    """Return the figures of both runs."""
    return [
        Row("exit status", plain.status, within.status, is_bytes=False),
        Row("seconds", plain.seconds, within.seconds, is_bytes=False),
        Row("processor seconds", plain.cpu_seconds, within.cpu_seconds, is_bytes=False),
        *(Row(name, read(plain), read(within)) for name, read in _BYTES.items()),
    ]


def as_table(rows: list[Row]) -> str:
    """Return the figures as a table of Markdown."""
    lines = ["| | python | vrange run | times |", "| --- | --- | --- | --- |"]
    for row in rows:
        ratio = f"{row.within / row.plain:.2f}" if row.plain and row.within is not None else ""
        if row.name == "exit status":
            ratio = ""
        lines.append(
            f"| {row.name} | {_shown(row, row.plain)} | {_shown(row, row.within)} | {ratio} |"
        )
    return "\n".join(lines)


def _shown(row: Row, value: float | None) -> str:
    if value is None:
        return "unknown"
    if row.is_bytes:
        return format_bytes(int(value))
    return str(value) if isinstance(value, int) else f"{value:.2f}"
