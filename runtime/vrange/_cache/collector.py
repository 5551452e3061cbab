"""The parts of a value that is being coded, and the memory that storing them takes.

Encoding a value must not run the process out of memory. So a value is written into its range
directly from its own memory, in pieces if needed. The pickle of many small objects is collected in
frames of 64 KiB, each of which is freed once it is written. Large strings, bytes and arrays stay
out of the pickle. While the parts are collected, memory for writing them is reserved, and the first
refusal ends the encoding (MemoryError).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from vrange._cache.array_layout import STEP_BYTES, Strided
from vrange._core import hit, lib
from vrange.errors import VrangeError

SLACK_BYTES = 4 << 20  # for parts that are collected before the next reservation
TEXT_STEP = 1 << 20  # characters that are encoded in one step
MEMO_BYTES = 48  # per object, in a pickler's table that has just grown


class Collector:
    """The parts of a value, and a reservation for those that are not in memory of ours yet."""

    def __init__(self, room: hit.Room, bytes_most: int) -> None:
        self.parts: list[Any] = []
        self.nbytes = 0
        self.objects = 0
        self._temporary = 0
        self._room = room
        self._most = bytes_most
        self._asked_at = 0

    def anew(self) -> Collector:
        """Return an empty collector with the same reservation."""
        return Collector(self._room, self._most)

    def form(
        self,
        decode: Callable[..., Any],
        *,
        refers: bool = False,
        is_view: bool = False,
        is_private: bool = False,
        nbytes: int | None = None,
    ) -> hit.Form:
        """Return the collected parts as a Form with `decode`; `nbytes` includes padding."""
        if nbytes is not None:
            self.nbytes = nbytes
        is_large = self.nbytes >= hit.ROOM_BYTES
        has_strided = any(type(part) is Strided for part in self.parts)
        in_pieces = self._temporary > hit.ROOM_BYTES or (
            is_large and (has_strided or lib.vrange_rung() != lib.VRANGE_RUNG_REFAULT)
        )
        if in_pieces:
            parts: tuple[Any, ...] = ()
            write = self._write_pieces
        else:
            parts = tuple(p.content() if type(p) is Strided else p for p in self.parts)
            write = None
        return hit.Form(
            parts,
            decode,
            refers=refers,
            is_view=is_view,
            is_private=is_private,
            nbytes=self.nbytes if in_pieces else 0,
            write=write,
            room=None if in_pieces else self._room,
        )

    def _write_pieces(self, lease: hit.Lease) -> None:
        """Write the parts one after the other; drop each temporary part once it is written."""
        owed = self.nbytes - self._temporary
        parts, at, asked_at = self.parts, 0, 0
        parts.reverse()
        while parts:
            part = parts.pop()
            if type(part) is Strided:
                at = asked_at = self._write_strided(part, lease, at, owed)
                continue
            done, nbytes = 0, len(part) if type(part) is str else memoryview(part).nbytes
            while done < nbytes:
                if at + done >= asked_at:
                    # The written bytes use memory, and what is freed for them may not be free yet.
                    self._before_step(owed - at - done)
                    asked_at = at + done + STEP_BYTES
                done += hit.write(lease, at + done, part, done, STEP_BYTES)
            at += nbytes
        if at != self.nbytes:  # the missing bytes would be read as zeros
            raise VrangeError(f"{at} bytes were written of {self.nbytes}")

    def _write_strided(self, part: Strided, lease: hit.Lease, at: int, owed: int) -> int:
        """Write a strided array; return the offset after it."""
        after = at + part.nbytes
        part.write(lease, at, lambda left: self._before_step(left + owed - after))
        return after

    def _before_step(self, left: int) -> None:
        """Reserve memory for the bytes that are still to be written."""
        self._room.hold(max(0, left) + lib.VRANGE_OTHERS_BYTES)

    def owe(self, nbytes: int) -> None:
        """Count bytes of the caller's that are to be copied."""
        self.nbytes += nbytes
        self._ask()

    def write(self, data: Any) -> None:
        """Add a pickler's output: a frame of the pickler, or a bytearray of the caller's."""
        self.parts.append(data)
        if type(data) is bytes:
            self._temporary += len(data)
        self.owe(len(data))

    def add_text(self, leaf: str | bytes) -> int:
        """Add a str or bytes whose length is counted already; return the number of its bytes."""
        if isinstance(leaf, bytes) or leaf.isascii():
            self.parts.append(leaf)
            return len(leaf)
        nbytes = 0
        for at in range(0, len(leaf), TEXT_STEP):
            text = leaf[at : at + TEXT_STEP]
            piece = text.encode("utf-8", "surrogatepass")
            self.parts.append(piece)
            self._temporary += len(piece)
            self.owe(len(piece) - len(text))
            nbytes += len(piece)
        return nbytes

    def watch(self, value: Any) -> None:
        """Reserve memory for a leaf, or for a copy of an object's buffer, before it is pickled."""
        kind, numpy = type(value), sys.modules.get("numpy")
        if kind is str or kind is bytes:
            self.owe(len(value))
            return
        if numpy is not None and kind is numpy.ndarray:
            self.owe(value.nbytes)
            return
        try:
            with memoryview(value) as view:
                nbytes = view.nbytes
        except (BufferError, TypeError, ValueError):
            return  # arrays of datetimes, for example, which export no buffer and are not copied
        if nbytes >= hit.ROOM_BYTES:
            self._room.hold(self.nbytes - self._temporary + 2 * nbytes)
            self._asked_at = 0

    def tell(self, objects: int) -> None:
        """Count the pickled objects, and reserve memory for the pickler's table of them."""
        self.objects = objects
        self._room.hold(self.nbytes - self._temporary + SLACK_BYTES + objects * MEMO_BYTES)
        self._asked_at = self.nbytes

    def _ask(self) -> None:
        if self.nbytes > self._most:
            raise MemoryError("the value is larger than the cache may store")
        if self.nbytes >= self._asked_at + hit.ROOM_BYTES:
            self._asked_at = self.nbytes
            memo = self.objects * MEMO_BYTES
            self._room.hold(self.nbytes - self._temporary + SLACK_BYTES + memo)


def room_for(nbytes: int) -> hit.Room:
    """Return a reservation of `nbytes`, held while the object lives. MemoryError without room."""
    room = hit.Room()
    room.hold(nbytes)
    return room


def copy_within_room(array: Any) -> Any:
    """Return a copy of an array. MemoryError without room."""
    room = room_for(array.nbytes)
    copy = array.copy("K")
    room.release()
    return copy
