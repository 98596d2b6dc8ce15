// REST, the worker `WA`: turns HTTP requests on /movies/ into jobs for a Pilot.
//
//   node rest.js --broker amqp://localhost --encoding json --http 8080
import { randomUUID } from 'node:crypto';
import http from 'node:http';
import querystring from 'node:querystring';

import { run } from './program.js';
import { Worker } from './worker.js';

export const options = {
  // 0 for any free port.
  http: { type: 'string', default: '8080' },
  // The example of MicroServices.js sends POST to `WD`, which no worker answers to.
  'post-to': { type: 'string', default: 'WD' },
};

export class Rest extends Worker {
  constructor(settings) {
    super('WA', settings);
    this.wanted = Number(settings.http);
    this.postTo = settings['post-to'];
    // By `resId`. An answered one stays: a second answer to it must fail.
    this.responses = new Map();
  }

  async start() {
    await super.start();
    this.server = http.createServer((request, response) => this.receive(request, response));
    await new Promise((resolve) => { this.server.listen(this.wanted, '127.0.0.1', resolve); });
    this.port = this.server.address().port;
  }

  receive(request, response) {
    const [path] = request.url.split('?', 1);
    if (path !== '/movies/' || !['GET', 'POST'].includes(request.method)) {
      response.writeHead(404);
      response.end();
      return;
    }
    const resId = randomUUID();
    this.responses.set(resId, response);
    const ask = (stop, params) => {
      this.send([stop], { method: request.method, params, resId, time: Date.now() });
    };
    if (request.method === 'GET') {
      ask('WD:*', { ...querystring.parse(request.url.slice(path.length + 1)) });
      return;
    }
    let body = '';
    request.on('data', (chunk) => { body += chunk; });
    request.on('end', () => ask(this.postTo, body));
  }

  doJob({ data }) {
    const took = Date.now() - data.time;
    this.respond(data.resId, 200, `time: ${took} ${JSON.stringify(data.content)}`);
  }

  treatError({ data }) {
    this.respond(data.resId, 500);
  }

  respond(resId, status, body) {
    const response = this.responses.get(resId);
    response.writeHead(status);
    response.end(body);
    this.report('response', { resId, status, body });
  }

  greeting() {
    return `${this.id} answers on http://127.0.0.1:${this.port}/movies/`;
  }
}

run(import.meta, Rest, options);
