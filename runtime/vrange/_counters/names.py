"""The names of what the native side numbers (names.c). A number is an index into its tuple."""

from vrange._core import lib, names

KINDS = names(lib.VRANGE_NAMES_KINDS)
RUNGS = names(lib.VRANGE_NAMES_RUNGS)[1:]  # their numbers begin at 1: 0 is no rung
OUTCOMES = names(lib.VRANGE_NAMES_REQUESTS)
# Pairs of a metric and one of its label's values.
LATENCIES = tuple((m, w) for m, w in map(str.split, names(lib.VRANGE_NAMES_LATENCIES)))
PRESSURE_LEVELS = names(lib.VRANGE_NAMES_PRESSURE_LEVELS)  # the first is "": nothing watches
PRESSURE_ACTIONS = names(lib.VRANGE_NAMES_PRESSURE_ACTIONS)
PRESSURE_OUTCOMES = names(lib.VRANGE_NAMES_PRESSURE_OUTCOMES)
