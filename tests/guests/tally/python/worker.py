"""What `tally` does, in Python."""

import warren
from warren import bus, done, forward

runs = 0


@warren.worker(type="TALLY", summary="Adds up a small order, to measure what a run costs", version="1.0.0")
def handle(job):
    global runs
    runs += 1
    order = job.json()
    if order is None:
        return done()
    if "ask" in order:
        return forward(bus.call(order["ask"], None))
    items = order.get("items", [])
    total = sum(item["price"] * item["count"] for item in items)
    return forward({"items": len(items), "total": total, "runs": runs})
