"""The names of what the native side numbers. A number is an index into its tuple.

tests/counters/test_names.py compares them with the numbers in vrange.h and with the names that
VRANGE_RUNG takes.
"""

KINDS = ("arena", "cache", "array", "stack", "heap")  # VRANGE_KIND_
RUNGS = ("eager", "sentinel", "refault")  # VRANGE_RUNG_, which begins at 1: 0 is no rung
