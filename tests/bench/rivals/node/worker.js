// What somebody would write instead of Warren, for one worker: a consumer on amqplib that loses
// nothing. The work is that of tests/guests/tally. A reply is confirmed by the broker before its job
// is acknowledged; a job without one is acknowledged when it is done.
//
//     BROKER=amqp://… QUEUE=… [PREFETCH=256] node worker.js
//
// It prints `ready` when it consumes, and SIGTERM ends it with nothing half done.
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createRequire } from 'node:module';

import { Acks } from './acks.js';

// tests/install has put amqplib there.
const require = createRequire(new URL('../../../../examples/migrate/node/package.json', import.meta.url));
const amqp = require('amqplib');

// Where Warren publishes everything; the key is the address.
const JOBS = 'warren.v1.jobs';

const { BROKER, QUEUE, PREFETCH = '256' } = process.env;
if (!BROKER || !QUEUE) {
  console.error('name the broker and the queue: BROKER=amqp://… QUEUE=… node worker.js');
  process.exit(64);
}
const self = { id: `TALLY:${Date.now()}`, type: 'TALLY' };
let runs = 0;

// Without its connection it is of no use; whoever started it starts it again, and the broker delivers
// again what was not acknowledged.
function fail(error) {
  console.error(error);
  process.exit(1);
}

function tally(order) {
  runs += 1;
  if (order === null) return undefined;
  const { items = [] } = order;
  const total = items.reduce((sum, { price, count }) => sum + price * count, 0);
  return { items: items.length, total, runs };
}

// The message that tells the caller: transient, as nobody waits any longer after a broker's restart.
function reply({ replyTo, correlationId }, data) {
  const id = randomUUID();
  const body = { workers_list: [replyTo], workers_list_id: 0, data, sender: self, id };
  const options = {
    mandatory: true,
    persistent: false,
    type: 'reply',
    contentType: 'application/json',
    messageId: id,
    correlationId,
  };
  return [JOBS, replyTo, Buffer.from(JSON.stringify(body)), options];
}

const connection = await amqp.connect(BROKER, { noDelay: true });
const consumer = await connection.createChannel();
const publisher = await connection.createConfirmChannel();
for (const party of [connection, consumer, publisher]) party.on('error', fail);
// The caller is gone. The broker confirms the reply nevertheless.
publisher.on('return', ({ fields }) => console.error(`nobody waits at ${fields.routingKey} any more`));

const acks = new Acks(consumer);

function handle(message) {
  if (message === null) return fail(new Error(`the broker has ended the consumer: is ${QUEUE} deleted?`));
  acks.open();
  let data;
  try {
    data = tally(JSON.parse(message.content.toString()).data);
  } catch (error) {
    console.error(`a job that cannot be run: ${error.message}`);
    return acks.refuse(message, { requeue: false });
  }
  if (message.properties.replyTo === undefined || data === undefined) return acks.settle(message);
  publisher.publish(...reply(message.properties, data), (refused) => {
    if (refused) acks.refuse(message, { requeue: true });
    else acks.settle(message);
  });
}

await consumer.prefetch(Number(PREFETCH));
const { consumerTag } = await consumer.consume(QUEUE, handle);
console.log('ready');

await once(process, 'SIGTERM');
await consumer.cancel(consumerTag);
await acks.drained();
await consumer.close();
await connection.close();
