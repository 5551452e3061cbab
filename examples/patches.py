"""Every patch of a photograph as a row of one matrix, which is far larger than memory.

    python examples/patches.py [--image FILE] [--patch 12] [--limit 256MiB]

Texture search, denoising and dictionary learning all begin with "take every 12 x 12 patch, bring it
to mean 0 and length 1, and stack them". The rows overlap almost wholly, so a photograph of 2
million pixels becomes a matrix of 1.1 GB. Here that matrix is a VolatileArray: its rows are
computed from the photograph where they are touched, the kernel reclaims them when it needs memory,
and the code that uses the matrix is plain NumPy.

The program runs itself twice in a memory cgroup with a limit far below the matrix: with an ordinary
array, which makes the kernel kill it, and with the volatile one. If no cgroup can be made (that
needs root), it says so, and runs the second without a limit.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numba import types

import vrange
from vrange.cli.memory_cgroup import MemoryCgroup
from vrange.sizes import format_bytes, parse_bytes


def photograph(path: str | None) -> np.ndarray[Any, Any]:
    """Return it in grey, from 0 to 1. The default is an image of a retina from scikit-image."""
    import imageio.v3
    import skimage

    file = path or Path(skimage.__file__).parent / "data" / "retina.jpg"
    pixels = imageio.v3.imread(file).astype("f4") / 255
    return np.ascontiguousarray(pixels.mean(axis=2) if pixels.ndim == 3 else pixels)


def patch_rows(image: np.ndarray[Any, Any], side: int) -> vrange.fills.native:
    """Return the fill for rows: compiled, without Python, it runs in a touch on any thread."""
    width = image.shape[1]
    across, length = width - side + 1, side * side

    pointer: Any = types.CPointer(types.f4)  # type: ignore[no-untyped-call]  # numba's

    @numba.cfunc(types.intc(pointer, types.uintp, types.uintp, pointer), error_model="numpy")
    def rows(to: Any, offset: Any, nbytes: Any, pixels: Any) -> int:
        out = numba.carray(to, nbytes // 4)  # type: ignore[attr-defined]  # numba lists no exports
        # Integers of 64 bits to numba; min() of two types is neither to mypy.
        done: Any = np.int64(0)
        total: Any = np.int64(nbytes // 4)
        while done < total:
            element = np.int64(offset // 4) + done
            row, first = element // length, element % length
            corner = row // across * width + row % across
            sum1 = sum2 = np.float32(0)
            for y in range(side):
                for x in range(side):
                    value = pixels[corner + y * width + x]
                    sum1 += value
                    sum2 += value * value
            mean = sum1 / length
            scale = 1 / np.sqrt(max(sum2 - sum1 * mean, np.float32(1e-6)))
            # A block may begin or end in the middle of a row.
            for i in range(first, min(length, first + total - done)):
                value = pixels[corner + i // side * width + i % side]
                out[done + i - first] = (value - mean) * scale
            done += min(length - first, total - done)
        return 0

    return vrange.fills.native(rows, image.ctypes.data)


def ordinary(image: np.ndarray[Any, Any], side: int) -> np.ndarray[Any, Any]:
    """Return the same matrix in the usual way."""
    windows = np.lib.stride_tricks.sliding_window_view(image, (side, side))
    matrix = windows.reshape(-1, side * side)  # this makes the copy
    matrix -= matrix.mean(axis=1, keepdims=True)
    matrix /= np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-3)
    return matrix


def use(matrix: np.ndarray[Any, Any], across: int, tell: Any) -> None:
    """Do a typical computation with patches. This code doesn't depend on the kind of matrix."""
    start = time.perf_counter()
    covariance = matrix.T @ matrix
    strength, pictures = np.linalg.eigh(covariance)
    share = strength[::-1][:8].sum() / strength.sum()
    tell(f"8 principal patches of {len(strength)} explain {share:.0%} of all of them", start)

    start = time.perf_counter()
    edges = matrix @ pictures[:, -1]
    y, x = divmod(int(np.abs(edges).argmax()), across)
    tell(f"the one most like the first of them is at row {y}, column {x}", start)

    start = time.perf_counter()
    random = np.random.default_rng(0)
    wanted = matrix[random.integers(0, len(matrix), 16)]
    likeness = np.concatenate([part @ wanted.T for part in np.array_split(matrix, 64)])
    alike = (likeness > 0.8).sum(axis=0)
    tell(f"16 picked at random have {int(np.median(alike))} patches like them each", start)


def run(image: np.ndarray[Any, Any], side: int, fill: vrange.fills.native, how: str) -> None:
    """Run the computation in the child."""
    height, width = image.shape
    across, down = width - side + 1, height - side + 1
    shape = (across * down, side * side)
    if how == "ordinary":
        use(ordinary(image, side), across, lambda text, start: print(f"  {text}"))
        return
    with vrange.VolatileArray(
        shape, "f4", fill=fill, block_bytes="256KiB", name="patches"
    ) as patches:

        def tell(text: str, start: float) -> None:
            print(
                f"  {text}\n    {time.perf_counter() - start:.1f} s; "
                f"{format_bytes(patches.resident_bytes)} of {format_bytes(patches.nbytes)} "
                f"resident, {patches.refaults} refaults, "
                f"{format_bytes(patches.refilled_bytes)} put back so far",
                flush=True,
            )

        matrix = np.asarray(patches)
        pick = shape[0] // 3
        row = image[pick // across :][:side, pick % across :][:, :side].ravel()
        row = (row - row.mean()) / max(float(np.linalg.norm(row - row.mean())), 1e-3)
        assert np.allclose(matrix[pick], row, atol=1e-4), "the fill is wrong"
        use(matrix, across, tell)


def child(work: Callable[[str], None], how: str, group: MemoryCgroup | None) -> int:
    """Run a child and return its exit status; negative: the signal that ended it."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            if group:
                group.add(os.getpid())
            work(how)
            status = 0
        except (MemoryError, vrange.VrangeError) as error:
            print(f"  {error}")
        finally:
            sys.stdout.flush()
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image", help="a photograph of your own")
    parser.add_argument("--patch", type=int, default=12, help="how wide and high a patch is")
    parser.add_argument("--limit", default="256MiB", help="how much memory there is to be")
    arguments = parser.parse_args()
    limit = parse_bytes(arguments.limit, "limit")
    image, side = photograph(arguments.image), arguments.patch
    height, width = image.shape
    fill = patch_rows(image, side)  # compiled here, once
    nbytes = (width - side + 1) * (height - side + 1) * side * side * 4
    print(f"{width} x {height} pixels: all patches take {format_bytes(nbytes)}")

    def work(how: str) -> None:
        run(image, side, fill, how)

    refusal = MemoryCgroup.unavailable()
    if refusal:
        print(f"without a limit, because {refusal}\nas a VolatileArray:")
        return child(work, "volatile", None)
    with MemoryCgroup(limit) as group:
        print(f"as an ordinary array, in {format_bytes(limit)} of memory:")
        status = child(work, "ordinary", group)
        killed = status == -signal.SIGKILL and group.oom_kills
        print("  killed by the kernel" if killed else f"  ended with status {status}", flush=True)
        print(f"as a VolatileArray, in {format_bytes(limit)} of memory:")
        kills = group.oom_kills
        status = child(work, "volatile", group)
        print("  ended well" if status == 0 else f"  ended with status {status}")
        return 0 if status == 0 and group.oom_kills == kills else 1


if __name__ == "__main__":
    sys.exit(main())
