from collections.abc import Callable
from typing import Any, TypeVar

from vrange._stacks.deep import DeepStack
from vrange.errors import VrangeError

T = TypeVar("T")
Settings = tuple[int, int, str]

class StackUnavailableError(VrangeError, MemoryError): ...

def deep_call(
    f: Callable[..., T], /, *args: Any, stack: int | str | DeepStack = "auto", **kwargs: Any
) -> T: ...
def run(settings: Settings, f: Callable[..., T], /, *args: Any, **kwargs: Any) -> T: ...
def configure(
    make: Callable[[int | str | DeepStack], Settings],
    default: Settings,
    watch_limits: Callable[[], None],
    /,
) -> None: ...
def here() -> tuple[int, int] | None: ...
def limits() -> tuple[int, int, bool, str | None]: ...
def levels_left() -> tuple[int, int | None]: ...
