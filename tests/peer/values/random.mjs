// Values by chance, the same for the same seed.
import { BSON, Ext } from './codecs.mjs'

const { Binary, BSONRegExp, Code, Decimal128, Long, MaxKey, MinKey, ObjectId, Timestamp } = BSON

const MAX_DEPTH = 5
const ALPHABET = [...'abz_$.0 "\\/\n\t\0\u001f', 'é', 'ж', '漢', '\u2028', '\ufffd', '😀', '𝒳', '\u{10ffff}']

// A generator of numbers from 0 to 1 ("mulberry32").
function chance (seed) {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296
  }
}

export function random (encoding, seed, count) {
  const next = chance(seed)
  const below = limit => Math.floor(next() * limit)
  const pick = list => list[below(list.length)]
  const bytes = length => Buffer.from(Array.from({ length }, () => below(256)))
  const integer = () => Math.trunc((next() * 2 - 1) * 2 ** pick([4, 7, 8, 15, 16, 31, 32, 40, 52]))
  const double = () => {
    const view = new DataView(new ArrayBuffer(8))
    view.setUint32(0, below(2 ** 32))
    view.setUint32(4, below(2 ** 32))
    const double = view.getFloat64(0)
    return Number.isNaN(double) ? NaN : double // NaN has many forms, of which only one is kept.
  }
  // Above 2^53, JSON is read to the last digit (the catalogue has such numbers).
  const number = () => pick([integer, next, () => Math.fround(next() * 1e6), () => 1 / double()])()
  const text = () => Array.from({ length: pick([0, 1, 5, 20, 40, 300]) }, () => pick(ALPHABET)).join('')
  const key = () => text().slice(0, 40).toWellFormed().replaceAll('\0', '0') + below(1000)
  const date = () => new Date(Math.trunc((next() * 2 - 1) * pick([1e5, 2e12, 2e14, 8.64e15])))

  const scalars = [() => null, () => next() < 0.5, integer, number, text, text]
  const special = {
    json: [],
    bson: [
      double, date, () => new ObjectId(bytes(12)), () => new Binary(bytes(below(40)), pick([0, 0, 3, 5, 128])),
      () => new Long(below(2 ** 32), pick([-1, 1]) * (2 ** 22 + below(2 ** 30))), () => new Timestamp({ t: below(2 ** 32), i: below(2 ** 32) }),
      () => Decimal128.fromString(`${pick(['', '-'])}${below(2 ** 32)}.${below(1e9)}E${below(200) - 100}`),
      () => new BSONRegExp(key(), pick(['', 'i', 'imx'])), () => new Code(text()), () => new Code(text(), object(MAX_DEPTH)),
      () => pick([new MinKey(), new MaxKey()])
    ],
    msgpack: [
      double, date, () => bytes(pick([0, 1, 40, 300])), () => new Ext(below(128), bytes(pick([0, 1, 2, 4, 7, 8, 16, 300]))),
      () => new Map([[integer(), value(MAX_DEPTH)], [key(), value(MAX_DEPTH)], [bytes(4), null]])
    ]
  }[encoding]
  const object = depth => Object.fromEntries(Array.from({ length: below(9) }, () => [key(), value(depth + 1)]))
  const array = depth => Array.from({ length: below(9) }, () => value(depth + 1))
  const value = depth => {
    const branch = depth < MAX_DEPTH ? [object, array] : []
    return pick([...scalars, ...special, ...branch, ...branch])(depth)
  }
  return Array.from({ length: count }, () => object(0))
}
