"""Greets by name: `{"name": "Ripley"}` is answered with `{"text": "Hello, Ripley!"}`."""

import warren
from warren import Reject, forward, log, metrics


@warren.worker(type="{{type}}", summary="Greets by name", version="0.1.0")
def handle(job):
    # Data of another shape is rejected, with the field that is wrong.
    name = job.json({"name": str})["name"]
    if not name:
        raise Reject("there is nobody to greet")
    metrics.count("greetings_total")
    log.info(f"greeting {name}")
    return forward({"text": f"Hello, {name}!"})
