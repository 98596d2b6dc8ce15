/**
 * The SDK for workers in JavaScript and TypeScript.
 *
 * ```js
 * import { worker, forward, Reject } from "warren";
 *
 * export const { descriptor, handler } = worker({
 *     type: "GREETER",
 *     summary: "Greets by name",
 *     handle(job) {
 *         const { name } = job.json({ name: String });
 *         if (name === "") throw new Reject("there is nobody to greet");
 *         return forward({ text: `Hello, ${name}!` });
 *     },
 * });
 * ```
 *
 * Everything is synchronous: the host suspends the worker while it waits. There are no promises to
 * await, no timers, no files and no sockets.
 */

/** What a worker is. */
export interface Description {
    /** The type under which it works on the bus: a letter, then up to 63 letters, digits, `_`, `-` or `.`. */
    type: string;
    /** One line for the operator. */
    summary: string;
    /** The plugin's own version, for the operator. `"0.1.0"` where nothing is said. */
    version?: string;
    /** The content types that `handle` reads, best first. JSON where nothing is said. */
    accepts?: string[];
    /** What the host may use, by name. */
    annotations?: Record<string, string>;
    /**
     * Runs one job. May run again for the same `job.id`, after a crash for instance: make effects
     * idempotent by it. A `WorkerError` that is thrown says whether the host tries again; anything else
     * that is thrown is a bug, and ends this run as a trap.
     */
    handle(job: Job): Outcome;
    /** Hears of the jobs that this worker sent and that were given up. For the world `treating-worker`. */
    treatError?(error: JobError): void;
}

/** Makes the exports of a plugin: `export const { descriptor, handler } = worker({ … });`. */
export function worker(description: Description): {
    descriptor: object;
    handler: object;
    /** To be exported as well in the world `treating-worker`. */
    errors: object;
};

/** The fields that an object must have, each with its kind. */
export type Shape = Record<
    string,
    StringConstructor | NumberConstructor | BooleanConstructor | ObjectConstructor | ArrayConstructor
>;

/** What an object of this shape is known to be. Fields that are not named may be there, unchecked. */
export type Shaped<S extends Shape> = {
    [K in keyof S]: S[K] extends StringConstructor
        ? string
        : S[K] extends NumberConstructor
          ? number
          : S[K] extends BooleanConstructor
            ? boolean
            : S[K] extends ArrayConstructor
              ? any[]
              : Record<string, any>;
} & { [field: string]: any };

/** A value and the encoding it is written in. */
export class Payload {
    constructor(contentType: string, body: Uint8Array);
    /** A value as JSON; a `Payload` stays as it is. */
    static of(value: unknown): Payload;
    readonly contentType: string;
    readonly body: Uint8Array;
    /**
     * Reads it as JSON. With a shape, an object that lacks a field, or has one of another kind, is
     * rejected: `job.json({ name: String, items: Array })`. So is what is not JSON.
     */
    json<S extends Shape>(shape: S): Shaped<S>;
    json<T = any>(): T;
}

/** One unit of work. */
export interface Job {
    /** Stable over retries and redeliveries: the key for making an effect idempotent. */
    readonly id: string;
    /** The id of the worker that sent the job: a stop that reaches it. */
    readonly sender: string;
    /** The job's way, from the first stop to the last. */
    readonly route: string[];
    /** The index in `route` of the stop that is running now. */
    readonly position: number;
    /** What the job is about. */
    readonly data: Payload;
    /** Reads `data` as JSON; see `Payload.json`. */
    json<S extends Shape>(shape: S): Shaped<S>;
    json<T = any>(): T;
}

/** A job of this worker's that was given up. */
export interface JobError {
    readonly id: string;
    /** Where it was given up. */
    readonly stop: string;
    /** How often it was started there; 0 where nobody could start it. */
    readonly attempts: number;
    /** Treat the set as open. */
    readonly cause: "rejected" | "failed" | "undeliverable" | "expired" | "other";
    /** For the operator; it may change. */
    readonly reason: string;
    /** What the job carried, where that could be read. */
    readonly data?: Payload;
}

/** What a successful run leads to: made by `done`, `forward` and `route`. */
export type Outcome = { readonly tag: "done" | "forward" | "route"; readonly val?: unknown };

/** Nothing more is to be done. A caller that waits for a reply gets none. */
export function done(): Outcome;
/** Hands a value to the next stop of the job's own route. At the last stop of a call it is the reply. */
export function forward(data: unknown): Outcome;
/** Sends the work on along a new route, each stop `TYPE:*` or the id of a worker. */
export function route(stops: string | string[], data: unknown): Outcome;

/**
 * Why a run failed. One that `handle` does not catch is how the run ends:
 *
 * | from | retried | rejected |
 * |---|---|---|
 * | `bus.call` | `no-live-worker`, `queue-full`, `timeout`, `unavailable`, `other` | `invalid`, `denied`, `unknown-type`, `failed` |
 * | `bus.send` | `other` | `invalid`, `payload`, `too-many`, `denied` |
 * | `sql` | `conflict`, `unavailable`, `other` | `invalid`, `constraint`, `too-large`, `denied` |
 * | `keyvalue` | `other` | `no-such-store`, `access-denied`, `other` that begins with `invalid:` |
 * | `config` | cannot be read now | a value of another kind |
 * | `job.json` | | data of another shape |
 *
 * A call that timed out may have taken effect: catch it where asking again does harm.
 */
export class WorkerError extends Error {
    /** The case of the contract, such as `"timeout"`. Treat the set as open. */
    readonly code: string;
    /** Whether the host will run the job again. */
    readonly isRetryable: boolean;
    /** When, at the earliest, in milliseconds from now; the host's backoff where nothing is said. */
    readonly afterMs?: number;
}
/** The job can never succeed: the host dead-letters it and tells the caller the reason. */
export class Reject extends WorkerError {
    constructor(reason: string);
}
/** The failure may go away by itself: the host runs the job again, up to the worker's attempts. */
export class Retry extends WorkerError {
    constructor(reason: string, options?: { afterMs?: number });
}
/** Why a call has no reply. */
export class CallError extends WorkerError {}
/** Why a job cannot be sent. */
export class SendError extends WorkerError {}
/** Why a statement failed. */
export class SqlError extends WorkerError {}
/** Why the key-value store refused. */
export class KeyValueError extends WorkerError {}
/** Why the configuration cannot be read. */
export class ConfigError extends WorkerError {}

/** What is known about the run in progress. */
export const context: {
    workerId(): string;
    /** How often this job has been started, this run included. */
    attempt(): number;
    /** Milliseconds left until the host stops this run. */
    deadlineMs(): number;
    /** Whether the result of this run is already worthless. */
    isCancelled(): boolean;
    header(name: string): string | undefined;
    traceParent(): string | undefined;
};

/** Talking to other workers. */
export const bus: {
    /** Sends a job and does not wait for it. It goes out when this run has succeeded. */
    send(stops: string | string[], data: unknown): void;
    /** Sends a job at once and waits for the reply, 10 s unless the operator or `timeoutMs` says otherwise. */
    call(stops: string | string[], data: unknown, options?: { timeoutMs?: number }): Payload;
};

/** A parameter of a statement. A number without a fraction is an integer. */
export type SqlParameter = string | number | bigint | boolean | null | undefined | Date | Uint8Array;
/** What a column holds. Integers beyond 2^53 are an error: select them as text. */
export type SqlValue = string | number | boolean | null | Uint8Array;

export interface Statements {
    /** Runs one statement that returns rows: an object for each, by the names of the columns. */
    query<Row = Record<string, any>>(statement: string, parameters?: SqlParameter[]): Row[];
    /** Runs one statement and returns how many rows it changed. */
    execute(statement: string, parameters?: SqlParameter[]): number;
}

/** A relational database. Parameters are written `$1`, `$2`. */
export const sql: Statements & {
    /** `sqlite` or `postgresql`. */
    dialect(): string;
    /**
     * Statements that take effect together, or not at all when `work` throws. `work` is called again
     * where another transaction was in the way.
     */
    transaction<T>(work: (tx: Statements) => T): T;
};

/** A bucket of keys and values. */
export interface Bucket {
    get(key: string): Uint8Array | undefined;
    getText(key: string): string | undefined;
    getJson<T = any>(key: string): T | undefined;
    /** Writes a value, over another one if there is one. Text is written as UTF-8. */
    set(key: string, value: string | Uint8Array): void;
    setJson(key: string, value: unknown): void;
    delete(key: string): void;
    exists(key: string): boolean;
    /** All keys, in no particular order, read in pages as they are asked for. */
    keys(): IterableIterator<string>;
    /** Adds to the number under a key, in one step whoever else does, and returns the sum. */
    increment(key: string, by?: number): number;
    /** Puts what `change` makes of a value in its place. Called again where somebody wrote in between. */
    update(key: string, change: (value: Uint8Array | undefined) => string | Uint8Array): Uint8Array;
    updateJson<T = any>(key: string, change: (value: T | undefined) => T): T;
    getMany(keys: string[]): (Uint8Array | undefined)[];
    setMany(pairs: [string, string | Uint8Array][]): void;
    deleteMany(keys: string[]): void;
}

/** Keys and values of this worker type's own. */
export const keyvalue: {
    /** Opens a bucket, which is there as soon as it is opened; it is closed when the run ends. */
    open(name?: string): Bucket;
};

/** What the operator has configured for this worker type, its secrets included. */
export const config: {
    get(key: string): string | undefined;
    number(key: string): number | undefined;
    all(): Record<string, string>;
};

type Line = (...parts: unknown[]) => void;

/** Lines for the host's log. `console` writes there, too. */
export const log: { trace: Line; debug: Line; info: Line; warn: Line; error: Line };

type Labels = Record<string, string | number | boolean>;

/** Figures of the worker's own, on the host's `/metrics` as `warren_guest_<name>`. */
export const metrics: {
    /** Adds to a counter; its name ends with `_total`. */
    count(name: string, by?: number, labels?: Labels): void;
    /** Adds an observation to a histogram, in the base unit that its name ends with. */
    observe(name: string, value: number, labels?: Labels): void;
    gauge(name: string, value: number, labels?: Labels): void;
    /** Does a part of the work and observes how long it took; the name ends with `_seconds`. */
    time<T>(name: string, work: () => T, labels?: Labels): T;
};

/** Text to bytes and back. */
export const utf8: { encode(text: string): Uint8Array; decode(bytes: Uint8Array): string };

declare global {
    interface Console {
        log: Line;
        trace: Line;
        debug: Line;
        info: Line;
        warn: Line;
        error: Line;
    }
    var console: Console;
}
