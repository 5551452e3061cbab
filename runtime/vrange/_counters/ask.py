"""Ask another process of this user for something; requests.py is the other side of it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from vrange._core import ffi, lib
from vrange._counters.descriptor import Descriptor
from vrange._counters.processes import directories, is_alive, segment_files
from vrange._counters.requests import BYTES_MOST
from vrange._counters.segment import SegmentRefusedError, open_segment
from vrange.errors import VrangeError

__all__ = ["NotListeningError", "NotPreparedError", "ask"]

_LOOK_SECONDS = 0.02
_TAKEN_SECONDS = 5.0  # the caretaker looks at least once a second
_OLD_SECONDS = 3600.0
_ENDING = ffi.string(lib.VRANGE_REQUEST_ENDING).decode()


class NotListeningError(VrangeError):
    """The process was not prepared for requests, or does not take them now."""


class NotPreparedError(NotListeningError):
    """The process was not prepared for requests."""


def ask(pid: int, request: Mapping[str, Any], patience: float) -> dict[str, Any]:
    """Return the answer of process `pid` to a request.

    Parameters
    ----------
    pid : int
        The process.
    request : Mapping[str, Any]
        What its `answer` gets.
    patience : float
        The seconds within which it has to answer once it has taken the request.

    Raises
    ------
    NotPreparedError
        If it is no process of this user that uses vrange.
    NotListeningError
        If it does not take the request.
    VrangeError
        If it ends, does not answer in time, or answers with an error.

    """
    segment = _segment_of(pid)
    if segment is None:
        raise NotPreparedError(f"process {pid} is none of this user's that uses vrange")
    _remove_old(segment.parent)
    path = segment.with_suffix(_ENDING)
    text = json.dumps(request).encode() + b"\n"
    held = _put(path, text, pid)
    try:
        _wait_taken(path, held, segment, pid)
        answer = _wait_answer(held, len(text), segment, pid, patience)
    finally:
        held.close()
    if "error" in answer:
        raise VrangeError(f"process {pid} answers: {answer['error']}")
    return answer


def _segment_of(pid: int) -> Path | None:
    for directory in directories():
        for path in segment_files(directory):
            with suppress(SegmentRefusedError, OSError), open_segment(path) as segment:
                if segment.fields.pid == pid and is_alive(segment, path):
                    return path
    return None


def _put(path: Path, text: bytes, pid: int) -> Descriptor:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    deadline = time.monotonic() + _TAKEN_SECONDS
    while True:
        try:
            held = Descriptor(os.open(path, flags, 0o600))
        except FileExistsError:
            if time.monotonic() > deadline:
                raise NotListeningError(
                    f"another request to process {pid} waits already: {path}"
                ) from None
            time.sleep(_LOOK_SECONDS)
            continue
        os.write(held.number, text)
        return held


def _wait_taken(path: Path, held: Descriptor, segment: Path, pid: int) -> None:
    deadline = time.monotonic() + _TAKEN_SECONDS
    try:
        while os.fstat(held.number).st_nlink:
            if _has_ended(segment):
                raise VrangeError(f"process {pid} has ended")
            if time.monotonic() > deadline:
                raise NotListeningError(
                    f"process {pid} does not take requests: it is stopped, or holds Python's lock "
                    "(GIL) in a long call, or nothing of vrange runs in it yet"
                )
            time.sleep(_LOOK_SECONDS)
    except BaseException:
        with suppress(FileNotFoundError):
            path.unlink()
        held.close()
        raise


def _wait_answer(
    held: Descriptor, asked: int, segment: Path, pid: int, patience: float
) -> dict[str, Any]:
    deadline = time.monotonic() + patience
    while True:
        ended = _has_ended(segment)  # first: what it wrote before its end counts
        told = os.pread(held.number, BYTES_MOST, asked)
        if told.endswith(b"\n"):
            answer: dict[str, Any] = json.loads(told)
            return answer
        if ended:
            raise VrangeError(f"process {pid} has ended before it answered")
        if time.monotonic() > deadline:
            raise VrangeError(f"process {pid} has not answered within {patience:g} s")
        time.sleep(_LOOK_SECONDS)


def _has_ended(path: Path) -> bool:
    try:
        with open_segment(path) as segment:
            return is_alive(segment, path) is False
    except (SegmentRefusedError, OSError):
        return True  # it is removed at exit


def _remove_old(directory: Path) -> None:
    """Remove requests whose makers and receivers were both killed."""
    for path in directory.glob(f"*{_ENDING}"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _OLD_SECONDS:
                path.unlink()
