"""The photographs, from the scikit-image package, and the sizes in which they are requested."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

SIZES = range(16, 257)
NAMES = ("astronaut", "camera", "chelsea", "coffee", "coins", "hubble_deep_field", "moon", "retina")


def _find() -> dict[str, Path]:
    found = find_spec("skimage")
    if found is None or found.origin is None:
        raise ImportError("the photographs come with scikit-image: pip install scikit-image")
    files = Path(found.origin).with_name("data").iterdir()
    return {path.stem: path for path in sorted(files) if path.stem in NAMES}


PHOTOGRAPHS = _find()
