// DB, the worker `WB`: keeps movies, in its memory, and sends what it has found along the list of
// the job.
//
//   node db.js --broker amqp://localhost --encoding json
import { run } from './program.js';
import { Worker } from './worker.js';

export class Db extends Worker {
  constructor(settings) {
    super('WB', settings);
    this.movies = [];
  }

  doJob({ data, workers_list, workers_list_id }) {
    const { method, params, resId, time } = data;
    const content = method === 'POST' ? this.store(params) : this.find(params ?? {});
    // On the last stop of a list, that is this worker itself, for ever.
    this.send(workers_list, { content, resId, time }, workers_list_id);
  }

  // `text` is the body of the request.
  store(text) {
    let posted;
    try {
      posted = JSON.parse(text);
    } catch {
      return 'this is no JSON';
    }
    const { title, description = null } = posted;
    const movie = { id: this.movies.length + 1, title, description };
    this.movies.push(movie);
    return movie;
  }

  // `query` has the fields that are asked about, each with a value or a list of them.
  find(query) {
    const matches = (movie) => Object.entries(query)
      .every(([name, values]) => [values].flat().includes(String(movie[name])));
    return this.movies.filter(matches);
  }

  greeting() {
    return `${this.id} keeps movies`;
  }
}

run(import.meta, Db);
