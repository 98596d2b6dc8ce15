// What `tally` does, in JavaScript on StarlingMonkey, over the contract itself: the SDK is for QuickJS.

import { call } from "warren:worker/bus@0.1.0";

const JSON_TYPE = "application/json";
let runs = 0;

const decode = (bytes) => new TextDecoder().decode(bytes);
const encode = (text) => new TextEncoder().encode(text);

export const descriptor = {
    describe() {
        return {
            workerType: "TALLY",
            version: "1.0.0",
            summary: "Adds up a small order, to measure what a run costs",
            accepts: [JSON_TYPE],
            annotations: [],
        };
    },
};

export const handler = {
    handle(job) {
        runs += 1;
        const order = JSON.parse(decode(job.data.body));
        if (order === null) {
            return { tag: "done" };
        }
        if (order.ask) {
            const data = { contentType: JSON_TYPE, body: encode("null") };
            return { tag: "forward", val: call({ stops: [order.ask], data }, undefined) };
        }
        const total = order.items.reduce((sum, item) => sum + item.price * item.count, 0);
        const answer = { items: order.items.length, total, runs };
        return {
            tag: "forward",
            val: { contentType: JSON_TYPE, body: encode(JSON.stringify(answer)) },
        };
    },
};
