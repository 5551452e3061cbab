"""Who survives a burst at a full memory limit: `python -m benchmarks.survival`.

A process in a memory cgroup fills a cache until its limit is reached. Then the application, another
process or the kernel needs memory: a burst. A cache that never does harm gives way in time. The
kernel kills otherwise.

Modules, from the ground: `matrix` lists what is tried; `contents` is the values; `caches` the
contenders; `bursts` and `forked` the shapes of bursts; `program` is what runs in the cgroup;
`kernel_log` reads what the kernel writes about a kill; `runner` runs one program and judges;
`record` keeps runs, so that a long series can go on; `tables` shows them.
"""
