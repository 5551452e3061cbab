"""Spilling, restarts and memory of Dask's workers: plain, and with vrange."""
