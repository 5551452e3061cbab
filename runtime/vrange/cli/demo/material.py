"""The demo's input: the source files of the running interpreter's standard library.

Three values are made of each file. People cache all three in practice: the syntax tree, pickled;
the tokens, as an array of kinds and places; and an index of the file's shingles, to find near
copies. Each takes milliseconds to make and some hundred kilobytes to keep.
"""

from __future__ import annotations

import ast
import io
import os
import pickle
import sysconfig
import tokenize
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

__all__ = ["Key", "NotPython", "Value", "choose", "make", "stamp"]

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"
Value: TypeAlias = "bytes | Array"
Key: TypeAlias = tuple[str, str]  # what to make, and of which file

_SMALLEST, _LARGEST = 8 << 10, 128 << 10
_VALUE_BYTES_OF_SOURCE_BYTE = 14.0  # all three together, as measured; it only sizes the choice
_SHINGLE_BYTES = 8
_STAMP_STRIDE = 512


class NotPython(Exception):
    """A file that can't be parsed or tokenised; the argument is its path."""


def syntax_tree(source: bytes) -> bytes:
    """Parse the source, and return the pickled tree."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library's tests cause warnings on purpose
        return pickle.dumps(ast.parse(source), protocol=5)


def tokens(source: bytes) -> Array:
    """Return each token's kind, exact kind, start line and column, and end line and column."""
    return np.array(
        [
            (token.type, token.exact_type, *token.start, *token.end)
            for token in tokenize.tokenize(io.BytesIO(source).readline)
        ],
        dtype=np.int32,
    )


def shingles(source: bytes) -> Array:
    """Return the sorted hashes of all eight-byte pieces of the source."""
    codes = np.frombuffer(source, np.uint8).astype(np.uint64)
    hashes = np.zeros(len(codes) - _SHINGLE_BYTES + 1, np.uint64)
    for offset in range(_SHINGLE_BYTES):
        hashes = hashes * np.uint64(0x100000001B3) + codes[offset : offset + len(hashes)]
    hashes.sort()
    return hashes


_MAKERS: dict[str, Callable[[bytes], Value]] = {
    "syntax tree": syntax_tree,
    "tokens": tokens,
    "shingles": shingles,
}


def choose(value_bytes: int, rng: np.random.Generator) -> list[Key]:
    """Choose files at random, until the values made of them are about `value_bytes`.

    Returns
    -------
    list[Key]
        What to make of which file, in the order in which to make it. There are fewer bytes if the
        library has few files.

    Examples
    --------
    >>> keys = choose(1 << 20, np.random.default_rng(1))
    >>> len(keys) % 3
    0

    """
    files = sorted(_files(sysconfig.get_path("stdlib")))
    chosen: list[Key] = []
    left = value_bytes / _VALUE_BYTES_OF_SOURCE_BYTE
    for index in rng.permutation(len(files)):
        if left <= 0:
            break
        path, size = files[index]
        chosen += [(what, path) for what in _MAKERS]
        left -= size
    shuffled = [chosen[index] for index in rng.permutation(len(chosen))]
    # The cheap half of the bytes comes first, so a slow machine has enough even if it can't finish.
    return sorted(shuffled, key=lambda key: key[0] != "shingles")


def _files(directory: str) -> Iterator[tuple[str, int]]:
    """Yield the library's source files that are neither tiny nor huge, with their sizes."""
    for place, directories, names in os.walk(directory):
        # Packages that are installed beside the library differ between machines.
        directories[:] = [name for name in directories if not name.endswith("-packages")]
        for name in names:
            path = os.path.join(place, name)
            if name.endswith(".py") and _SMALLEST <= (size := os.path.getsize(path)) <= _LARGEST:
                yield path, size


def make(key: Key) -> Value:
    """Read the file and make the value: this is the cost of a miss.

    Raises
    ------
    NotPython
        If the file can't be parsed. The library's tests contain such files on purpose.

    """
    what, path = key
    try:
        return _MAKERS[what](Path(path).read_bytes())
    except (SyntaxError, ValueError, RecursionError, tokenize.TokenError) as error:
        raise NotPython(path) from error


def stamp(value: Value) -> int:
    """Return a sum over some bytes of every other page. It is the same for the same value."""
    flat = np.frombuffer(value, np.uint8)
    return int(flat[::_STAMP_STRIDE].sum(dtype=np.uint64))
