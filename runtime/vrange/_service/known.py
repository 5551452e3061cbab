"""What this process knows of a key of a shared cache."""

from __future__ import annotations

from vrange._service import stable_keys

__all__ = ["Known", "Token"]

Token = tuple[int, int, int, int]


class Known:
    """A key's form and digest, and the record that it had when this process looked last."""

    __slots__ = ("digest", "form", "reads", "token")

    def __init__(self, form: bytes) -> None:
        self.form, self.digest = form, stable_keys.digest_of(form)
        self.reads = 0
        # The index's generation, the place of the record's word, the word, and the stamp.
        self.token: Token | None = None
