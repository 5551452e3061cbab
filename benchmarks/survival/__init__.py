"""Who survives a burst at a full memory limit: `python -m benchmarks.survival`.

A process in a memory cgroup fills a cache until its limit is reached. Then the application, another
process or the kernel needs memory: a burst. A cache that never does harm gives way in time. The
kernel kills otherwise.

Modules, from the ground: `matrix` lists the cases, `contents` makes the values, `caches` has the
contenders, `bursts` and `forked` have the shapes of bursts, `program` runs in the cgroup,
`kernel_log` reads the kernel's lines about a kill, `runner` runs one program and judges it,
`record` keeps runs so that a long series can go on, and `tables` shows them.
"""
