// Fails as a job says: `{"do": "<word>"}`. The words are those of the table in guests/README.md.

import { worker, forward, route, bus, sql, Reject, Retry, type Job, type Outcome } from "warren";

const deeds: Record<string, (job: Job) => Outcome> = {
    reply: () => forward({ text: "done" }),
    reject: () => {
        throw new Reject("it says no");
    },
    retry: () => {
        throw new Retry("not yet", { afterMs: 10 });
    },
    exception: () => {
        throw new TypeError("a mistake of mine");
    },
    memory: () => {
        const held: Uint8Array[] = [];
        for (;;) held.push(new Uint8Array(1 << 20).fill(1));
    },
    recursion: () => {
        const deeper = (n: number): number => 1 + deeper(n + 1);
        return forward(deeper(0));
    },
    loop: () => {
        for (;;);
    },
    call: () => forward(bus.call("NOBODY:*", {})),
    send: () => {
        bus.send("not a stop", {});
        return forward({});
    },
    sql: () => forward(sql.query("SELECT FROM")),
    data: (job) => forward(job.json({ missing: String })),
    size: () => forward("x".repeat(200 * 1024)),
    route: () => route("not a stop", {}),
};

export const { descriptor, handler } = worker({
    type: "LANG-TS",
    summary: "Fails as it is told, in TypeScript",
    handle: (job) => deeds[job.json().do](job),
});
