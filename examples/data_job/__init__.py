"""A data job as people write them, plain and under `vrange run`: `python -m examples.data_job`."""
