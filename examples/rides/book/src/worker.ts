// Keeps the book of rides, and decides what comes next: requested → assigned → paid. A payment that is
// refused undoes what went before: the driver is set free, and the user is told.
//
// Each step may be run again, after a crash for instance. So the book changes only forward, and what is
// sent again is the same message, which those who get it know by the ride's id.

import { worker, bus, forward, route, done, sql, log, Reject, type Job, type JobError, type Outcome } from "warren";

export const { descriptor, handler, errors } = worker({
    type: "RIDES",
    summary: "Keeps the book of rides and decides what comes next",
    version: "1.0.0",
    handle,
    treatError,
});

type Ride = Record<string, any> & { id: string };

function handle(job: Job): Outcome {
    const { event, ...ride } = job.json({ event: String, id: String });
    prepare();
    switch (event) {
        case "requested":
            sql.execute("INSERT INTO rides (id, state, detail) VALUES ($1, 'requested', $2) ON CONFLICT DO NOTHING", [
                ride.id,
                JSON.stringify(ride),
            ]);
            return route(["DISPATCH:*", "RIDES:*"], { event: "assign", ...ride });
        case "assigned":
            enter("requested", "assigned", ride);
            return route(["PAYMENT:*", "RIDES:*"], { event: "pay", ...ride });
        case "paid":
            enter("assigned", "paid", ride);
            tell(ride, `${ride.driver} is on the way. You have paid ${euros(ride.cents)}.`);
            return done();
        case "asked":
            return forward(found(ride.id));
        default:
            throw new Reject(`there is no event \`${event}\` here`);
    }
}

/** A step was given up: undoes what was done before it. */
function treatError(error: JobError): void {
    const ride = error.data?.json({ id: String });
    if (ride === undefined) return;
    prepare();
    log.warn(`ride ${ride.id}: ${error.stop} has given it up: ${error.reason}`);
    if (error.stop.startsWith("PAYMENT:")) {
        // Before the user hears of it, so that nobody is charged for nothing and no driver waits. Both
        // go out together, or neither.
        bus.send("DISPATCH:*", { event: "release", id: ride.id });
        cancel(ride.id, "payment refused", error.reason);
        tell(ride, `Your ride is cancelled: ${error.reason}.`);
    } else if (error.stop.startsWith("DISPATCH:")) {
        cancel(ride.id, "no driver", error.reason);
        tell(ride, `There is no ride for you now: ${error.reason}.`);
    }
}

function tell(ride: Record<string, any>, text: string): void {
    bus.send("NOTIFY:*", { id: ride.id, rider: ride.wanted?.rider ?? "rider", text });
}

function euros(cents: number): string {
    return `${(cents / 100).toFixed(2)} EUR`;
}

function prepare(): void {
    sql.execute("CREATE TABLE IF NOT EXISTS rides (id TEXT PRIMARY KEY, state TEXT, reason TEXT, detail TEXT)");
}

function enter(before: string, state: string, ride: Record<string, any>): void {
    sql.execute("UPDATE rides SET state = $3, detail = $4 WHERE id = $1 AND state = $2", [
        ride.id,
        before,
        state,
        JSON.stringify(ride),
    ]);
}

function cancel(id: string, state: string, reason: string): void {
    sql.execute("UPDATE rides SET state = $2, reason = $3 WHERE id = $1 AND state <> 'paid'", [id, state, reason]);
}

/** What the user may see: not the card. */
function found(id: string): Ride | null {
    const [row] = sql.query("SELECT state, reason, detail FROM rides WHERE id = $1", [id]);
    if (row === undefined) return null;
    const { wanted, ...detail } = JSON.parse(row.detail);
    const { card: _, ...shown } = wanted ?? {};
    const reason = row.reason === null ? {} : { reason: row.reason };
    return { ...detail, wanted: shown, id, state: row.state, ...reason };
}
