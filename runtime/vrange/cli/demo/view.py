"""The demo's display while it runs: a live table on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from vrange._ranges.capabilities import capabilities
from vrange.cli.demo.messages import PHASES, Job, Sample, Sizing
from vrange.cli.demo.outcome import MIB, Run, mib

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.text import Text

__all__ = ["Lines", "Table", "View", "make_view"]

_LINE_SECONDS = 1.0
_BAR_CELLS = 60
_STATES = ("pinned", "idle", "offered", "purged", "kept", "hot")
_COLOURS = {
    "pinned": "magenta",
    "kept": "magenta",
    "idle": "cyan",
    "offered": "blue",
    "app": "red",
    "other": "bright_black",
}


class View(Protocol):
    """An object that shows the progress of runs."""

    def begin(self, job: Job) -> None:
        """Show that a run begins."""

    def sizing(self, job: Job, sizing: Sizing) -> None:
        """Show what the run works with."""

    def sample(self, job: Job, sample: Sample) -> None:
        """Show the run's progress."""

    def end(self, job: Job, run: Run) -> None:
        """Show how the run ended."""

    def __enter__(self) -> View:
        """Start the display."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the screen as it is."""


def make_view(limit_bytes: int, refusal: str | None, *, plain: bool = False) -> View:
    """Return a live table if there are rich and a terminal, else lines.

    Parameters
    ----------
    limit_bytes : int
        The limit of each run.
    refusal : str or None
        Why no cgroup enforces the limit; None if one does.
    plain : bool, default False
        Return lines in any case.

    """
    machine = capabilities()
    print(
        f"rung {machine.rung}, Linux {machine.kernel}, Python {machine.python}; each run has "
        f"{mib(limit_bytes)} in a process of its own"
    )
    if refusal is None:
        print("The limit is a memory cgroup's, without swap.")
    else:
        print(
            f"No memory cgroup ({refusal}). Nothing enforces the limit: the cache discards what "
            "the kernel would reclaim."
        )
    if not plain and sys.stdout.isatty():
        try:
            from rich.console import Console
        except ImportError:
            pass
        else:
            return Table(Console())
    return Lines()


class _Quiet:
    """The part that both displays share."""

    def __enter__(self) -> _Quiet:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass


def _describe(job: Job) -> str:
    if job.contender == "vrange":
        return "VolatileCache"
    return "dict" if job.contender == "dict" else f"LRU of {mib(job.lru_bytes)}"


def _sized(sizing: Sizing) -> str:
    return (
        f"{sizing.values} values of {sizing.files} source files, {mib(sizing.value_bytes)}; the "
        f"process besides {mib(sizing.base_bytes)}; the application takes {mib(sizing.app_bytes)}"
    )


class Lines(_Quiet):
    """Prints a line a second, and one at the end of each phase."""

    def __init__(self) -> None:
        self._shown = ("", 0.0)

    def __enter__(self) -> Lines:
        return self

    def begin(self, job: Job) -> None:  # noqa: D102
        print(f"\n{_describe(job)}", flush=True)

    def sizing(self, job: Job, sizing: Sizing) -> None:  # noqa: D102
        print(f"  {_sized(sizing)}", flush=True)

    def sample(self, job: Job, sample: Sample) -> None:  # noqa: D102
        phase, seconds = self._shown
        if phase == sample.phase and sample.seconds - seconds < _LINE_SECONDS and not sample.last:
            return
        self._shown = (sample.phase, sample.seconds)
        if not sample.requests:
            return
        sizes = {state: sample.bytes[state] for state in _STATES if state in sample.bytes}
        sizes["app"] = sample.app_bytes
        used = "  ".join(f"{what} {size / MIB:.1f}" for what, size in sizes.items())
        print(
            f"  {sample.phase:<6} {sample.seconds:4.1f} s  hits {sample.hits}  purged "
            f"{sample.purged}  recomputed {sample.recomputed} | {used} | "
            f"usage {sample.usage_bytes / MIB:.1f} of {job.limit_bytes / MIB:.1f} MiB",
            flush=True,
        )

    def end(self, job: Job, run: Run) -> None:  # noqa: D102
        print(f"  {run.ending}", flush=True)


class Table(_Quiet):
    """Shows a table for each run, with a row a phase, and below it a bar of the memory's use."""

    def __init__(self, console: Console) -> None:
        from rich.live import Live

        self._console = console
        self._live: Live | None = None
        self._job: Job | None = None
        self._sizing = ""
        self._phases: dict[str, Sample] = {}

    def __enter__(self) -> Table:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def begin(self, job: Job) -> None:  # noqa: D102
        from rich.live import Live

        self._job = job
        self._sizing = "filling"
        self._phases = {}
        self._live = Live(console=self._console, refresh_per_second=8)
        self._live.start()

    def sizing(self, job: Job, sizing: Sizing) -> None:  # noqa: D102
        self._sizing = _sized(sizing)

    def sample(self, job: Job, sample: Sample) -> None:  # noqa: D102
        self._phases[sample.phase] = sample
        if self._live is not None:
            self._live.update(self._render(job, sample, ""))

    def end(self, job: Job, run: Run) -> None:  # noqa: D102
        if self._live is not None:
            if self._phases:
                last = list(self._phases.values())[-1]
                self._live.update(self._render(job, last, str(run.ending)))
            self._live.stop()
            self._live = None

    def _render(self, job: Job, sample: Sample, ending: str) -> Group:
        from rich.console import Group
        from rich.table import Table as Grid
        from rich.text import Text

        grid = Grid(title=_describe(job), title_justify="left", caption_justify="left")
        grid.add_column("phase")
        for column in ("s", "hit ratio", "hits", "purged", "recomputed", "app", "usage"):
            grid.add_column(column, justify="right")
        for phase in PHASES:
            row = self._phases.get(phase)
            if row is not None:
                grid.add_row(
                    phase,
                    f"{row.seconds:.1f}",
                    "" if row.hit_ratio is None else f"{row.hit_ratio:.3f}",
                    str(row.hits),
                    str(row.purged),
                    str(row.recomputed),
                    mib(row.app_bytes),
                    mib(row.usage_bytes),
                )
        colour = "bold red" if ending and ending != "finished" else "bold green"
        return Group(grid, self._bar(job, sample), Text(self._sizing), Text(ending, style=colour))

    def _bar(self, job: Job, sample: Sample) -> Text:
        """Draw the limit as a bar: values by state, the application, and the rest."""
        from rich.text import Text

        parts: dict[str, int] = {
            state: sample.bytes[state]
            for state in ("pinned", "kept", "idle", "offered")
            if state in sample.bytes
        }
        parts["app"] = sample.app_bytes
        parts["other"] = max(0, sample.usage_bytes - sum(parts.values()))
        bar, key = Text("▕"), Text("")
        used = 0.0
        for part, size in parts.items():
            start, used = used, used + size / job.limit_bytes * _BAR_CELLS
            bar.append("█" * (min(round(used), _BAR_CELLS) - round(start)), _COLOURS[part])
            key.append(f"{part} {mib(size)}  ", _COLOURS[part])
        for state in ("purged", "hot"):
            if state in sample.bytes:
                key.append(f"{state} {mib(sample.bytes[state])}  ")
        bar.append("·" * max(0, _BAR_CELLS - round(used)), "bright_black")
        bar.append(f"▏ {mib(sample.usage_bytes)} of {mib(job.limit_bytes)}\n")
        return bar.append_text(key)
