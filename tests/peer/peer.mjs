// A Node worker for tests: the workers of examples/migrate/node, with what happens to them on
// standard output and commands on standard input, one JSON object a line. It ends with its input.
//
//   node peer.mjs --broker URL --encoding json --role rest|pilot|db|manager|worker|observer [options]
//
// Any role takes --id and --no-delay, as well as the options of its program. A `worker` has --type
// and --on-job: forward (to the next stop, as a DB does), drop, or reply (to the sender).
import readline from 'node:readline';
import { parseArgs } from 'node:util';

import { NOTIFICATIONS } from '../../examples/migrate/node/bus.js';
import { Db } from '../../examples/migrate/node/db.js';
import { Manager, options as managerOptions } from '../../examples/migrate/node/manager.js';
import { Pilot } from '../../examples/migrate/node/pilot.js';
import { commandLine, leave } from '../../examples/migrate/node/program.js';
import { Rest, options as restOptions } from '../../examples/migrate/node/rest.js';
import { Worker } from '../../examples/migrate/node/worker.js';
import { Observer } from './observer.mjs';

// Takes any job, and does with it as it is told.
class Scripted extends Worker {
  constructor(settings) {
    super(settings.type, settings);
    this.onJob = settings['on-job'];
  }

  doJob({ data, sender, workers_list, workers_list_id }) {
    if (this.onJob === 'forward') this.send(workers_list, data, workers_list_id);
    if (this.onJob === 'reply') this.send([sender.id], data);
  }
}

const roles = {
  rest: Rest, pilot: Pilot, db: Db, manager: Manager, worker: Scripted, observer: Observer,
};

const settings = commandLine({
  ...restOptions,
  ...managerOptions,
  role: { type: 'string' },
  type: { type: 'string', default: 'TX' },
  id: { type: 'string' },
  'on-job': { type: 'string', default: 'drop' },
});

const print = (event, fields) => console.log(JSON.stringify({ event, at: Date.now(), ...fields }));

process.on('uncaughtException', (error) => {
  print('died', { reason: error.message });
  console.error(error);
  process.exit(1);
});

const peer = new roles[settings.role](settings);
peer.report = print;

// Deaf to jobs while it is held: it does not even take them.
let isHeld = false;
if (peer instanceof Worker) {
  const receiveJob = peer.receiveJob.bind(peer);
  peer.receiveJob = (job) => { if (!isHeld) receiveJob(job); };
}

// Each answers with one event, so that a test knows when it is done.
const commands = {
  send({ stops, data, position, id }) {
    print('sent', { id: peer.send(stops, data, position, id) });
  },
  publish({ exchange = NOTIFICATIONS, key, hex }) {
    peer.bus.publish(exchange, key, Buffer.from(hex, 'hex'));
    print('published');
  },
  encode({ value }) {
    print('encoded', { hex: peer.encoding.encode(value).toString('hex') });
  },
  decode({ hex }) {
    print('decoded', { value: peer.encoding.decode(Buffer.from(hex, 'hex')) });
  },
  poll() {
    print('polled', { id: peer.poll() });
  },
  list() {
    const workers = peer instanceof Manager ? [...peer.workers.values()] : peer.pool.entries;
    print('list', { workers, isMyTurn: peer.pool?.isMyTurn });
  },
  hold() {
    isHeld = true;
    print('held');
  },
  go() {
    isHeld = false;
    print('going');
  },
  leave() {
    leave(peer);
    print('leaving');
  },
};

const ready = peer.start();

const input = readline.createInterface({ input: process.stdin });
input.on('close', () => process.exit());
input.on('line', async (line) => {
  await ready;
  const command = JSON.parse(line);
  try {
    commands[command.do](command);
  } catch (error) {
    print('refused', { do: command.do, reason: error.message });
  }
});

process.on('SIGINT', () => leave(peer));
await ready;
print('ready', { id: peer.id, port: peer.port });
