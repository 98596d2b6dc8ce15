// Finds the nearest driver who is free, and takes one back whose ride comes to nothing. A ride that asks
// again, after a crash for instance, gets the driver that it has.

import { worker, forward, done, sql, log, metrics, Reject, Retry, type Statements } from "warren";

interface Place {
    lat: number;
    lon: number;
}

interface Driver extends Place {
    name: string;
    /** The ride that has the driver. */
    ride: string | null;
}

// Who works tonight. In a service they would sign in.
const DRIVERS: [string, number, number][] = [
    ["Dallas", 52.52, 13.405],
    ["Lambert", 52.5, 13.45],
    ["Parker", 52.54, 13.35],
];

// How long a ride waits before it looks again, when all are busy.
const LOOK_AGAIN_MS = 1000;

export const { descriptor, handler } = worker({
    type: "DISPATCH",
    summary: "Assigns drivers to rides",
    version: "1.0.0",

    handle(job) {
        const ride = job.json({ event: String, id: String });
        prepare();
        switch (ride.event) {
            case "assign": {
                const driver = assign(ride.id, place(ride.wanted?.from));
                metrics.count("assigned_total");
                return forward({ ...ride, event: "assigned", driver });
            }
            case "release": {
                const freed = sql.execute("UPDATE drivers SET ride = NULL WHERE ride = $1", [ride.id]);
                log.info(`ride ${ride.id}: ${freed === 0 ? "nobody to set free" : "its driver is free again"}`);
                return done();
            }
            default:
                throw new Reject(`there is no event \`${ride.event}\` here`);
        }
    },
});

function prepare(): void {
    sql.execute("CREATE TABLE IF NOT EXISTS drivers (name TEXT PRIMARY KEY, lat REAL, lon REAL, ride TEXT UNIQUE)");
    for (const driver of DRIVERS) {
        sql.execute("INSERT INTO drivers (name, lat, lon) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING", driver);
    }
}

function place(value: any): Place {
    if (typeof value?.lat !== "number" || typeof value?.lon !== "number") {
        throw new Reject("`from` is a place: {\"lat\": 52.5, \"lon\": 13.4}");
    }
    return value;
}

function assign(ride: string, from: Place): string {
    return sql.transaction((tx: Statements) => {
        const drivers = tx.query<Driver>("SELECT name, lat, lon, ride FROM drivers");
        const mine = drivers.find((driver) => driver.ride === ride);
        if (mine !== undefined) return mine.name;
        const free = drivers.filter((driver) => driver.ride === null);
        const [nearest] = free.sort((a, b) => kilometres(from, a) - kilometres(from, b));
        if (nearest === undefined) {
            throw new Retry("all drivers are busy", { afterMs: LOOK_AGAIN_MS });
        }
        tx.execute("UPDATE drivers SET ride = $1 WHERE name = $2", [ride, nearest.name]);
        return nearest.name;
    });
}

/** Along the surface of the earth: the haversine formula. */
function kilometres(a: Place, b: Place): number {
    const radians = (degrees: number) => (degrees * Math.PI) / 180;
    const half = (x: number) => Math.sin(radians(x) / 2) ** 2;
    const h = half(b.lat - a.lat) + Math.cos(radians(a.lat)) * Math.cos(radians(b.lat)) * half(b.lon - a.lon);
    return 2 * 6371 * Math.asin(Math.sqrt(h));
}
