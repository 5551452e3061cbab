"""A list of dicts is built and filtered down to one in a thousand.

https://stackoverflow.com/questions/15455048/releasing-memory-in-python
"""


def work() -> object:
    rows = [{"number": number, "text": str(number)} for number in range(1_500_000)]
    return rows[::1000]
