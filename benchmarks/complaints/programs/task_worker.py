"""A worker takes tasks with large pickled arguments, and keeps the small results.

https://github.com/celery/celery/issues/4125, https://github.com/celery/celery/issues/9234
"""

import pickle
import random


def task(message: bytes) -> dict[str, object]:
    orders = pickle.loads(message)
    sums: dict[str, float] = {}
    for order in orders:
        sums[order["customer"]] = sums.get(order["customer"], 0.0) + order["amount"]
    return {"orders": len(orders), "largest": max(sums, key=lambda name: (sums[name], name))}


def work() -> object:
    random.seed(1)
    results = []
    for count in (20_000, 150_000, 20_000, 100_000):
        orders = [
            {"customer": f"customer {random.randrange(3000)}", "amount": random.random() * 100,
             "items": [random.randrange(10**6) for _ in range(4)]}
            for _ in range(count)
        ]  # fmt: skip
        message = pickle.dumps(orders)
        del orders
        results.append(task(message))
    return results
