"""Plugins that switch vrange on in every worker of a cluster, those that join later included."""

from __future__ import annotations

import os
from typing import Any

from distributed.diagnostics.plugin import NannyPlugin, WorkerPlugin

import vrange.malloc
import vrange.metrics
from vrange import _autostart
from vrange._autostart.settings import Settings
from vrange.dask.judges import spare_offered_soon
from vrange.dask.peers import join

__all__ = ["MallocPlugin", "Plugin", "dask_setup"]


class Plugin(WorkerPlugin):
    """Switch on in each worker what `vrange run` switches on in a program.

    - Arrays of all tasks come from vrange's heap (`vrange.heap.use_for_numpy`).
    - What the worker's allocators and its executor's stacks hold and nothing uses is returned to
      the system at intervals, and when the worker becomes idle. That is the largest part of what
      Dask's dashboard shows as unmanaged memory.
    - vrange's metrics are on the worker's own /metrics.
    - Workers get values of `vrange.dask.cached` from each other.
    - What is offered to the kernel no longer counts as the worker's memory: not for the worker, for
      the scheduler and its dashboard, or for the nanny.

    It works without the plugin that volatile memory gives way before the worker reacts to its
    memory limit: vrange finds that limit by itself in every worker.

    Parameters
    ----------
    numpy : bool, default True
        Whether arrays come from vrange's heap.
    trims : bool, default True
        Whether unused memory is returned.
    stacks : bool, default True
        Whether that includes the stacks of the worker's waiting threads.
    metrics : bool, default True
        Whether the worker's /metrics has vrange's.
    beyond_limit : bool, default True
        Whether offered bytes do not count as the worker's memory. Turn it off, in `VolatileBuffer`
        as well, where something else ends workers by their resident set.

    Notes
    -----
    It stays on until the process ends. If something can't be switched on in a worker, the rest is
    on, and the worker works. For large blocks of all libraries, see `MallocPlugin`.

    Examples
    --------
    >>> client.register_plugin(vrange.dask.Plugin())  # doctest: +SKIP

    """

    name = "vrange"
    idempotent = True

    def __init__(
        self,
        *,
        numpy: bool = True,
        trims: bool = True,
        stacks: bool = True,
        metrics: bool = True,
        beyond_limit: bool = True,
    ) -> None:
        self._settings = Settings(
            numpy=numpy, trim_every=None if trims else 0, stacks=stacks, watch=True
        )
        self._metrics = metrics
        self._beyond_limit = beyond_limit

    def setup(self, worker: Any) -> None:
        """Switch it on; Dask calls this in the worker."""
        _autostart.start(self._settings.told())
        if self._metrics:
            vrange.metrics.register()
        join(worker)
        if self._beyond_limit:
            spare_offered_soon(worker)


class MallocPlugin(NannyPlugin):
    """Start the workers anew with vrange's `malloc`, which serves large blocks of every library.

    A library must be loaded before a program starts, so the nannies restart their workers when
    this is registered. Workers without a nanny stay as they are: start those with
    ``LD_PRELOAD=$(python -m vrange.malloc) dask worker --no-nanny …``. A nanny sets the variable in
    its own process, too, where programs that are started later inherit it.

    Raises
    ------
    VrangeError
        On a nanny's machine without glibc, or if another allocator is preloaded there.

    Examples
    --------
    >>> client.register_plugin(vrange.dask.MallocPlugin())  # doctest: +SKIP

    """

    name = "vrange-malloc"
    restart = True

    def setup(self, nanny: Any) -> None:
        """Set the variable with which the next worker process starts."""
        nanny.pre_spawn_env["LD_PRELOAD"] = vrange.malloc.preload(os.environ)

    def teardown(self, nanny: Any) -> None:
        """Let the next worker process start without it."""
        nanny.pre_spawn_env.pop("LD_PRELOAD", None)


def dask_setup(worker: Any) -> None:
    """Do what `Plugin` does, for ``--preload vrange.dask``."""
    Plugin().setup(worker)
