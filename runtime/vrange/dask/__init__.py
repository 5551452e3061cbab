"""vrange in the workers of a Dask cluster: memory that Dask can count on, and data that gives way.

>>> from dask.distributed import Client, LocalCluster
>>> import vrange.dask
>>> if __name__ == "__main__":
...     cluster = LocalCluster(data=vrange.dask.VolatileBuffer)
...     client = Client(cluster)
...     client.register_plugin(vrange.dask.Plugin())

Without a line of code, ``dask worker --preload vrange.dask …`` or, in Dask's configuration,
``distributed.worker.preload: [vrange.dask]`` does what the plugin does.
"""

try:
    import distributed
except ImportError as error:
    raise ImportError(
        "vrange.dask needs Dask's distributed, which is an extra: pip install 'vrange[dask]'"
    ) from error

from vrange.dask.buffer import VolatileBuffer
from vrange.dask.cached import cached
from vrange.dask.plugin import MallocPlugin, Plugin, dask_setup
from vrange.dask.policy import DropReplicas

__all__ = ["DropReplicas", "MallocPlugin", "Plugin", "VolatileBuffer", "cached", "dask_setup"]

del distributed
