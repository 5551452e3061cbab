"""A VolatileArray in NumPy's expressions and functions: what an ndarray would do, or a refusal."""

from __future__ import annotations

import operator
from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from vrange._arrays.writing import save, write_parts
from vrange._core import hit

Array = np.ndarray[Any, Any]

# They read shape and dtype of their first argument, and none of its memory.
_READ_NO_CONTENT = {
    np.empty_like,
    np.iscomplexobj,
    np.isrealobj,
    np.ndim,
    np.ones_like,
    np.shape,
    np.size,
    np.zeros_like,
}


class AsNdarray(NDArrayOperatorsMixin, hit.PlainBytes):
    """Operators, ufuncs, NumPy's functions, conversions and writing, over a few reads.

    Operators and ufuncs read the whole array where it lies and return ordinary ndarrays. So they
    refuse an array whose Python fill does not run inside a touch. In-place operators are refused:
    the content comes from the fill.
    """

    __hash__: ClassVar[None]  # type: ignore[assignment] # as for an ndarray: == is by element

    # ---- what the array provides -------------------------------------------------------------

    @property
    @abstractmethod
    def name(self) -> str:
        """The label of its metrics."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """The dimensions."""

    @property
    @abstractmethod
    def size(self) -> int:
        """The number of elements."""

    @abstractmethod
    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """Return the whole array, or raise TypeError if it can't be read where it lies."""

    @abstractmethod
    def __getitem__(self, index: Any) -> Any:
        """Return a part."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the length of the first dimension."""

    @abstractmethod
    def _unpinned(self) -> Array:
        """Return the whole array without asking whether its memory may be read."""

    @abstractmethod
    def _parts(self) -> Iterator[Array]:
        """Yield the elements in C order: 1-D arrays that are filled and pinned, one at a time."""

    # ---- ufuncs, operators, functions --------------------------------------------------------

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        """Apply a ufunc to the content. Operators come here too."""
        written = [*options.get("out", ()), *(inputs[:1] if method == "at" else ())]
        for each in written:
            if isinstance(each, AsNdarray):
                raise each._read_only(f"np.{ufunc.__name__} can't write to it")
        return getattr(ufunc, method)(*_readable(inputs), **_readable(options))

    # An ndarray compares more than its ufuncs do: text with numbers, and structures.
    def __eq__(self, other: object) -> Any:
        return np.asarray(self) == _readable(other)

    def __ne__(self, other: object) -> Any:
        return np.asarray(self) != _readable(other)

    def __array_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        arguments: tuple[Any, ...],
        options: dict[str, Any],
    ) -> Any:
        """Call a function of NumPy with ndarrays in place of volatile arrays."""
        if function is np.save:
            return save(*arguments, **options)
        if function in _READ_NO_CONTENT and arguments and isinstance(arguments[0], AsNdarray):
            arguments = (arguments[0]._unpinned(), *arguments[1:])
        return function(*_readable(arguments), **_readable(options))

    def __setitem__(self, index: Any, value: object) -> None:
        raise self._read_only("an item can't be assigned")

    def __delitem__(self, index: Any) -> None:
        raise self._read_only("an item can't be deleted")

    def _read_only(self, what: str) -> TypeError:
        return TypeError(
            f"array {self.name!r} is read-only, because its content comes from its fill: {what}. "
            "Use a copy, np.array(a, copy=True)"
        )

    # ---- as a sequence, and as a number ------------------------------------------------------

    def __iter__(self) -> Iterator[Any]:
        if not self.shape:
            raise TypeError("iteration over an array of no dimensions")
        return map(self.__getitem__, range(len(self)))

    def __contains__(self, value: Any) -> bool:
        if np.ndim(value):  # it is compared with rows or the like: see broadcasting
            return bool(np.any(np.asarray(self) == value))
        return any(bool(np.any(part == value)) for part in self._parts())

    def __bool__(self) -> bool:
        if self.size != 1:
            raise ValueError(
                f"the truth value of array {self.name!r} of {self.size} elements is ambiguous: "
                "use np.any(a) or np.all(a), or len(a)"
            )
        return bool(self._only())

    def __int__(self) -> int:
        return int(self._only())

    def __float__(self) -> float:
        return float(self._only())

    def __complex__(self) -> complex:
        return complex(self._only())

    def __index__(self) -> int:
        if self.shape:
            raise TypeError("only an array of integers and no dimensions is an index")
        return operator.index(self._only())

    def _only(self) -> Any:
        if self.size != 1:
            raise TypeError(
                f"only an array of one element is a number, but array {self.name!r} has {self.size}"
            )
        return self[(0,) * len(self.shape)]

    # ---- writing it ----------------------------------------------------------------------------

    def tofile(self, file: Any) -> None:
        """Write all elements in C order, as bytes, to a file.

        A part is filled and pinned at a time, so that the array may be larger than memory.

        Parameters
        ----------
        file : path-like or binary file object
            Where to write. A path is created or truncated.

        Examples
        --------
        >>> import io, vrange
        >>> a = vrange.VolatileArray(3, "u1", fill=vrange.fills.pattern(7))
        >>> file = io.BytesIO()
        >>> a.tofile(file)
        >>> len(file.getvalue())
        3

        """
        write_parts(self._parts(), file)


def _readable(arguments: Any) -> Any:
    """Return the arguments with an ndarray for each volatile array, at any depth."""
    if isinstance(arguments, AsNdarray):
        return np.asarray(arguments)
    if type(arguments) in (tuple, list):
        return type(arguments)(map(_readable, arguments))
    if type(arguments) is dict:
        return {name: _readable(value) for name, value in arguments.items()}
    return arguments
