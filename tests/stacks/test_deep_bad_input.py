"""Stacks, functions and address space that deep calls refuse, with what is wrong."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Iterator

import pytest
from deep_helpers import MIB, limits_unchanged

import vrange


@pytest.mark.parametrize(
    ("stack", "error"),
    [
        (0, ValueError),
        (-1, ValueError),
        (4096, ValueError),
        ("255KiB", ValueError),
        ("much", ValueError),
        ("", ValueError),
        (1 << 80, ValueError),
        (None, TypeError),
        (True, TypeError),
        (1.5e9, TypeError),
        ([], TypeError),
    ],
)
def test_sizes_that_are_none(stack: object, error: type[Exception]) -> None:
    with limits_unchanged():
        with pytest.raises(error, match="stack"):
            vrange.deep_call(len, [], stack=stack)  # type: ignore[arg-type]
        with pytest.raises(error, match="stack"):
            vrange.deep_recursion(stack=stack)(len)  # type: ignore[call-overload]


def test_what_can_not_be_called() -> None:
    with limits_unchanged():
        with pytest.raises(TypeError, match="callable, not 3"):
            vrange.deep_call(3)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="takes a callable"):
            vrange.deep_call()  # type: ignore[call-arg]
        with pytest.raises(TypeError, match="callable, not None"):
            vrange.DeepStack().call(None)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="decorates a callable"):
            vrange.deep_recursion()(3)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="'volatile', 'now', 'keep', not 'later'"):
            vrange.DeepStack(release="later")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="name"):
            vrange.DeepStack(name=3)  # type: ignore[arg-type]


def test_functions_whose_body_runs_elsewhere_are_refused() -> None:
    async def coroutine() -> None: ...

    def generator() -> Iterator[None]:
        yield

    async def both() -> AsyncIterator[None]:
        yield

    for f in (coroutine, generator, both):
        with pytest.raises(TypeError, match="outside of the deep call"):
            vrange.deep_recursion()(f)


def test_an_address_space_that_is_too_small() -> None:
    with (
        limits_unchanged(),
        pytest.raises(vrange.StackUnavailableError, match="RLIMIT_AS") as caught,
    ):
        vrange.deep_call(len, [], stack=1 << 60)
    assert isinstance(caught.value, MemoryError)
    assert isinstance(caught.value, vrange.VrangeError)
    assert vrange.deep_call(len, []) == 0


def test_many_sizes_do_not_pile_up() -> None:
    for i in range(200):
        assert vrange.deep_call(len, [], stack=MIB + 4096 * i) == 0
    assert len(vrange.stack_info().stacks) <= 65


def test_where_no_handler_can_be_installed_the_words_say_so() -> None:
    """A sandbox that refuses sigaction: no other size of a stack would help."""
    code = """
    import ctypes, platform, struct
    import vrange
    libc = ctypes.CDLL(None, use_errno=True)
    action, seccomp = {"x86_64": (13, 317), "aarch64": (134, 277)}[platform.machine()]
    program = [(0x20, 0, 0, 0), (0x15, 0, 1, action),
               (0x06, 0, 0, 0x50001), (0x06, 0, 0, 0x7FFF0000)]
    words = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in program))
    filter = struct.pack("HxxxxxxQ", len(program), ctypes.addressof(words))
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    assert libc.syscall(seccomp, 1, 1, ctypes.c_char_p(filter)) == 0
    try:
        vrange.deep_call(len, [])
    except vrange.StackUnavailableError as error:
        print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "SIGSEGV" in done.stdout
    assert "Operation not permitted" in done.stdout
    assert "stack=" not in done.stdout
