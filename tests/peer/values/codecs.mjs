// The codecs of MicroServices.js as it configures them, and a text for any value that keeps types
// apart which JavaScript would print alike.
import { createRequire } from 'node:module'

const require = createRequire(new URL('../../../examples/migrate/node/package.json', import.meta.url))
export const BSON = require('bson')
export const msgpack5 = require('msgpack5')

// msgpack5 says this once for every Map with texts for keys; it is not of interest.
console.warn = () => {}

// A value of a type that an application has registered.
export class Ext {
  constructor (type, bytes) {
    this.type = type
    this.bytes = Buffer.from(bytes)
  }
}

// An instance of msgpack5 that writes Ext, and reads every type that can be registered.
export function packer (options) {
  const packer = msgpack5(options)
  packer.registerEncoder(value => value instanceof Ext, ext => {
    return Buffer.concat([Buffer.from([ext.type]), ext.bytes])
  })
  for (let type = 0; type < 128; type++) packer.registerDecoder(type, bytes => new Ext(type, bytes.slice()))
  return packer
}

const plain = packer()

export function encode (encoding, value) {
  switch (encoding) {
    case 'json': return Buffer.from(JSON.stringify(value))
    case 'bson': return Buffer.from(BSON.serialize(value))
    case 'msgpack': return plain.encode(value)
  }
}

// As a Node worker does, but that regular expressions keep options that JavaScript has not. Of a
// copy: msgpack5 writes into the bytes of a negative integer of 64 bits while it reads them.
export function decode (encoding, original) {
  const bytes = Buffer.from(original)
  switch (encoding) {
    case 'json': return JSON.parse(bytes.toString())
    case 'bson': return BSON.deserialize(bytes, { bsonRegExp: true })
    case 'msgpack': return plain.decode(bytes)
  }
}

const hex = bytes => Buffer.from(bytes).toString('hex')

export function text (value) {
  if (value === null || typeof value === 'boolean') return String(value)
  if (typeof value === 'number') return 'number ' + (Object.is(value, -0) ? '-0' : value)
  if (typeof value === 'string') return 'text ' + JSON.stringify(value)
  if (Array.isArray(value)) return '[' + value.map(text).join(', ') + ']'
  if (value instanceof Date) return 'date ' + value.getTime()
  if (value instanceof Uint8Array) return 'bytes ' + hex(value)
  if (value instanceof Ext) return `extension ${value.type} ${hex(value.bytes)}`
  if (value instanceof Map) return 'map {' + [...value].map(([k, v]) => text(k) + ' => ' + text(v)).join(', ') + '}'
  switch (value?._bsontype) {
    case 'Binary': return `binary ${value.sub_type} ${hex(value.value())}`
    case 'BSONRegExp': return 'regex ' + JSON.stringify([value.pattern, value.options])
    case 'Code': return 'code ' + JSON.stringify(value.code) + (value.scope ? ' with ' + text(value.scope) : '')
    case 'DBRef': return 'reference ' + text({ $ref: value.collection, $id: value.oid, $db: value.db ?? null, ...value.fields })
    case 'Timestamp': return `timestamp ${value.t} ${value.i}`
    case 'Decimal128': case 'Long': case 'ObjectId': return value._bsontype + ' ' + value
    case 'MinKey': case 'MaxKey': return value._bsontype
  }
  if (Object.getPrototypeOf(value) === Object.prototype) {
    return '{' + Object.entries(value).map(([k, v]) => JSON.stringify(k) + ': ' + text(v)).join(', ') + '}'
  }
  throw new Error('no text for ' + value)
}
