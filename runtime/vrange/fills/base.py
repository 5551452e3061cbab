"""The interface of a native fill: a C function, and the context that it is called with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Regenerator:
    """A `vrange_regenerate`, its context, and the objects that must live as long as both are used.

    Attributes
    ----------
    function : cffi pointer
        The C function that regenerates content.
    context : cffi pointer
        The last argument of each call.
    kept : tuple
        The objects that `function` and `context` refer to.

    """

    function: Any
    context: Any
    kept: tuple[Any, ...] = ()


class NativeFill(ABC):
    """The base class of fills that run inside a touch. One fill may serve several arrays."""

    @abstractmethod
    def bind(self, dtype: np.dtype[Any], nbytes: int, block_bytes: int) -> Regenerator:
        """Return the regenerator for an array of this size.

        Parameters
        ----------
        dtype : numpy.dtype
            The array's element type.
        nbytes : int
            The array's size.
        block_bytes : int
            The size that is regenerated at a time.

        Raises
        ------
        ValueError
            If this fill can't fill such an array.

        """
