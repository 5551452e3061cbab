"""Sizes as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import vrange
from vrange.sizes import format_bytes, parse_bytes


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("7", 7),
        ("7b", 7),
        ("4096 B", 4096),
        ("64MiB", 64 << 20),
        ("64 mib", 64 << 20),
        (" 1.5GiB\n", 3 << 29),
        ("200KB", 200_000),
        ("1TB", 10**12),
        ("1PiB", 1 << 50),
        ("64Mi", 64 << 20),
        ("64M", 64_000_000),
        ("64m", 64_000_000),
        ("1.5Gi", 3 << 29),
        ("2 k", 2000),
        ("1T", 10**12),
        (12, 12),
    ],
)
def test_sizes_that_are_sizes(text: int | str, size: int) -> None:
    assert parse_bytes(text, "size") == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "MiB",
        "64iB",
        "64i",
        "64Mb/s",
        "-1",
        "1.5.2MiB",
        "1e6",
        "12 parsecs",
        "1 0",
        "0x10",
        "1,5GiB",
        ".5MiB",
        "inf",
    ],
)
def test_strings_that_are_no_sizes(text: str) -> None:
    with pytest.raises(ValueError, match=r'size must be .*"64MiB".*"64M"'):
        parse_bytes(text, "size")


@pytest.mark.parametrize("value", [None, 1.5, True, b"64MiB", [1], object()])
def test_types_that_are_no_sizes(value: object) -> None:
    with pytest.raises(TypeError, match="nbytes must be an int in bytes or a string"):
        parse_bytes(value, "nbytes")  # type: ignore[arg-type]


def test_negative() -> None:
    with pytest.raises(ValueError, match="must not be negative, but is -1"):
        parse_bytes(-1, "size")


@pytest.mark.parametrize("value", [1 << 63, 1 << 64, 1 << 70, "8388608TiB", "9" * 30])
def test_more_than_an_address_can_tell(value: int | str) -> None:
    with pytest.raises(ValueError, match="size must be less than 8 EiB"):
        parse_bytes(value, "size")


def test_largest_size_is_refused_as_too_much_not_as_no_size() -> None:
    with pytest.raises(vrange.ArenaFullError, match="address space"):
        vrange.Arena((1 << 63) - 1)
    with (
        vrange.Arena("1MiB") as arena,
        pytest.raises(vrange.ArenaFullError, match="no place for 8388608"),
    ):
        arena.allocate((1 << 63) - 1)


@given(st.integers(0, (1 << 63) - 1))
def test_ints_and_their_digits_mean_the_same(size: int) -> None:
    assert parse_bytes(size, "size") == parse_bytes(str(size), "size") == size


@given(st.integers(0, 1 << 62))
def test_formatted_sizes_are_sizes_again(size: int) -> None:
    assert abs(parse_bytes(format_bytes(size), "size") - size) <= max(0.05 * size, 0.051 * 1024)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1 << 30, "1.0 GiB"),
        (1 << 50, "1024.0 TiB"),
    ],
)
def test_format(size: int, text: str) -> None:
    assert format_bytes(size) == text
