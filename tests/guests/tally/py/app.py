"""What `tally` does, in Python."""

import json

from wit_world import exports
from wit_world.exports.descriptor import Description
from wit_world.imports import bus
from wit_world.imports.types import Job, Outcome, Outcome_Done, Outcome_Forward, Payload, Slip

JSON = "application/json"
runs = 0


class Descriptor(exports.Descriptor):
    def describe(self) -> Description:
        return Description(
            worker_type="TALLY",
            version="1.0.0",
            summary="Adds up a small order, to measure what a run costs",
            accepts=[JSON],
            annotations=[],
        )


class Handler(exports.Handler):
    def handle(self, job: Job) -> Outcome:
        global runs
        runs += 1
        order = json.loads(job.data.body)
        if order is None:
            return Outcome_Done()
        if "ask" in order:
            return Outcome_Forward(bus.call(Slip([order["ask"]], Payload(JSON, b"null")), None))
        total = sum(item["price"] * item["count"] for item in order["items"])
        answer = {"items": len(order["items"]), "total": total, "runs": runs}
        return Outcome_Forward(Payload(JSON, json.dumps(answer).encode()))
