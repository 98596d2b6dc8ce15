// What `tally` does, in JavaScript.

import { worker, done, forward, bus } from "warren";

let runs = 0;

export const { descriptor, handler } = worker({
    type: "TALLY",
    summary: "Adds up a small order, to measure what a run costs",
    version: "1.0.0",
    handle(job) {
        runs += 1;
        const order = job.json();
        if (order === null) return done();
        if (order.ask) return forward(bus.call(order.ask, null));
        const items = order.items ?? [];
        const total = items.reduce((sum, item) => sum + item.price * item.count, 0);
        return forward({ items: items.length, total, runs });
    },
});
