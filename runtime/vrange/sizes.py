"""Conversion between sizes as people write them and bytes."""

from __future__ import annotations

import re

_UNITS = {"": 1, "b": 1}
for _power, _letter in enumerate("kmgtp", start=1):
    _UNITS[f"{_letter}ib"] = _UNITS[f"{_letter}i"] = 1024**_power
    # As for Kubernetes and Dask. To systemd and Docker 64M is 64Mi: a bound that is taken for the
    # smaller of the two does no harm.
    _UNITS[f"{_letter}b"] = _UNITS[_letter] = 1000**_power

_TOO_MANY = 1 << 63

_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*")
_TAKEN = 'an int in bytes or a string such as "64MiB", "1.5Gi", "200KB" or "64M"'


def parse_bytes(value: int | str, name: str) -> int:
    """Return the bytes that `value` means.

    Parameters
    ----------
    value : int or str
        Bytes, or a string: "64MiB" and "64Mi" are 64 · 1024² bytes, "64MB" and "64M" 64 · 1000².
        So for k, g, t and p, in upper or lower case.
    name : str
        The argument for which it was given, for messages.

    Raises
    ------
    TypeError
        If `value` is neither an int nor a string.
    ValueError
        If `value` is not a size. 8 EiB and more are not sizes, as no machine can address them.

    Examples
    --------
    >>> parse_bytes("64MiB", "size")
    67108864
    >>> parse_bytes(4096, "size")
    4096

    """
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise TypeError(f"{name} must be {_TAKEN}, not {value!r}")
    if isinstance(value, int):
        size = value
    else:
        match = _SIZE.fullmatch(value)
        factor = _UNITS.get(match[2].lower()) if match else None
        if match is None or factor is None:
            raise ValueError(f"{name} must be {_TAKEN}, not {value!r}")
        size = int(float(match[1]) * factor) if "." in match[1] else int(match[1]) * factor
    if size < 0:
        raise ValueError(f"{name} must not be negative, but is {value}")
    if size >= _TOO_MANY:
        raise ValueError(f"{name} must be less than 8 EiB, but is {value}")
    return size


def format_bytes(count: float) -> str:
    """Return `count` bytes as text, in the largest binary unit that gives a number of one or more.

    Examples
    --------
    >>> format_bytes(1536)
    '1.5 KiB'

    """
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(count) < 1024 or unit == "TiB":
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
