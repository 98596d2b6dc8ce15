"""Writes the invoice of an order that has been priced. Invoices are numbered without a gap, and an order
that comes again, after a crash for instance, gets the number that it had."""

from decimal import Decimal
from textwrap import shorten

import warren
from warren import forward, metrics, sql

WIDTH = 60


@warren.worker(type="INVOICE", summary="Writes invoices", version="1.0.0")
def handle(job):
    order = job.json({"id": str, "lines": list, "netCents": int, "vatCents": int, "totalCents": int})
    number = numbered(order["id"])
    metrics.count("invoices_total")
    return forward({**order, "invoice": {"number": number, "text": written(number, order)}})


def numbered(order_id):
    """The number of the order's invoice, which it keeps."""
    sql.execute("CREATE TABLE IF NOT EXISTS invoices (number INTEGER PRIMARY KEY, order_id TEXT UNIQUE)")

    def next_number(tx):
        # Not AUTOINCREMENT: a number that is rolled back would be missing.
        tx.execute(
            "INSERT INTO invoices (number, order_id) "
            "SELECT coalesce(max(number), 0) + 1, $1 FROM invoices WHERE true "
            "ON CONFLICT (order_id) DO NOTHING",
            order_id,
        )
        return tx.query("SELECT number FROM invoices WHERE order_id = $1", order_id)[0]["number"]

    return f"R{sql.transaction(next_number):06}"


def written(number, order):
    customer = str(order.get("customer", "")) or "Customer"
    lines = [f"Invoice {number}", f"for {customer}, order {order['id']}", ""]
    for line in order["lines"]:
        lines.append(row(f"{line['quantity']} × {line['title']}", line["cents"]))
    lines.append("-" * WIDTH)
    lines.append(row("Net", order["netCents"]))
    lines.append(row(f"VAT {order.get('vatPercent', 0)} %", order["vatCents"]))
    lines.append(row("Total", order["totalCents"]))
    return "\n".join(lines)


def row(text, cents):
    amount = f"{Decimal(cents) / 100:.2f} EUR"
    text = shorten(text, WIDTH - len(amount) - 1, placeholder="…")
    return text + amount.rjust(WIDTH - len(text))
