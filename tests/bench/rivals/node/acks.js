// Acknowledgements of one channel, which numbers its deliveries: those that are settled without a gap
// take one, sent when all that arrived together has been handled.
export class Acks {
  constructor(channel) {
    this.channel = channel;
    // By number: the message, or null where it was refused.
    this.settled = new Map();
    this.nSent = 0;
    this.nOpen = 0;
    this.isScheduled = false;
    this.whenDrained = () => {};
  }

  // A delivery has come.
  open() {
    this.nOpen += 1;
  }

  settle(message) {
    this.note(message.fields.deliveryTag, message);
  }

  // The broker delivers it again, or does with it what the queue says of dead letters.
  refuse(message, { requeue }) {
    this.channel.nack(message, false, requeue);
    this.note(message.fields.deliveryTag, null);
  }

  // Resolves when no delivery is open and all acknowledgements are sent.
  async drained() {
    if (this.nOpen > 0) await new Promise((resolve) => { this.whenDrained = resolve; });
  }

  note(tag, message) {
    this.settled.set(tag, message);
    if (this.isScheduled) return;
    this.isScheduled = true;
    setImmediate(() => this.send());
  }

  send() {
    this.isScheduled = false;
    let last = null;
    for (let tag = this.nSent + 1; this.settled.has(tag); tag += 1) {
      last = this.settled.get(tag) ?? last;
      this.settled.delete(tag);
      this.nSent = tag;
      this.nOpen -= 1;
    }
    if (last) this.channel.ack(last, true);
    if (this.nOpen === 0) this.whenDrained();
  }
}
