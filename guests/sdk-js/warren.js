// The SDK for workers in JavaScript and TypeScript: what a worker says and asks, in the words of the
// language. Types and the documentation of each item are in warren.d.ts.
//
// QuickJS runs it, synchronously: the host suspends the guest while it waits, so nothing here is a
// promise. QuickJS hands 64-bit integers over as doubles and traps on a BigInt, so what does not fit is
// refused here, with the remedy.

import * as rawBus from "warren:worker/bus@0.1.0";
import * as rawContext from "warren:worker/context@0.1.0";
import * as rawMetrics from "warren:worker/metrics@0.1.0";
import * as rawSql from "warren:worker/sql@0.1.0";
import * as rawConfig from "wasi:config/store@0.2.0-rc.1";
import * as rawAtomics from "wasi:keyvalue/atomics@0.2.0-draft2";
import * as rawBatch from "wasi:keyvalue/batch@0.2.0-draft2";
import * as rawStore from "wasi:keyvalue/store@0.2.0-draft2";
import { log as rawLog } from "wasi:logging/logging@0.1.0-draft";

const JSON_TYPE = "application/json";

// ---- Errors: each knows whether the host is to run the job again. ----

export class WorkerError extends Error {
    constructor(message, code, isRetryable, afterMs) {
        super(message);
        this.name = new.target.name;
        this.code = code;
        this.isRetryable = isRetryable;
        this.afterMs = afterMs;
    }
}

export class Reject extends WorkerError {
    constructor(reason) {
        super(String(reason), "reject", false);
    }
}

export class Retry extends WorkerError {
    constructor(reason, { afterMs } = {}) {
        super(String(reason), "retry", true, afterMs);
    }
}

export class CallError extends WorkerError {
    constructor(code, text) {
        const prefix = { invalid: "the call is not valid: ", denied: "the call is not allowed: " }[code];
        const isRejected = ["invalid", "denied", "unknown-type", "failed"].includes(code);
        super((prefix ?? (code === "other" ? "the call failed: " : "")) + text, code, !isRejected);
    }
}

export class SendError extends WorkerError {
    constructor(code, text) {
        const verb = code === "other" ? "could not" : "cannot";
        super(`the job ${verb} be sent: ${text}`, code, code === "other");
    }
}

const SQL_TEXTS = {
    invalid: "invalid statement",
    constraint: "constraint violated",
    conflict: "transaction conflict",
    "too-large": "result too large",
    unavailable: "database unavailable",
    denied: "not allowed",
};

export class SqlError extends WorkerError {
    constructor(code, text) {
        const isRejected = ["invalid", "constraint", "too-large", "denied"].includes(code);
        super(`${SQL_TEXTS[code] ?? "database error"}: ${text}`, code, !isRejected);
    }
}

export class KeyValueError extends WorkerError {
    constructor(code, text = "") {
        const known = {
            "no-such-store": "there is no bucket of this name",
            "access-denied": "the operator gives this worker no keys and values (`keyvalue`)",
        }[code];
        super(known ?? `key-value store: ${text}`, code, !known && !text.startsWith("invalid:"));
    }
}

export class ConfigError extends WorkerError {
    constructor(code, text) {
        super(`configuration unavailable: ${text}`, code, true);
    }
}

/** Calls the host, and turns what it refuses into an error of this class. */
function asking(Kind, work) {
    try {
        return work();
    } catch (error) {
        if (error?.payload?.tag === undefined) throw error;
        throw new Kind(error.payload.tag, error.payload.val);
    }
}

// ---- Text and payloads. QuickJS has no TextEncoder. ----

export const utf8 = {
    encode(text) {
        text = String(text);
        // Lone surrogates cannot be written: as TextEncoder does, they become U+FFFD.
        const wellFormed = text.isWellFormed() ? text : text.toWellFormed();
        // eslint-disable-next-line no-control-regex
        const binary = /^[\0-\x7f]*$/.test(wellFormed) ? wellFormed : unescape(encodeURIComponent(wellFormed));
        const bytes = new Uint8Array(binary.length);
        for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
        return bytes;
    },
    decode(bytes) {
        let binary = "";
        // In pieces: a call takes no more arguments than fit its stack.
        for (let i = 0; i < bytes.length; i += 4096) {
            binary += String.fromCharCode.apply(null, bytes.subarray(i, i + 4096));
        }
        // eslint-disable-next-line no-control-regex
        return /^[\0-\x7f]*$/.test(binary) ? binary : decodeURIComponent(escape(binary));
    },
};

export class Payload {
    constructor(contentType, body) {
        this.contentType = contentType;
        this.body = body;
    }

    static of(value) {
        if (value instanceof Payload) return value;
        let text;
        try {
            text = JSON.stringify(value);
        } catch (error) {
            throw new Reject(`this cannot be written as JSON: ${error.message}`);
        }
        if (text === undefined) throw new Reject(`${typeof value} cannot be written as JSON`);
        return new Payload(JSON_TYPE, utf8.encode(text));
    }

    json(shape) {
        if (this.contentType !== JSON_TYPE) {
            throw new Reject(`the data is ${this.contentType}, not ${JSON_TYPE}`);
        }
        let value;
        try {
            value = JSON.parse(utf8.decode(this.body));
        } catch (error) {
            throw new Reject(`unexpected data: ${error.message}`);
        }
        if (shape !== undefined) checkShape(value, shape);
        return value;
    }
}

function checkShape(value, shape) {
    if (value === null || typeof value !== "object" || Array.isArray(value)) {
        throw new Reject(`unexpected data: ${kindOf(value)}, not an object`);
    }
    for (const [field, kind] of Object.entries(shape)) {
        const found = Object.hasOwn(value, field) ? value[field] : undefined;
        const name = kind.name.toLowerCase();
        if (kindOf(found) !== name) {
            throw new Reject(`unexpected data: \`${field}\` is ${kindOf(found)}, not ${name}`);
        }
    }
}

function kindOf(value) {
    if (value === undefined) return "missing";
    if (value === null) return "null";
    return Array.isArray(value) ? "array" : typeof value;
}

// ---- The worker itself. ----

export const done = () => ({ tag: "done" });
export const forward = (data) => ({ tag: "forward", val: Payload.of(data) });
export const route = (stops, data) => ({ tag: "route", val: slip(stops, data) });

function slip(stops, data) {
    return { stops: (Array.isArray(stops) ? stops : [stops]).map(String), data: Payload.of(data) };
}

class Job {
    constructor(raw) {
        this.id = raw.id;
        this.sender = raw.sender;
        this.route = raw.route;
        this.position = raw.position;
        this.data = new Payload(raw.data.contentType, raw.data.body);
    }

    json(shape) {
        return this.data.json(shape);
    }
}

let workerType = "";

export function worker({ type, summary, version = "0.1.0", accepts = [], annotations = {}, handle, treatError }) {
    for (const [name, value] of Object.entries({ type, summary, handle })) {
        if (value === undefined) throw new TypeError(`worker({ … }) lacks \`${name}\``);
    }
    workerType = type;
    const description = { workerType: type, version, summary, accepts, annotations: Object.entries(annotations) };
    return {
        descriptor: { describe: () => description },
        handler: {
            handle: (raw) => run(raw.id, () => outcome(handle(new Job(raw))), failure),
        },
        errors: {
            treatError: (raw) =>
                run(raw.id, () => void treatError?.(jobError(raw)), (error) => error.message),
        },
    };
}

/** Runs one job in an instance that is as at its beginning. */
function run(id, work, told) {
    seed(`${id} ${rawContext.attempt()} ${Date.now()} ${rawContext.workerId()}`);
    try {
        return work();
    } catch (error) {
        if (error instanceof WorkerError) throw told(error);
        // Anything else is a bug: the guest traps, and these are its last words.
        throw error instanceof Error ? error : new Error(`thrown: ${String(error)}`);
    } finally {
        // An instance that still holds a resource of the host would not be used again.
        buckets.clear();
        for (const resource of [...held]) release(resource);
    }
}

function outcome(value) {
    if (["done", "forward", "route"].includes(value?.tag)) return value;
    const found = typeof value?.then === "function" ? "a promise (nothing here is asynchronous)" : kindOf(value);
    throw new TypeError(`handle returned ${found}; return done(), forward(…) or route(…)`);
}

function failure({ message, isRetryable, afterMs }) {
    if (!isRetryable) return { tag: "reject", val: message };
    return { tag: "retry", val: { afterMs: milliseconds(afterMs), reason: message } };
}

function jobError({ id, stop, attempts, cause, data }) {
    const payload = data ? new Payload(data.contentType, data.body) : undefined;
    return { id, stop, attempts, cause: cause.tag, reason: cause.val, data: payload };
}

function milliseconds(value) {
    return value === undefined || value === null ? undefined : Math.max(0, Math.ceil(Number(value) || 0));
}

const held = new Set();
const buckets = new Map();

function hold(resource) {
    held.add(resource);
    return resource;
}

/** Gives a resource of the host back. A run may hold so many at a time. */
function release(resource) {
    held.delete(resource);
    resource[Symbol.dispose]?.();
}

// ---- What a worker may ask the host. ----

export const context = {
    workerId: rawContext.workerId,
    attempt: rawContext.attempt,
    deadlineMs: rawContext.deadlineMs,
    isCancelled: rawContext.isCancelled,
    header: (name) => rawContext.header(name) ?? undefined,
    traceParent: () => rawContext.traceParent() ?? undefined,
};

export const bus = {
    send(stops, data) {
        asking(SendError, () => rawBus.send(slip(stops, data)));
    },
    call(stops, data, { timeoutMs } = {}) {
        const reply = asking(CallError, () => rawBus.call(slip(stops, data), milliseconds(timeoutMs)));
        return new Payload(reply.contentType, reply.body);
    },
};

function toSql(value, index) {
    const refuse = (what) => {
        throw new SqlError("invalid", `parameter $${index + 1} is ${what}`);
    };
    switch (typeof value) {
        case "undefined":
            return { tag: "null" };
        case "boolean":
            return { tag: "boolean", val: value };
        case "string":
            return { tag: "text", val: value };
        case "bigint":
            if (BigInt(Number(value)) !== value || !Number.isSafeInteger(Number(value))) {
                refuse("beyond 2^53: pass it as text and CAST it");
            }
            return { tag: "integer", val: Number(value) };
        case "number":
            return { tag: Number.isSafeInteger(value) ? "integer" : "real", val: value };
        case "object":
            if (value === null) return { tag: "null" };
            if (value instanceof Uint8Array) return { tag: "blob", val: value };
            if (value instanceof Date) return { tag: "text", val: value.toISOString() };
    }
    return refuse(`of the type ${typeof value}: use a string, number, boolean, null, Date or Uint8Array`);
}

function fromSql(value, column) {
    if (value.tag === "integer" && !Number.isSafeInteger(value.val)) {
        throw new SqlError("invalid", `column \`${column}\` is beyond 2^53: select it by CAST(… AS TEXT)`);
    }
    return value.tag === "null" ? null : value.val;
}

function statements(raw) {
    return {
        query(statement, parameters = []) {
            const { columns, rows } = asking(SqlError, () => raw.query(statement, parameters.map(toSql)));
            return rows.map((row) => Object.fromEntries(columns.map((name, i) => [name, fromSql(row[i], name)])));
        },
        execute(statement, parameters = []) {
            return asking(SqlError, () => raw.execute(statement, parameters.map(toSql)));
        },
    };
}

// How often a transaction that met another one is begun anew before the job is.
const MAX_TRANSACTIONS = 5;

export const sql = {
    ...statements(rawSql),
    dialect: rawSql.dialect,
    transaction(work) {
        for (let n = 1; ; n++) {
            const raw = hold(asking(SqlError, () => rawSql.Transaction.begin()));
            try {
                const value = work(statements(raw));
                asking(SqlError, () => raw.commit());
                return value;
            } catch (error) {
                // It may be over already: then there is nothing to undo.
                try {
                    raw.rollback();
                } catch {}
                if (error.code !== "conflict" || n === MAX_TRANSACTIONS) throw error;
            } finally {
                release(raw);
            }
        }
    },
};

// How often `update` tries. Each time that one fails, another one has not.
const MAX_UPDATES = 1000;

const bytesOf = (value) => (typeof value === "string" ? utf8.encode(value) : value);

class Bucket {
    #raw;

    constructor(raw) {
        this.#raw = raw;
    }

    get(key) {
        return asking(KeyValueError, () => this.#raw.get(key)) ?? undefined;
    }

    getText(key) {
        const value = this.get(key);
        try {
            return value && utf8.decode(value);
        } catch {
            throw new Reject(`the value under the key \`${key}\` is no text`);
        }
    }

    getJson(key) {
        const value = this.get(key);
        return value && parsed(key, value);
    }

    set(key, value) {
        asking(KeyValueError, () => this.#raw.set(key, bytesOf(value)));
    }

    setJson(key, value) {
        this.set(key, Payload.of(value).body);
    }

    delete(key) {
        asking(KeyValueError, () => this.#raw.delete(key));
    }

    exists(key) {
        return asking(KeyValueError, () => this.#raw.exists(key));
    }

    *keys() {
        let cursor;
        do {
            const page = asking(KeyValueError, () => this.#raw.listKeys(cursor));
            yield* page.keys;
            cursor = page.cursor ?? undefined;
        } while (cursor !== undefined);
    }

    increment(key, by = 1) {
        if (!Number.isSafeInteger(by)) throw new KeyValueError("other", `invalid: ${by} is not an integer`);
        return asking(KeyValueError, () => rawAtomics.increment(this.#raw, key, by));
    }

    update(key, change) {
        let cas = hold(asking(KeyValueError, () => rawAtomics.Cas.new(this.#raw, key)));
        for (let n = 0; n < MAX_UPDATES; n++) {
            const value = bytesOf(change(asking(KeyValueError, () => cas.current()) ?? undefined));
            // The host takes it, whatever comes of it.
            held.delete(cas);
            try {
                rawAtomics.swap(cas, value);
                return value;
            } catch (error) {
                if (error?.payload?.tag === "store-error") {
                    throw new KeyValueError(error.payload.val.tag, error.payload.val.val);
                }
                if (error?.payload?.tag !== "cas-failed") throw error;
                cas = hold(error.payload.val);
            }
        }
        throw new Retry(`others are always faster in writing the key \`${key}\``);
    }

    updateJson(key, change) {
        const before = (value) => (value === undefined ? undefined : parsed(key, value));
        return parsed(key, this.update(key, (value) => Payload.of(change(before(value))).body));
    }

    getMany(keys) {
        const pairs = asking(KeyValueError, () => rawBatch.getMany(this.#raw, keys));
        return pairs.map((pair) => pair?.[1] ?? undefined);
    }

    setMany(pairs) {
        const bytes = pairs.map(([key, value]) => [key, bytesOf(value)]);
        asking(KeyValueError, () => rawBatch.setMany(this.#raw, bytes));
    }

    deleteMany(keys) {
        asking(KeyValueError, () => rawBatch.deleteMany(this.#raw, keys));
    }
}

function parsed(key, bytes) {
    try {
        return JSON.parse(utf8.decode(bytes));
    } catch (error) {
        throw new Reject(`unexpected value under the key \`${key}\`: ${error.message}`);
    }
}

export const keyvalue = {
    open(name = "") {
        // One handle for each name and run.
        if (!buckets.has(name)) {
            buckets.set(name, new Bucket(hold(asking(KeyValueError, () => rawStore.open(name)))));
        }
        return buckets.get(name);
    },
};

export const config = {
    get(key) {
        return asking(ConfigError, () => rawConfig.get(key)) ?? undefined;
    },
    number(key) {
        const text = this.get(key);
        const value = Number(text);
        if (text === undefined) return undefined;
        if (text.trim() === "" || Number.isNaN(value)) {
            throw new Reject(`the configuration key \`${key}\` has the value \`${text}\`: not a number`);
        }
        return value;
    },
    all() {
        return Object.fromEntries(asking(ConfigError, () => rawConfig.getAll()));
    },
};

const line = (level) => (...parts) => rawLog(level, workerType, parts.map(printed).join(" "));

function printed(value) {
    if (typeof value === "string") return value;
    if (value instanceof Error) return value.stack ? `${value}\n${value.stack}` : String(value);
    try {
        return JSON.stringify(value) ?? String(value);
    } catch {
        return String(value);
    }
}

export const log = {
    trace: line("trace"),
    debug: line("debug"),
    info: line("info"),
    warn: line("warn"),
    error: line("error"),
};

// What everybody writes without thinking. QuickJS has none.
globalThis.console ??= { ...log, log: log.info };

const labelsOf = (labels) => Object.entries(labels).map(([name, value]) => [name, String(value)]);

export const metrics = {
    count(name, by = 1, labels = {}) {
        rawMetrics.count(name, labelsOf(labels), Math.max(0, Math.trunc(Number(by) || 0)));
    },
    observe(name, value, labels = {}) {
        rawMetrics.observe(name, labelsOf(labels), Number(value));
    },
    gauge(name, value, labels = {}) {
        rawMetrics.gauge(name, labelsOf(labels), Number(value));
    },
    time(name, work, labels = {}) {
        const begun = performance.now();
        try {
            return work();
        } finally {
            this.observe(name, (performance.now() - begun) / 1000, labels);
        }
    },
};

// ---- Randomness. Every fresh instance begins with the generator that was there when the plugin was
// built, so Math.random() would be the same in each: it is seeded for each run. Not for secrets. ----

let state = [1, 2, 3, 4];

/** Makes four numbers of a text: cyrb128, by bryc, in the public domain. */
function seed(text) {
    let [a, b, c, d] = [1779033703, 3144134277, 1013904242, 2773480762];
    for (let i = 0; i < text.length; i++) {
        const code = text.charCodeAt(i);
        a = b ^ Math.imul(a ^ code, 597399067);
        b = c ^ Math.imul(b ^ code, 2869860233);
        c = d ^ Math.imul(c ^ code, 951274213);
        d = a ^ Math.imul(d ^ code, 2716044179);
    }
    state = [a ^ b ^ c ^ d, b, c, d];
    for (let n = 0; n < 16; n++) next();
}

/** sfc32, of PractRand: 32 bits. */
function next() {
    let [a, b, c, d] = state;
    const sum = (a + b + d) | 0;
    d = (d + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (c << 21) | (c >>> 11);
    c = (c + sum) | 0;
    state = [a, b, c, d];
    return sum >>> 0;
}

Math.random = () => ((next() >>> 5) * 67108864 + (next() >>> 6)) / 9007199254740992;
