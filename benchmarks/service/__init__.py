"""What a service of several processes needs, and what it survives: `python -m benchmarks.service`.

- `memory.py`: workers in one memory cgroup, with one cache or one each; bursts in one of them.
- `kills.py`: workers that are killed at random while they store, replace, remove and compute.
- `workers.py` is the program in the cgroup.
"""
