// The programs of this folder: their command lines and their ends.
import { realpathSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import { encodings } from './encoding.js';

// MicroServices.js waits as long for what it has written last to leave.
const GOODBYE_MS = 200;
// At most, for the broker to have read it.
const CLOSING_MS = 2000;

const common = {
  broker: { type: 'string', default: 'amqp://localhost' },
  encoding: { type: 'string', default: 'json' },
  'no-delay': { type: 'boolean', default: false },
};

export function commandLine(options) {
  const { values } = parseArgs({ options: { ...common, ...options } });
  if (!(values.encoding in encodings)) {
    throw new Error(`--encoding is one of ${Object.keys(encodings).join(', ')}`);
  }
  return { ...values, noDelay: values['no-delay'] };
}

export function leave(worker) {
  worker.leave();
  setTimeout(async () => {
    setTimeout(() => process.exit(), CLOSING_MS);
    await worker.bus?.close();
    process.exit();
  }, GOODBYE_MS);
}

// Runs a kind of worker if its file is the one that was started. Ctrl-C makes it say goodbye; any
// other signal ends it as it stands.
export async function run({ url }, Kind, options = {}) {
  const [, started] = process.argv;
  if (!started || realpathSync(started) !== fileURLToPath(url)) return;
  const worker = new Kind(commandLine(options));
  process.on('SIGINT', () => leave(worker));
  await worker.start();
  console.log(worker.greeting());
}
