"""Writes an array to a file by parts that are pinned, so that no system call reads a lost page."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

import numpy as np

if TYPE_CHECKING:
    from typing_extensions import Buffer

Array = np.ndarray[Any, Any]


def write_parts(parts: Iterable[Array], file: Any) -> None:
    """Write the bytes of some 1-D arrays, one after the other, to a path or a file object."""
    if not hasattr(file, "write"):
        with open(file, "wb") as opened:
            write_parts(parts, opened)
        return
    for part in parts:
        _write_all(memoryview(cast("Buffer", part.view(np.uint8))), file)


def _write_all(content: memoryview, file: Any) -> None:
    while content:
        written = file.write(content)
        if not isinstance(file, io.RawIOBase):
            return
        # A raw file may take less than it was given, and None means that it would block.
        if written is None:
            raise BlockingIOError(f"{file!r} does not take more bytes now")
        content = content[written:]


def save(file: Any, arr: Any, allow_pickle: bool = True, **options: Any) -> None:
    """Write what np.save writes, without reading more of a volatile array at a time than a part.

    Parameters
    ----------
    file : path-like or binary file object
        As in np.save: a path gets the ending ".npy" if it lacks that.
    arr : AsNdarray
        A volatile array. It has no objects, so `allow_pickle` does not matter.
    allow_pickle, **options
        As in np.save.

    """
    if not hasattr(file, "write"):
        path = os.fspath(file)
        ending = b".npy" if isinstance(path, bytes) else ".npy"
        with open(path if path.endswith(ending) else path + ending, "wb") as opened:
            save(opened, arr)
        return
    # The header comes from shape and dtype. Reading them touches no memory.
    header = np.lib.format.header_data_from_array_1_0(arr._unpinned())
    try:
        np.lib.format.write_array_header_1_0(file, header)
    except UnicodeEncodeError:  # names of fields that version 3.0 writes, without a function for it
        np.save(file, np.array(arr, copy=True))
        return
    except ValueError:  # more than 64 KiB of names
        np.lib.format.write_array_header_2_0(file, header)
    write_parts(arr._parts(), file)
