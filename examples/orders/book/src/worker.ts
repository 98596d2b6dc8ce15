// Keeps the book of orders: what was ordered, how far it is, and what came of it. It sends each order on
// its way and takes it back in; an order that was given up on the way comes back as an error.

import { worker, forward, route, done, sql, log, Reject, type Job, type JobError, type Outcome } from "warren";

export const { descriptor, handler, errors } = worker({
    type: "ORDERS",
    summary: "Keeps the book of orders",
    version: "1.0.0",
    handle,
    treatError,
});

function handle(job: Job): Outcome {
    const message = job.json({ event: String, id: String });
    prepare();
    switch (message.event) {
        case "requested":
            // A job that runs again finds its row.
            sql.execute("INSERT INTO orders (id, state) VALUES ($1, 'received') ON CONFLICT DO NOTHING", [message.id]);
            return route(["PRICING:*", "ORDERS:*"], { ...message.wanted, id: message.id, event: "priced" });
        case "priced":
            enter(message.id, "priced", message);
            return route(["INVOICE:*", "LABEL:*", "ORDERS:*"], { ...message, event: "ready" });
        case "ready":
            enter(message.id, "ready", message);
            log.info(`order ${message.id} is ready`);
            return done();
        case "asked":
            return forward(found(message.id));
        default:
            throw new Reject(`there is no event \`${message.event}\` here`);
    }
}

/** The order was given up at a stop: the customer is to see it. */
function treatError(error: JobError): void {
    const order = error.data?.json({ id: String });
    if (order === undefined) return;
    prepare();
    sql.execute("UPDATE orders SET state = $2, reason = $3 WHERE id = $1", [
        order.id,
        error.cause === "rejected" ? "refused" : "stuck",
        error.reason,
    ]);
    log.warn(`order ${order.id} was given up at ${error.stop}: ${error.reason}`);
}

function prepare(): void {
    sql.execute("CREATE TABLE IF NOT EXISTS orders (id TEXT PRIMARY KEY, state TEXT, reason TEXT, detail TEXT)");
}

function enter(id: string, state: string, { event, ...detail }: Record<string, unknown>): void {
    // The detail grows on the way: what comes late, because it was repeated, does not take it back.
    sql.execute(
        "UPDATE orders SET state = $2, detail = $3, reason = NULL WHERE id = $1 AND state <> 'ready'",
        [id, state, JSON.stringify(detail)],
    );
}

function found(id: string): object | null {
    const [row] = sql.query("SELECT state, reason, detail FROM orders WHERE id = $1", [id]);
    if (row === undefined) return null;
    const detail = row.detail === null ? {} : JSON.parse(row.detail);
    const reason = row.reason === null ? {} : { reason: row.reason };
    return { ...detail, id, state: row.state, ...reason };
}
