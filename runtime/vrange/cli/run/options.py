"""Values of options: durations and addresses."""

from __future__ import annotations

import argparse
import math
import re

__all__ = ["listen_address", "seconds"]

_UNITS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def seconds(text: str) -> float:
    """Read a duration, such as "5ms" or "30s"; 0 for "never".

    Raises:
        ArgumentTypeError: It is none, or below a millisecond.

    """
    if text == "never":
        return 0.0
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|min|h)", text)
    value = float(found[1]) * _UNITS[found[2]] if found else math.nan
    if not 1e-3 <= value <= 366 * 86400:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no time such as 5ms, 30s, 2m, and not never; a millisecond is the least"
        )
    return value


def listen_address(text: str) -> tuple[str, int]:
    """Read [ADDR:]PORT; ADDR may be an IPv6 address in brackets.

    Raises:
        ArgumentTypeError: It has no port from 0 to 65535.

    """
    address, _, port = text.rpartition(":")
    if not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no [ADDR:]PORT with a port of 0 to 65535")
    return address.strip("[]") or "127.0.0.1", int(port)
