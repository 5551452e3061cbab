"""A typical data job, plain and under `vrange run`: `python -m examples.data_job`."""
