"""Charges the rider's card, once for each ride. The bank is a table here, by the end of the card's number:
`0002` is declined, and `0003` gets no answer at the first attempt."""

import math

import warren
from warren import Reject, Retry, context, forward, metrics, sql

CENTS_TO_BEGIN = 390
CENTS_FOR_A_KILOMETRE = 230
KILOMETRES_OF_A_DEGREE = 111.2


@warren.worker(type="PAYMENT", summary="Charges riders", version="1.0.0")
def handle(job):
    ride = job.json({"id": str, "wanted": dict})
    wanted = ride["wanted"]
    cents = fare(place(wanted, "from"), place(wanted, "to"))
    charge(ride["id"], str(wanted.get("card", "")), cents)
    metrics.count("charged_total")
    return forward({**ride, "event": "paid", "cents": cents})


def charge(ride_id, card, cents):
    sql.execute("CREATE TABLE IF NOT EXISTS charges (ride_id TEXT PRIMARY KEY, cents INTEGER)")
    # A job that runs again, after a crash for instance, has been charged already.
    if sql.query("SELECT 1 FROM charges WHERE ride_id = $1", ride_id):
        return
    if not card.isdigit():
        raise Reject("there is no card to charge")
    if card.endswith("0002"):
        raise Reject(f"the bank declines the card …{card[-4:]}")
    if card.endswith("0003") and context.attempt() == 1:
        raise Retry("the bank does not answer", after=0.2)
    sql.execute("INSERT INTO charges (ride_id, cents) VALUES ($1, $2) ON CONFLICT DO NOTHING", ride_id, cents)


def place(wanted, name):
    try:
        return float(wanted[name]["lat"]), float(wanted[name]["lon"])
    except (KeyError, TypeError, ValueError):
        raise Reject(f'`{name}` is a place: {{"lat": 52.5, "lon": 13.4}}') from None


def fare(begin, end):
    """By the distance as the crow flies, on a piece of the earth that is nearly flat."""
    north = end[0] - begin[0]
    east = (end[1] - begin[1]) * math.cos(math.radians(begin[0]))
    return CENTS_TO_BEGIN + round(math.hypot(north, east) * KILOMETRES_OF_A_DEGREE * CENTS_FOR_A_KILOMETRE)
