// A client that never stops asking: a GET or a POST on /movies/ every 20 ms, whatever became of those
// before. It shows what a migration costs those who use the system. `run` tells it what to do, in
// lines, and it answers each with one:
//
//   to URL…   ask these in turn; answered when nothing is under way to any other
//   more N    answered when N more requests have ended: how many were answered and how many failed
//             so far, and the longest since the last such answer, in milliseconds
//   end       ask no more; answered when all have ended: as above, and how many were run twice
import http from 'node:http';
import { createInterface } from 'node:readline';

const EVERY_MS = 20;
// Longer than MicroServices.js or Warren wait for anything by themselves.
const PATIENCE_MS = 20_000;
const MOST_SHOWN = 10;

let urls = [];
let nSent = 0;
let nAnswered = 0;
let nFailed = 0;
let longest = 0;
let lastPosted = 'none yet';
// By URL.
const underWay = new Map();
// The titles of the movies that were given each number.
const numbered = new Map();
// Titles that were found more than once.
const doubled = new Set();
// What an order waits for; each function says whether it is over.
let waiting = [];

async function send() {
  if (urls.length === 0) return;
  nSent += 1;
  const url = urls[nSent % urls.length];
  // Every third: with every second, each of two URLs would get one method only.
  const method = nSent % 3 === 0 ? 'POST' : 'GET';
  const title = `Film ${nSent}`;
  const begun = Date.now();
  underWay.set(url, nUnderWay(url) + 1);
  try {
    if (method === 'POST') {
      stored(title, await ask(url, method, JSON.stringify({ title, description: 'In space' })));
    } else {
      found(await ask(`${url}?title=${encodeURIComponent(lastPosted)}`, method));
    }
    nAnswered += 1;
  } catch (error) {
    nFailed += 1;
    if (nFailed <= MOST_SHOWN) {
      const tookMs = Date.now() - begun;
      console.error(`${method} ${url} (${title}), ${tookMs} ms: ${error.message}`);
    }
  }
  longest = Math.max(longest, Date.now() - begun);
  underWay.set(url, nUnderWay(url) - 1);
  look();
}

// The content of an answer.
async function ask(url, method, body) {
  const { status, text } = await exchange(url, method, body);
  if (status !== 200) throw new Error(`status ${status} ${text}`);
  // The Node REST writes a time before it.
  return JSON.parse(text.replace(/^time: -?\d+ /, ''));
}

function exchange(url, method, body) {
  return new Promise((resolve, reject) => {
    // A connection of its own: one that is kept may be closed in the moment in which it is used.
    const request = http.request(url, { method, agent: false }, (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (chunk) => { text += chunk; });
      response.on('error', reject);
      response.on('end', () => resolve({ status: response.statusCode, text }));
    });
    request.setTimeout(PATIENCE_MS, () => request.destroy(new Error('no answer')));
    request.on('error', reject);
    request.end(body);
  });
}

function stored(title, movie) {
  if (movie.title !== title) throw new Error(`another movie was stored: ${JSON.stringify(movie)}`);
  numbered.set(movie.id, [...titled(movie.id), title]);
  lastPosted = title;
}

function found(movies) {
  if (!Array.isArray(movies)) throw new Error(`this is no list: ${JSON.stringify(movies)}`);
  if (movies.length > 1) doubled.add(movies[0].title);
}

const titled = (number) => numbered.get(number) ?? [];

// Every database numbers its movies from 1. One that was stored again, for an answer that nobody
// waits for, leaves a gap: a number that was given less often than one above it.
function nTwice() {
  let nGaps = 0;
  let most = 0;
  for (let number = Math.max(0, ...numbered.keys()); number > 0; number -= 1) {
    const times = titled(number).length;
    most = Math.max(most, times);
    if (times < most) {
      nGaps += most - times;
      const above = titled(number + 1).join(', ') || 'none';
      console.error(`run twice: a movie got the number ${number} for nobody; the next is: ${above}`);
    }
  }
  for (const title of doubled) console.error(`run twice: ${title} was found more than once`);
  return Math.max(nGaps, doubled.size);
}

const nUnderWay = (url) => underWay.get(url) ?? 0;

function figures() {
  const text = `${nAnswered} ${nFailed} ${longest}`;
  longest = 0;
  return text;
}

const orders = {
  to(...wanted) {
    urls = wanted;
    const others = () => [...underWay.keys()].filter((url) => !urls.includes(url));
    answer(() => others().every((url) => nUnderWay(url) === 0), () => 'moved');
  },
  more(n) {
    const enough = nAnswered + nFailed + Number(n);
    answer(() => nAnswered + nFailed >= enough, figures);
  },
  end() {
    urls = [];
    answer(() => nAnswered + nFailed === nSent, () => `${figures()} ${nTwice()}`);
  },
};

function answer(isOver, text) {
  waiting.push(() => {
    if (!isOver()) return false;
    console.log(text());
    return true;
  });
  look();
}

function look() {
  waiting = waiting.filter((isOver) => !isOver());
}

setInterval(send, EVERY_MS);
createInterface({ input: process.stdin })
  .on('line', (line) => {
    const [order, ...words] = line.split(' ');
    orders[order](...words);
  })
  // Whoever gave the orders is gone.
  .on('close', () => process.exit());
