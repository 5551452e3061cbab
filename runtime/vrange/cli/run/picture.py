"""A plot of memory over time."""

from __future__ import annotations

from vrange.cli.run.report import Report

__all__ = ["draw"]

_MIB = float(1 << 20)


def draw(report: Report, file: str) -> None:
    """Write a PNG or SVG, chosen by the file's name. Needs matplotlib."""
    from matplotlib.figure import Figure

    sampler = report.ending.sampler
    samples = sampler.samples
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.add_subplot()
    seconds = [one.seconds for one in samples]
    axes.fill_between(seconds, [one.rss_bytes / _MIB for one in samples], alpha=0.3)
    axes.plot(seconds, [one.rss_bytes / _MIB for one in samples], label="resident (RSS)")
    reclaimable = [one for one in samples if one.lazyfree_bytes is not None]
    if reclaimable:
        axes.fill_between(
            [one.seconds for one in reclaimable],
            [(one.rss_bytes - (one.lazyfree_bytes or 0)) / _MIB for one in reclaimable],
            [one.rss_bytes / _MIB for one in reclaimable],
            hatch="///",
            facecolor="none",
            edgecolor="C2",
            linewidth=0,
            label="of that, the kernel's at any moment (LazyFree)",
        )
    if sampler.limit is not None:
        known = [one for one in samples if one.cgroup_bytes is not None]
        axes.plot(
            [one.seconds for one in known],
            [(one.cgroup_bytes or 0) / _MIB for one in known],
            label="cgroup",
        )
        axes.axhline(sampler.limit.limit_bytes / _MIB, color="0.5", linestyle=":", label="limit")
    axes.set_xlabel("seconds")
    axes.set_ylabel("MiB")
    axes.set_ylim(bottom=0)
    axes.set_title(" ".join(report.command)[:90], fontsize=9)
    axes.legend(loc="best", frameon=False)
    axes.grid(alpha=0.3)
    figure.savefig(file)
