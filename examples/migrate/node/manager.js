// The SystemManager: asks every 10 seconds who is there, and complains about jobs that nobody can
// take. Jobs reach their workers without it.
//
//   node manager.js --broker amqp://localhost --encoding json
import { Bus, NOTIFICATIONS, POLLING } from './bus.js';
import { encodings } from './encoding.js';
import { run } from './program.js';

const GET_ALL = "Hi workers, tell me who's online";

export const options = {
  // Milliseconds between two questions who is there.
  keepalive: { type: 'string', default: '10000' },
};

export class Manager {
  constructor({ broker, encoding, noDelay, keepalive }) {
    this.id = `SM${Date.now()}`;
    this.broker = broker;
    this.noDelay = noDelay;
    this.encoding = encodings[encoding];
    this.keepalive = Number(keepalive);
    // By id. Who ends without a goodbye stays.
    this.workers = new Map();
  }

  // Hears what happens to the manager; for tests.
  report(_event, _fields) {}

  async start() {
    this.bus = await Bus.connect(this.broker, {
      noDelay: this.noDelay,
      closed: (reason) => {
        console.error(`${this.id} has lost its connection: ${reason}`);
        this.report('closed', { reason });
      },
    });
    const subscribe = (key, handle) => {
      const decoded = (body) => handle(this.encoding.decode(body));
      return this.bus.subscribe(NOTIFICATIONS, key, decoded);
    };
    await Promise.all([
      subscribe('worker.new.*', (worker) => this.workers.set(worker.id, worker)),
      subscribe('worker.del', ({ id }) => this.workers.delete(id)),
      subscribe('worker.next', (job) => this.check(job)),
      this.bus.subscribe(POLLING, 'worker.list', () => this.print()),
    ]);
    this.askWhoIsThere();
    this.timer = setInterval(() => this.askWhoIsThere(), this.keepalive);
  }

  // Nobody is told: a manager is no worker.
  leave() {
    clearInterval(this.timer);
  }

  askWhoIsThere() {
    this.bus.publish(NOTIFICATIONS, 'worker.getAll', Buffer.from(GET_ALL));
  }

  check({ workers_list, workers_list_id, sender, id, data }) {
    if (this.canBeTaken(workers_list[workers_list_id])) return;
    // `target` should be the id of the sender: that is what workers compare with their own.
    const error = { target: sender, error: 'No worker available for this job', id, data };
    this.bus.publish(NOTIFICATIONS, 'error', this.encoding.encode(error));
    this.report('complained', { id });
  }

  canBeTaken(stop) {
    const workers = [...this.workers.values()];
    if (stop.match(/.+:[0-9]{13}/)) return workers.some(({ id }) => id === stop);
    const [, wanted] = stop.match(/(.+):\*/) ?? [];
    return wanted !== undefined && workers.some(({ type }) => type === wanted);
  }

  print() {
    for (const { id } of this.workers.values()) console.error(`${this.id} knows ${id}`);
  }

  greeting() {
    return `${this.id} asks every ${this.keepalive} ms who is there`;
  }
}

run(import.meta, Manager, options);
