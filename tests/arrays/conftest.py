"""Arrays of given content, made in each of the ways there are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from array_support import REFAULT

import vrange
from vrange import fills


@pytest.fixture(params=["native", "python in a touch", "python", "eager"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Any]:
    """Makes an array of given content, in each of the ways there are. Below the refault rung there
    is only one, and the others must be refused.
    """
    how = request.param

    def fill_from(content: np.ndarray[Any, Any]) -> Callable[..., None]:
        flat = content.reshape(-1)

        def fill(start: int, out: np.ndarray[Any, Any]) -> None:
            out[:] = flat[start : start + len(out)]

        return fill

    def made(content: np.ndarray[Any, Any], **options: Any) -> vrange.VolatileArray:
        fill: Any = fill_from(content)
        if how == "native":
            file = tmp_path / "content"
            file.write_bytes(b"head" + content.tobytes())
            fill = fills.file(file, 4)
        if how == "python in a touch":
            options["fault"] = "python"
        if how != "eager" and not REFAULT:
            with pytest.raises(vrange.VrangeError, match=r"needs the refault rung.*eager=True"):
                vrange.VolatileArray(
                    content.shape, content.dtype, fill=fill, eager=False, **options
                )
        eager = how == "eager" or not REFAULT
        return vrange.VolatileArray(content.shape, content.dtype, fill=fill, eager=eager, **options)

    return made
