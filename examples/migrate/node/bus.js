// The broker as MicroServices.js uses it: one connection, one channel, topic exchanges, and a queue
// of its own for every subscription.
import amqp from 'amqplib';

export const NOTIFICATIONS = 'notifications';
export const POLLING = 'polling';

export class Bus {
  // `closed` is called with the reason when the connection has ended. There is no second one.
  static async connect(url, { noDelay = false, closed }) {
    const connection = await amqp.connect(url, { noDelay });
    let reason = 'ended by the broker';
    connection.on('error', (error) => { reason = error.message; });
    const bus = new Bus(connection, await connection.createChannel());
    connection.on('close', (error) => {
      if (!bus.isClosing) closed(error?.message ?? reason);
    });
    return bus;
  }

  constructor(connection, channel) {
    this.connection = connection;
    this.channel = channel;
    this.isClosing = false;
  }

  // Every party declares the exchanges, and must declare them alike.
  async declare(exchange) {
    await this.channel.assertExchange(exchange, 'topic', { durable: false });
  }

  // A message is acknowledged as soon as it has been handled, which says nothing about the job in
  // it. What `handle` throws goes to amqplib, which closes the connection.
  async subscribe(exchange, key, handle) {
    await this.declare(exchange);
    const { queue } = await this.channel.assertQueue('', { exclusive: true });
    await this.channel.bindQueue(queue, exchange, key);
    await this.channel.consume(queue, (message) => {
      if (message === null) return;
      handle(message.content);
      this.channel.ack(message);
    });
  }

  publish(exchange, key, body) {
    if (this.isClosing) return;
    this.channel.publish(exchange, key, body);
  }

  // Returns when the broker has read all that was published.
  async close() {
    this.isClosing = true;
    try {
      // The channel's end comes behind all that was published on it.
      await this.channel.close();
      await this.connection.close();
    } catch {
      // It has ended already.
    }
  }
}
