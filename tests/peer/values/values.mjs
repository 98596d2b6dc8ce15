// The other end of tests/tests/values: js-bson, msgpack5 and JSON, the codecs of MicroServices.js,
// as a process. Each line of input is a request, each line of output its answer, an array or
// {"error"}:
//   {"catalogue": true}                       every kind of value, as its library writes it
//   {"random": encoding, "seed", "count"}     values by chance, the same for the same seed
//   {"bodies": true}                          one message of each kind in each encoding
//   {"decode": [[encoding, hex], …]}          what the library sees in the bytes
import { createInterface } from 'node:readline'
import { decode, encode, text } from './codecs.mjs'
import { catalogue } from './catalogue.mjs'
import { expected } from './expected.mjs'
import { random } from './random.mjs'

const ENCODINGS = ['json', 'bson', 'msgpack']
const SENDER = { id: 'WA:1795220958664', type: 'WA' }

const job = data => ({
  workers_list: ['WD:*', SENDER.id],
  workers_list_id: 0,
  data,
  sender: SENDER,
  id: 'J1795220962353'
})

// A value alone and in a job, as its library writes it, and what the others have to see in it.
function entry ({ encoding, name, value, write, loose = false, unread = false, refused = false }) {
  // BSON has no other value at the top than a document.
  const alone = encoding === 'bson' ? { v: value } : value
  const found = { encoding, name, loose, refused, mended: false }
  for (const [context, whole] of Object.entries({ alone, job: job(value) })) {
    const bytes = write(whole)
    found[context] = { hex: bytes.toString('hex') }
    if (refused || unread) continue
    const seen = wellFormed(decode(encoding, bytes))
    found.mended ||= text(seen) !== text(decode(encoding, bytes))
    found[context].sees = text(seen)
    found[context].in = {}
    for (const other of ENCODINGS.filter(other => other !== encoding)) {
      const there = expected(seen, encoding, other)
      found[context].in[other] = carried(there, other)
      found.loose ||= there.loose
    }
  }
  return found
}

function carried (there, to) {
  const sees = text(there.value)
  const written = there.exact && isDocument(there.value, to) ? encode(to, there.value) : null
  // msgpack5 misplaces bits in some dates, and then does not see what it has written.
  const sound = written !== null && text(decode(to, written)) === sees
  return { sees, hex: sound ? written.toString('hex') : null, back: text(there.back) }
}

// Only JSON can say half a surrogate pair; we read it as the others write it.
function wellFormed (value) {
  if (typeof value === 'string') return value.toWellFormed()
  if (Array.isArray(value)) return value.map(wellFormed)
  if (value === null || Object.getPrototypeOf(value) !== Object.prototype) return value
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key.toWellFormed(), wellFormed(item)]))
}

const isDocument = (value, encoding) => {
  return encoding !== 'bson' || (value !== null && Object.getPrototypeOf(value) === Object.prototype)
}

function bodies () {
  const list = [{ worker: { id: 'WB:1795220940610', type: 'WB' }, isNext: true }]
  const messages = {
    'worker.next': job({ resId: 'r', time: 1795220962352 }),
    'worker.next.ack': { ...job({ resId: 'r' }), ignoreUpdate: true },
    error: { target: SENDER, error: 'No worker available for this job', id: 'J1795220962353', data: { resId: 'r' } },
    'worker.new.send': SENDER,
    'worker.list': list
  }
  // BSON has no array at the top: a list comes as a document.
  const body = (encoding, message) => encoding === 'bson' && message === list ? { ...list } : message
  return ENCODINGS.flatMap(encoding => Object.entries(messages).map(([topic, message]) => {
    return { encoding, topic, hex: encode(encoding, body(encoding, message)).toString('hex') }
  }))
}

function sees ([encoding, hex]) {
  try {
    return { sees: text(decode(encoding, Buffer.from(hex, 'hex'))) }
  } catch (error) {
    return { error: error.message }
  }
}

function answer (request) {
  if (request.catalogue) return catalogue().map(entry)
  if (request.bodies) return bodies()
  if (request.decode) return request.decode.map(sees)
  if (request.random) {
    const { random: encoding, seed, count } = request
    const write = value => encode(encoding, value)
    return random(encoding, seed, count).map((value, index) => {
      return entry({ encoding, name: `value ${index} of seed ${seed}`, value, write })
    })
  }
  throw new Error('unknown request')
}

for await (const line of createInterface({ input: process.stdin })) {
  let answered
  try {
    answered = answer(JSON.parse(line))
  } catch (error) {
    answered = { error: error.stack }
  }
  process.stdout.write(JSON.stringify(answered) + '\n')
}
