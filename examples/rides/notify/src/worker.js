// Tells users, once for each message. Where a service would send a push message, this writes a line in the
// log and keeps the last word to each rider.

import { worker, done, keyvalue, log, metrics } from "warren";

export const { descriptor, handler } = worker({
    type: "NOTIFY",
    summary: "Tells users what becomes of their rides",
    version: "1.0.0",

    handle(job) {
        const { id, rider, text } = job.json({ id: String, rider: String, text: String });
        // The job's id is the same when it runs again: nobody is told twice. (Counted first:
        // a host that dies right here leaves somebody untold. Who must be told is marked afterwards.)
        const isFirst = keyvalue.open("told").increment(job.id) === 1;
        if (isFirst) {
            keyvalue.open("last").set(id, text);
            metrics.count("told_total");
            log.info(`to ${rider}: ${text}`);
        }
        return done();
    },
});
