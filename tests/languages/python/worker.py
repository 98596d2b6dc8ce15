"""Fails as a job says: `{"do": "<word>"}`. The words are those of the table in guests/README.md."""

import sys

import warren
from warren import Reject, Retry, bus, forward, route, sql


def reject(job):
    raise Reject("it says no")


def retry(job):
    raise Retry("not yet", after=0.01)


def exception(job):
    raise TypeError("a mistake of mine")


def memory(job):
    held = []
    while True:
        held.append(bytearray(1 << 20))


def recursion(job):
    sys.setrecursionlimit(1_000_000)

    def deeper(n):
        return 1 + deeper(n + 1)

    return forward(deeper(0))


def loop(job):
    while True:
        pass


def leave(job):
    sys.exit(3)


def send(job):
    bus.send("not a stop", {})
    return forward({})


DEEDS = {
    "reply": lambda job: forward({"text": "done"}),
    "reject": reject,
    "retry": retry,
    "exception": exception,
    "memory": memory,
    "recursion": recursion,
    "loop": loop,
    "exit": leave,
    "call": lambda job: forward(bus.call("NOBODY:*", {})),
    "send": send,
    "sql": lambda job: forward(sql.query("SELECT FROM")),
    "data": lambda job: forward(job.json({"missing": str})),
    "size": lambda job: forward("x" * 200 * 1024),
    "route": lambda job: route("not a stop", {}),
}


@warren.worker(type="LANG-PYTHON", summary="Fails as it is told, in Python")
def handle(job):
    return DEEDS[job.json()["do"]](job)
