// Pilot, the worker `WD`: has each question answered by a DB, who answers whoever asked.
//
//   node pilot.js --broker amqp://localhost --encoding json
import { run } from './program.js';
import { Worker } from './worker.js';

export class Pilot extends Worker {
  constructor(settings) {
    super('WD', settings);
  }

  doJob({ data, sender }) {
    if (['GET', 'POST'].includes(data.method)) this.send(['WB:*', sender.id], data);
  }

  greeting() {
    return `${this.id} guides`;
  }
}

run(import.meta, Pilot);
