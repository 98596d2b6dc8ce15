// Fails as a job says: `{"do": "<word>"}`. The words are those of the table in guests/README.md.

import { worker, forward, route, bus, sql, Reject, Retry } from "warren";

const deeds = {
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
        const held = [];
        for (;;) held.push(new Uint8Array(1 << 20).fill(1));
    },
    recursion: () => {
        const deeper = (n) => 1 + deeper(n + 1);
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
    type: "LANG-JS",
    summary: "Fails as it is told, in JavaScript",
    handle: (job) => deeds[job.json().do](job),
});
