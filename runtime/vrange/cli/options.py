"""The values of options: durations and addresses."""

from __future__ import annotations

import argparse
import math
import re

__all__ = ["listen_address", "seconds"]

_UNITS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def seconds(text: str) -> float:
    """Parse a duration, such as "5ms" or "30s". "never" gives 0.

    Raises
    ------
    ArgumentTypeError
        If it is not a duration, or is less than a millisecond.

    """
    if text == "never":
        return 0.0
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|min|h)", text)
    value = float(found[1]) * _UNITS[found[2]] if found else math.nan
    if not 1e-3 <= value <= 366 * 86400:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither a time such as 5ms, 30s or 2m, from a millisecond up, nor never"
        )
    return value


def listen_address(text: str) -> tuple[str, int]:
    """Parse [ADDR:]PORT; ADDR may be an IPv6 address in brackets.

    Raises
    ------
    ArgumentTypeError
        If it has no port from 0 to 65535.

    """
    address, _, port = text.rpartition(":")
    if not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not [ADDR:]PORT with a port of 0 to 65535")
    return address.strip("[]") or "127.0.0.1", int(port)
