"""What this machine allows: the rung in use, and why a higher one is not."""

from __future__ import annotations

import mmap
import os
import platform
import sys
from dataclasses import dataclass, field

from vrange.errors import VrangeError

if sys.platform == "linux":
    from vrange._core import ffi, lib
    from vrange._counters.names import RUNGS


@dataclass(frozen=True)
class Capabilities:
    """The mechanism in use, and what it depends on.

    Attributes
    ----------
    rung : str
        "refault": a lost page raises SIGBUS when it is touched, or is reported at pin. "sentinel":
        losses are reported at pin only. "eager": nothing is left to the kernel, and vrange itself
        discards near the limit. "none": there is no Linux, and a cache is an ordinary bounded one.
    refusals : dict[str, str]
        Why each higher rung is not in use.
    kernel : str
        The release of the kernel.
    python : str
        The version of Python.
    page_bytes : int
        The size of a page.

    """

    rung: str
    refusals: dict[str, str] = field(default_factory=dict)
    kernel: str = ""
    python: str = ""
    page_bytes: int = 0

    @property
    def supported(self) -> bool:
        """Whether the kernel, rather than vrange itself, decides what is discarded."""
        return self.rung in ("refault", "sentinel")

    def __str__(self) -> str:
        lines = [f"rung {self.rung}, {platform.system()} {self.kernel}, Python {self.python}"]
        lines += [f"not {rung}: {why}" for rung, why in self.refusals.items()]
        return "\n".join(lines)


def capabilities() -> Capabilities:
    """Return which mechanism this process uses.

    The mechanism is chosen once, by trying each. VRANGE_RUNG in the environment names the highest
    one to use. If it is not available here, the next lower one is used, and a line on standard
    error says so.

    Returns
    -------
    Capabilities
        The rung, and why no higher one is in use.

    Raises
    ------
    VrangeError
        If VRANGE_RUNG names no rung.

    Examples
    --------
    >>> capabilities().rung in ("refault", "sentinel", "eager")
    True

    """
    if sys.platform != "linux":
        why = f"only Linux's MADV_FREE lets losses be detected, and this is {platform.system()}"
        return Capabilities(
            rung="none",
            # Here is no native part that could be asked for the names.
            refusals={"refault": why, "sentinel": why, "eager": why},
            kernel=platform.release(),
            python=platform.python_version(),
            page_bytes=mmap.PAGESIZE,
        )
    rung = lib.vrange_rung()
    refusals = {}
    for number in range(len(RUNGS), 0, -1):
        reason = lib.vrange_rung_refusal(number)
        if reason != ffi.NULL:
            refusals[RUNGS[number - 1]] = ffi.string(reason).decode()
    if rung == 0:
        asked = os.environ.get("VRANGE_RUNG", "")
        raise VrangeError(f"VRANGE_RUNG={asked} names no rung: the rungs are {', '.join(RUNGS)}")
    return Capabilities(
        rung=RUNGS[rung - 1],
        refusals=refusals,
        kernel=platform.release(),
        python=platform.python_version(),
        page_bytes=lib.vrange_page_bytes(),
    )
