"""What this machine allows: the rung, and why not a higher one."""

from __future__ import annotations

import mmap
import os
import platform
import sys
from dataclasses import dataclass, field

from vrange.errors import VrangeError

if sys.platform == "linux":
    from vrange._core import ffi, lib

RUNGS = ("eager", "sentinel", "refault")  # rung n of the native ladder is RUNGS[n - 1]


@dataclass(frozen=True)
class Capabilities:
    """The mechanism in use and what it rests on.

    `rung` is "refault" (lost pages raise SIGBUS or are told at pin), "sentinel" (told at pin only)
    or "eager" (nothing is left to the kernel: vrange itself discards near the limit); "none" where
    there is no Linux, and a cache is an ordinary bounded one. `refusals` says for each higher rung
    why it is not in use.
    """

    rung: str
    refusals: dict[str, str] = field(default_factory=dict)
    kernel: str = ""
    python: str = ""
    page_bytes: int = 0

    @property
    def supported(self) -> bool:
        """Whether the kernel, rather than vrange itself, decides what goes."""
        return self.rung in ("refault", "sentinel")

    def __str__(self) -> str:
        lines = [f"rung {self.rung}, {platform.system()} {self.kernel}, Python {self.python}"]
        lines += [f"not {rung}: {why}" for rung, why in self.refusals.items()]
        return "\n".join(lines)


def capabilities() -> Capabilities:
    """What this process runs on. Decided once, by trying; VRANGE_RUNG in the environment forces
    one.

    Raises VrangeError where VRANGE_RUNG asks for what is not a rung or not to be had here.

    >>> capabilities().rung in ("refault", "sentinel", "eager")
    True
    """
    if sys.platform != "linux":
        why = f"MADV_FREE that tells of what was lost is Linux's, and this is {platform.system()}"
        return Capabilities(
            rung="none",
            refusals=dict.fromkeys(reversed(RUNGS), why),
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
        why = refusals.get(asked, f"the rungs are {', '.join(RUNGS)}")
        raise VrangeError(f"VRANGE_RUNG={asked} is not to be had here: {why}")
    return Capabilities(
        rung=RUNGS[rung - 1],
        refusals=refusals,
        kernel=platform.release(),
        python=platform.python_version(),
        page_bytes=lib.vrange_page_bytes(),
    )
