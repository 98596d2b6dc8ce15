"""What a Python user would pick instead of Warren, for one worker: a Celery task that does the work of
`tests/guests/tally`, with the same guarantees. `./worker` starts it."""

import os
from itertools import count

from celery import Celery, signals
from kombu import Exchange, Queue

QUEUE = os.environ["QUEUE"]
# Threads, or processes in a pool of those: README.md has what each brought.
CONCURRENCY = int(os.environ.get("CONCURRENCY", 4))
PREFETCH = int(os.environ.get("PREFETCH", 256))

app = Celery("tally", broker=os.environ["BROKER"], backend="rpc://")
app.conf.update(
    # The queue is there, with the arguments that its owner has given it. Celery only has to know that it
    # is a quorum queue: it then bounds deliveries for each consumer, the only way that such queues know.
    task_queues=[
        Queue(
            QUEUE,
            Exchange(""),
            routing_key=QUEUE,
            no_declare=True,
            queue_arguments={"x-queue-type": "quorum"},
        )
    ],
    worker_detect_quorum_queues=True,
    task_default_queue=QUEUE,
    # At least once: acknowledged when it is done and its reply is confirmed, run again when its process
    # dies, a dead letter when it fails.
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_acks_on_failure_or_timeout=False,
    broker_transport_options={"confirm_publish": True},
    # Replies as Warren sends them. A task that nobody waits for says so in its own header, `ignore_result`.
    result_persistent=False,
    # As many deliveries under way as the others have.
    worker_concurrency=CONCURRENCY,
    worker_prefetch_multiplier=max(1, PREFETCH // CONCURRENCY),
    # What costs a message or a wake-up and nobody here looks at.
    worker_enable_remote_control=False,
    worker_send_task_events=False,
    # For tasks with an ETA, which are none here; Celery declares their queues for whoever has quorum queues.
    broker_native_delayed_delivery_queue_type="classic",
    # Signals are looked at when something wakes the loop, three times for each heartbeat.
    broker_heartbeat=6,
    worker_redirect_stdouts=False,
    task_serializer="json",
    result_serializer="json",
    accept_content=["json"],
    broker_connection_retry_on_startup=False,
)

runs = count(1)


@app.task(name="tally.run")
def run(order):
    n_runs = next(runs)
    if order is None:
        return None
    items = order.get("items", [])
    total = sum(item["price"] * item["count"] for item in items)
    return {"items": len(items), "total": total, "runs": n_runs}


@signals.worker_ready.connect
def ready(**_):
    print("ready", flush=True)
