"""Ten programs of the shapes in public reports of memory that stays after it was freed.

Each module has `work`, which returns what the program goes on holding, and its docstring names the
report. All code is this project's own. Numbers are pseudo-random, so each run does the same.
"""
