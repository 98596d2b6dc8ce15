// A worker that speaks the protocol of MicroServices.js 0.0.10, with its libraries and with its
// weaknesses: it takes a job before it does it, believes every message, and has one connection.
import { Bus, NOTIFICATIONS } from './bus.js';
import { encodings } from './encoding.js';
import { Pool } from './pool.js';

const MAX_TRIES = 5;
const RETRY_MS = 2000;

export class Worker {
  constructor(type, { broker, encoding, noDelay, id = `${type}:${Date.now()}` }) {
    this.type = type;
    this.id = id;
    this.broker = broker;
    this.noDelay = noDelay;
    this.encoding = encodings[encoding];
    this.pool = new Pool(id);
    this.sent = [];
  }

  // What a worker is for: each kind has its own.
  doJob(_job) {}

  // A job that nobody took, or that somebody reports as failed.
  treatError(_error) {}

  // Hears what happens to this worker; for tests.
  report(_event, _fields) {}

  // Joins the bus, and returns when this worker's own announcement has come back: now it is known
  // to all that were there before.
  async start() {
    this.bus = await Bus.connect(this.broker, {
      noDelay: this.noDelay,
      closed: (reason) => {
        console.error(`${this.id} has lost its connection: ${reason}`);
        this.report('closed', { reason });
      },
    });
    const subscribe = (key, handle) => this.bus.subscribe(NOTIFICATIONS, key, handle);
    const decoded = (handle) => (body) => handle(this.encoding.decode(body));
    await this.bus.declare(NOTIFICATIONS);
    const known = new Promise((resolve) => { this.isKnown = resolve; });
    await Promise.all([
      subscribe('worker.new.send', decoded((worker) => this.receiveWorker(worker))),
      subscribe('worker.list', decoded((list) => this.receiveList(list))),
      subscribe('worker.del', decoded((worker) => this.receiveRemoval(worker))),
      subscribe('error', decoded((error) => this.receiveError(error))),
      // Plain text in every encoding.
      subscribe('worker.getAll', () => this.publish('worker.new.resend', this.identity())),
      subscribe('worker.next', decoded((job) => this.receiveJob(job))),
      subscribe('worker.next.ack', decoded((job) => this.receiveAck(job))),
    ]);
    this.publish('worker.new.send', this.identity());
    await known;
  }

  // Says goodbye. It goes on listening until the process ends.
  leave() {
    this.sent.forEach((entry) => clearTimeout(entry.timer));
    this.publish('worker.del', this.identity());
  }

  identity() {
    return { id: this.id, type: this.type };
  }

  publish(key, value) {
    this.bus.publish(NOTIFICATIONS, key, this.encoding.encode(value));
  }

  // Sends a job along a list of stops, each `TYPE:*` or a worker's id, and returns the job's id. It
  // is sent again until a worker says that it has taken it. Whether the job is done, nobody says.
  send(stops, data, position = 0, id = `J${Date.now()}`) {
    const job = {
      workers_list: stops,
      workers_list_id: position,
      data,
      sender: this.identity(),
      id,
    };
    this.sent.push(this.attempt(job, 1));
    return id;
  }

  attempt(job, tries) {
    this.publish('worker.next', job);
    return { job, timer: setTimeout(() => this.retry(job, tries), RETRY_MS) };
  }

  retry(job, tries) {
    if (tries >= MAX_TRIES) {
      this.report('gaveup', { id: job.id, data: job.data });
      this.treatError({ error: 'Job send too many times', data: job.data });
      return;
    }
    const entry = this.attempt(job, tries + 1);
    const index = this.sent.findIndex(({ job: { id } }) => id === job.id);
    if (index !== -1) this.sent[index] = entry;
  }

  receiveJob(job) {
    const stop = job.workers_list[job.workers_list_id];
    if (stop.match(new RegExp(`${this.type}:[0-9]{13}`))) {
      // Addressed to one worker: its turn does not matter.
      if (stop === this.id) this.take(job, stop, true);
    } else if (this.pool.isMyTurn && stop === `${this.type}:*`) {
      this.take(job, stop, false);
    }
  }

  take(job, stop, isDirect) {
    if (job.workers_list_id + 1 < job.workers_list.length) job.workers_list_id += 1;
    // The turn stays where it is when nobody's turn was asked for.
    if (isDirect) job.ignoreUpdate = true;
    this.publish('worker.next.ack', job);
    this.report('taken', { ...job, stop, ignoreUpdate: isDirect });
    this.doJob(job);
  }

  receiveAck(job) {
    if (job.sender.type !== this.type) return;
    if (job.sender.id === this.id) {
      this.stopTrying(job.id);
      const index = this.sent.findIndex((entry) => entry.job.id === job.id);
      if (index !== -1) this.sent.splice(index, 1);
      const { id, workers_list, workers_list_id, ignoreUpdate = false } = job;
      this.report('acked', { id, workers_list, workers_list_id, ignoreUpdate });
    }
    if (!job.ignoreUpdate) this.pool.advance();
  }

  receiveError(error) {
    // The manager puts the sender's identity here, which equals no id: its errors reach nobody.
    const isMatch = error.target == this.id;
    if (isMatch || error.target?.id === this.id) {
      this.report('error', { matched: isMatch, id: error.id, error: error.error, data: error.data });
    }
    if (!isMatch) return;
    this.stopTrying(error.id);
    this.treatError(error);
  }

  // Job ids are times: two jobs of one millisecond share theirs, and stop together.
  stopTrying(id) {
    for (const entry of this.sent) {
      if (entry.job.id === id) clearTimeout(entry.timer);
    }
  }

  receiveWorker(worker) {
    if (worker.type !== this.type) return;
    this.pool.add(worker);
    if (worker.id === this.id) this.isKnown();
    else if (this.pool.isFirst()) this.publish('worker.list', this.pool.entries);
  }

  receiveRemoval(worker) {
    if (worker.type === this.type) this.pool.remove(worker.id);
  }

  receiveList(entries) {
    if (entries[0].worker.type === this.type) this.pool.replace(entries);
  }
}
