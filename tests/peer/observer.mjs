// Sees every message of a bus and disturbs nobody: no worker, in no list.
import { Bus, NOTIFICATIONS, POLLING } from '../../examples/migrate/node/bus.js';
import { encodings } from '../../examples/migrate/node/encoding.js';

const QUESTION = 'Give me the worker list';

export class Observer {
  constructor({ broker, encoding, id = `OB:${Date.now()}` }) {
    this.id = id;
    this.broker = broker;
    this.encoding = encodings[encoding];
    this.questions = 0;
  }

  async start() {
    this.bus = await Bus.connect(this.broker, {
      noDelay: true,
      closed: (reason) => this.report('closed', { reason }),
    });
    const { channel } = this.bus;
    // One queue for both, so that the order is the broker's.
    const { queue } = await channel.assertQueue('', { exclusive: true });
    for (const exchange of [NOTIFICATIONS, POLLING]) {
      await this.bus.declare(exchange);
      await channel.bindQueue(queue, exchange, '#');
    }
    await channel.consume(queue, (message) => this.show('message', message), { noAck: true });
    const answers = await channel.assertQueue('', { exclusive: true });
    this.answers = answers.queue;
    await channel.consume(this.answers, (message) => this.show('answer', message), { noAck: true });
  }

  show(event, { content, fields, properties }) {
    const { exchange, routingKey: key } = fields;
    const text = content.toString();
    const isText = Buffer.from(text).equals(content);
    const given = Object.entries(properties).filter(([, value]) => value !== undefined);
    this.report(event, {
      exchange,
      key,
      hex: content.toString('hex'),
      text: isText ? text : null,
      value: this.read(content),
      properties: Object.fromEntries(given),
    });
  }

  // What cannot be read is shown as it is.
  read(content) {
    try {
      return this.encoding.decode(content);
    } catch {
      return null;
    }
  }

  // Asks for the list of workers, with a queue for the answer, and returns the question's id.
  poll() {
    this.questions += 1;
    const correlationId = `${this.id}-${this.questions}`;
    const options = { replyTo: this.answers, correlationId };
    this.bus.channel.publish(POLLING, 'worker.list', Buffer.from(QUESTION), options);
    return correlationId;
  }

  leave() {}
}
