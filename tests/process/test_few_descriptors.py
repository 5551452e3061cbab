"""A program with a low RLIMIT_NOFILE keeps nearly all of its descriptors."""

from __future__ import annotations

from support import succeeds


def test_the_descriptors_are_the_programs() -> None:
    code = """
    import os, resource
    import numpy as np
    import vrange

    resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24))

    def open_all():
        files = []
        try:
            while True:
                files.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            return files

    without = open_all()
    for file in without:
        os.close(file)

    @vrange.cached
    def tile(n):
        return np.full(30_000, n)

    for n in range(50):
        tile(n)
    vrange.pressure.watch().close()
    with_cache = open_all()
    assert len(with_cache) >= len(without) - 2, (len(without), len(with_cache))
    # None is left, and the cache works all the same: also in a child, which opens its own.
    assert all((tile(n % 70) == n % 70).all() for n in range(500))
    pid = os.fork()
    if not pid:
        os._exit(0 if all((tile(n) == n).all() for n in range(60)) else 1)
    assert os.waitpid(pid, 0)[1] == 0
    """
    succeeds(code)
