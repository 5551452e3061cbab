"""The keys and values of a shared cache, for those who look at it without using it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from vrange import _stable_keys as stable_keys
from vrange._core import lib
from vrange._service import blob
from vrange._service.known import Known
from vrange._service.values import ABSENT, SharedValues

__all__ = ["keys_of", "peek"]


def keys_of(values: SharedValues) -> Iterator[Any]:
    """Yield the keys. Those whose form is longer than a record holds are left out."""
    unshared = values.unshared_now()
    seen = {known.form for known in unshared}
    yield from (stable_keys.key_of(known.form) for known in unshared)
    for found in values.index.records():
        with suppress(Exception):  # torn, or of a type that this process can't import
            form = blob.key_form(found.payload, in_note=found.kind == lib.VRANGE_RECORD_RANGE)
            if form in seen:
                continue
            seen.add(form)
            yield stable_keys.key_of(form)


def peek(values: SharedValues, known: Known, *, copies: bool) -> Any:
    """Return the value of a key, or ABSENT. It counts as no request and no use."""
    found = values.index.find(known.digest)
    if found is None or found.kind == lib.VRANGE_RECORD_ERROR:
        return values.core.peek(known.stamp, ABSENT) if values.has_here(known) else ABSENT
    is_range = found.kind == lib.VRANGE_RECORD_RANGE
    if is_range and values.index.is_own(found):
        return values.core.peek(found.stamp, ABSENT)
    try:
        copy = values.index.read(found) if is_range else None
    except MemoryError:
        return ABSENT
    if is_range and copy is None:
        return ABSENT
    data = found.payload if copy is None else copy.view()
    is_lent = copy is not None and copy.is_lent
    try:
        return blob.value_in(
            data, found.stamp, known.digest, known.form, copies=copies, is_lent=is_lent
        )
    except Exception:  # torn, or of a type that this process can't import
        return ABSENT
    finally:
        if copy is not None:
            copy.give_back()
