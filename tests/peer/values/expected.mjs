// What a value of one library has to be in another, written from the table in
// host/protocol/src/codec/extended.rs. For what only BSON says, js-bson's own EJSON is asked.
import { BSON, Ext } from './codecs.mjs'

const { Binary, Decimal128, EJSON, Long } = BSON

const BEYOND_I64 = 2n ** 63n
const BEYOND_U64 = 2n ** 64n
const BEYOND_9999 = Date.UTC(10000, 0)
const BEYOND_PLAIN = 1e21 // From here on, JavaScript prints an exponent.

// The value in the encoding `to`; `exact` when the library of that encoding would write it in the
// same bytes as we do; `back`, what it is after the way back; `loose` when that may have other bytes.
export function expected (value, from, to) {
  const found = { exact: true, loose: false }
  const there = carried(value, from, to, found)
  const back = from === 'json' ? backToJson(value) : value
  return { value: there, ...found, back }
}

function carried (value, from, to, found) {
  const inside = item => carried(item, from, to, found)
  if (typeof value === 'number') return number(value, from, to, found)
  if (value === null || typeof value !== 'object') return value
  if (Array.isArray(value)) return value.map(inside)
  if (value instanceof Date) return to === 'json' ? words(value) : value
  if (value instanceof Uint8Array) {
    const binary = new Binary(Buffer.from(value))
    return to === 'json' ? words(binary) : binary
  }
  if (value instanceof Ext) {
    return { $msgpackExt: { type: value.type, base64: value.bytes.toString('base64') } }
  }
  if (value instanceof Map) {
    return { $msgpackMap: [...value].map(([key, item]) => [inside(key), inside(item)]) }
  }
  if (value._bsontype) return ofBson(value, to, inside, found)
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, inside(item)]))
}

function number (value, from, to, found) {
  const size = Math.abs(value)
  const wide = Number.isInteger(value) && size > Number.MAX_SAFE_INTEGER && size < BEYOND_PLAIN
  // JSON prints them as digits, which are read to the last one.
  if (from === 'json' && wide) {
    found.loose = true
    return integer(BigInt(String(value)), to, found)
  }
  // We write them with an exponent, and a zero with its sign.
  if (to === 'json' && wide) found.exact = false
  if (to !== 'bson' && Object.is(value, -0)) found.exact = false
  return to === 'json' && !Number.isFinite(value) ? words(value) : value
}

function integer (value, to, found) {
  if (value >= BEYOND_U64 || value < -BEYOND_I64) return Number(value)
  if (to === 'msgpack') {
    if (BigInt(Number(value)) !== value) {
      return value >= BEYOND_I64 ? { $numberDecimal: String(value) } : { $numberLong: String(value) }
    }
    // msgpack5 would write a float.
    found.exact = false
    return Number(value)
  }
  if (value >= BEYOND_I64) return Decimal128.fromString(String(value))
  const long = Long.fromBigInt(value)
  if (Math.abs(Number(value)) > 2 ** 53) return long
  found.exact = false
  return Number(value)
}

function backToJson (value) {
  if (Array.isArray(value)) return value.map(backToJson)
  if (value !== null && typeof value === 'object') {
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, backToJson(item)]))
  }
  const size = Math.abs(value)
  if (!Number.isInteger(value) || size <= Number.MAX_SAFE_INTEGER || size >= BEYOND_PLAIN) return value
  const digits = BigInt(String(value))
  if (digits >= BEYOND_U64 || digits < -BEYOND_I64) return value
  return digits >= BEYOND_I64 ? { $numberDecimal: String(digits) } : { $numberLong: String(digits) }
}

function ofBson (value, to, inside, found) {
  const type = value._bsontype
  if (type === 'Code' && value.scope) return { $code: value.code, $scope: inside(value.scope) }
  if (type === 'DBRef') {
    const { $ref, $id, $db, ...fields } = value.toJSON()
    return { $ref, $id: inside($id), ...($db === undefined ? {} : { $db }), ...inside(fields) }
  }
  if (to === 'msgpack') {
    if (type === 'Long') return integer(value.toBigInt(), to, found)
    if (type === 'Binary' && value.sub_type === 0) return Buffer.from(value.value())
    if (type === 'Decimal128' && /^[0-9]+$/.test(value) && BigInt(value) >= BEYOND_I64 && BigInt(value) < BEYOND_U64) {
      return integer(BigInt(value), to, found)
    }
  }
  return words(value)
}

// js-bson rounds a Long here, and has its own end of the year 9999: the specification has neither.
function words (value) {
  if (value._bsontype === 'Long') return { $numberLong: String(value) }
  if (value instanceof Date && value.getTime() >= BEYOND_9999) return { $date: { $numberLong: String(value.getTime()) } }
  return JSON.parse(EJSON.stringify(value, { relaxed: true }))
}
