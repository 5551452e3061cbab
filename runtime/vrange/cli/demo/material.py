"""The demo's input: the source files of the running interpreter's standard library.

Three things are made of each file, all of which somebody really caches: its syntax tree, pickled;
its tokens, as an array of kinds and places; and an index of its shingles, to find near copies by.
Each takes milliseconds to make and some hundred kilobytes to keep.
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
Key: TypeAlias = tuple[str, str]  # what is made, of which file

_SMALLEST, _LARGEST = 8 << 10, 128 << 10
_VALUE_BYTES_OF_SOURCE_BYTE = 14.0  # of all three together, as measured; it only sizes the choice
_SHINGLE_BYTES = 8
_STAMP_STRIDE = 512


class NotPython(Exception):
    """A file that can't be parsed or tokenised; its path is the argument."""


def syntax_tree(source: bytes) -> bytes:
    """Parse it, and pickle the tree."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what the library's tests do on purpose
        return pickle.dumps(ast.parse(source), protocol=5)


def tokens(source: bytes) -> Array:
    """Tokenise it: kind, exact kind, start line and column, end line and column of each."""
    return np.array(
        [
            (token.type, token.exact_type, *token.start, *token.end)
            for token in tokenize.tokenize(io.BytesIO(source).readline)
        ],
        dtype=np.int32,
    )


def shingles(source: bytes) -> Array:
    """Sort the hashes of all its eight-byte pieces."""
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
    """Choose files, at random, until what is made of them is about `value_bytes`; fewer if few.

    Returns what to make of which file, in the order to make it in.

    Example:
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
    # The cheap half of the bytes first: a slow machine may not get through, and still has enough.
    return sorted(shuffled, key=lambda key: key[0] != "shingles")


def _files(directory: str) -> Iterator[tuple[str, int]]:
    """The library's source files that are neither tiny nor huge, and their sizes in bytes."""
    for place, directories, names in os.walk(directory):
        # What was installed beside the library differs from machine to machine.
        directories[:] = [name for name in directories if not name.endswith("-packages")]
        for name in names:
            path = os.path.join(place, name)
            if name.endswith(".py") and _SMALLEST <= (size := os.path.getsize(path)) <= _LARGEST:
                yield path, size


def make(key: Key) -> Value:
    """Read the file and make the value: what a miss costs.

    Raises:
        NotPython: The library's tests have files that can't be parsed, on purpose.

    """
    what, path = key
    try:
        return _MAKERS[what](Path(path).read_bytes())
    except (SyntaxError, ValueError, RecursionError, tokenize.TokenError) as error:
        raise NotPython(path) from error


def stamp(value: Value) -> int:
    """Read some bytes of every other page. The same value gives the same stamp every time."""
    flat = np.frombuffer(value, np.uint8)
    return int(flat[::_STAMP_STRIDE].sum(dtype=np.uint64))
