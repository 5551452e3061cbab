"""Each claim of the README, measured beside its peers: `python -m benchmarks.NAME [--quick]`.

| module | claim |
| --- | --- |
| cache_under_pressure | survives a memory limit; does more per CPU-second than a polling LRU |
| decorated_hit | a hot hit costs what functools.lru_cache costs; no GIL convoy; small values |
| release | constant from 64 KiB to 64 MiB, without a system call |
| bookkeeping | bytes per entry, for large values and for a million small ones |
| refault | refilling a lost block costs what its content costs; resident blocks cost nothing |
| scale | large caches clear, close, count and fork without delay to other threads |
| metrics | recording costs next to nothing on a hit, and a scrape costs little |

Times are never claimed by themselves. What is compared was run alternately, in one process or one
sitting, and the claim is a ratio. Every benchmark checks that what it measures really happened.
"""
