"""What a native fill is: a C function, and the context it is called with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Regenerator:
    """A `vrange_regenerate`, its context, and what has to live as long as they are used."""

    function: Any
    context: Any
    kept: tuple[Any, ...] = ()


class NativeFill(ABC):
    """A fill that runs inside a touch. The same fill may serve several arrays."""

    @abstractmethod
    def bind(self, dtype: np.dtype[Any], nbytes: int, block_bytes: int) -> Regenerator:
        """What fills an array of `nbytes` bytes. ValueError where it can't."""
