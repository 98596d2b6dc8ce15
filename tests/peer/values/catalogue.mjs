// Every kind of value that a library can write. `loose` says why the bytes need not come back.
import { BSON, Ext, encode, packer } from './codecs.mjs'

const {
  Binary, BSONRegExp, BSONSymbol, Code, DBRef, Decimal128, Double, Int32, Long, MaxKey, MinKey, ObjectId, Timestamp,
  UUID
} = BSON

export function nest (depth, inner = [], wrap = value => [value]) {
  let value = inner
  for (let level = 1; level < depth; level++) value = wrap(value)
  return value
}

const many = length => Array.from({ length }, (_, index) => index)
const fields = length => Object.fromEntries(many(length).map(index => ['k' + index, index]))

const texts = {
  'empty text': '',
  'text with NUL': 'a\0b\0',
  'text with controls': '"\\\b\f\n\r\t\u0001\u001f\u007f/</script>',
  'text of many planes': 'é ключ 漢字 \u2028\u2029 \ufeff \ufffd \uffff 😀 𝒳 \u{10ffff} e\u0301 \u202e',
  'text cut within a character': 'cut \ud83d, and \ude00 the other way: \ude00\ud83d',
  'text that looks like an escape': '\\ud800 \\\\ud800 \\u0041',
  ...Object.fromEntries([31, 32, 255, 256, 65535, 65536].map(n => [`text of ${n} bytes`, 'x'.repeat(n)]))
}
const keys = {
  'no fields': {},
  'empty key': { '': { '': '' } },
  'keys of many planes': { é: 1, 漢: { '😀': [2] }, '\u2028"\\\n': 3, ['k'.repeat(300)]: 4 },
  'keys like those of an envelope': { workers_list: ['x'], sender: null, id: { id: 1 }, data: { data: [] } },
  'key cut within a character': { 'a\ud83d': 1 },
  'keys with dots and dollars': { 'a.b': 1, $set: { $inc: 1 }, $or: [1], constructor: 2, toString: 'x' },
  'keys that are numbers': { 0: 'a', 7: 'b', '-1': 'c', '01': 'd' },
  ...Object.fromEntries([15, 16, 300].map(n => [`${n} fields`, fields(n)]))
}
const shapes = {
  null: null,
  true: true,
  false: false,
  'empty array': [],
  'empty things': [{}, [], '', [[]], [{}], { a: {} }],
  'mixed array': [1, 'a', null, true, 1.5, [2, [3]], { a: [] }],
  ...Object.fromEntries([15, 16, 300, 65536].map(n => [`array of ${n}`, many(n)])),
  'nested 98 deep': nest(98),
  'objects nested 98 deep': nest(98, {}, value => ({ a: value })),
  'a realistic one': { method: 'GET', params: {}, resId: '9a4c0b92-0720-4601-9640-dcb899a77975', time: 1795220962352 }
}
const integers = [
  0, 1, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2147483647, 2147483648, 4294967295, 4294967296, 1795220962352,
  9007199254740991, -1, -32, -33, -127, -128, -129, -32768, -32769, -214748364, -214748365, -2147483648, -2147483649,
  -4294967296, -9007199254740991
]
const wide = [
  9007199254740992, -9007199254740992, 9007199254740994, 1e17, -1e17, 2 ** 60, 2 ** 63, -(2 ** 63), 2 ** 64, 1e20,
  -1e20, 1e21, -1e21, 1.7976931348623157e308
]
const fractions = [
  0.5, -1.5, 0.1, -0.1, 1 / 3, Math.PI, 16777217.5, 3.4028234663852886e38, 1.401298464324817e-45, 1e-6, 1e-7, 1.5e-7,
  5e-324, 2.2250738585072014e-308, 123456.789, 184.24307250976562, 0.00001, 0.0000099, 12345678901234.5, 1.5e300
]
const odd = [-0, NaN, Infinity, -Infinity]

const values = {
  ...shapes,
  ...texts,
  ...keys,
  ...Object.fromEntries([...integers, ...wide, ...fractions].map(n => ['number ' + n, n]))
}
const dates = Object.fromEntries([
  0, 1, 999, 1000, 1795220962352, 1795220962000, -1, -999, -1000, -1001, -62135596800000, 4294967295000, 4294967295999,
  4294967296000, 4294967296001, 17179869183000, 17179869185000, 253402300799999, 253402300800000, 8.64e15, -8.64e15
].map(ms => ['date ' + ms, new Date(ms)]))

const json = {
  ...values,
  'numbers that JSON has not': odd,
  'what JSON leaves out': { a: undefined, b: () => 1, c: Symbol('s'), d: [undefined, () => 1], e: new Map([[1, 2]]) },
  'what has a toJSON': { date: new Date(1795220962352), bytes: Buffer.from([1, 2]), id: new ObjectId('5f0d1c2b3a49586776655443') },
  'nested 100 deep': nest(100)
}

const binaries = [0, 1, 2, 3, 4, 5, 6, 7, 8, 128, 255].map(subtype => {
  return [`binary ${subtype}`, new Binary(Buffer.from('0123456789abcdef'), subtype)]
})
const longs = [
  '9007199254740991', '9007199254740993', '9007199254740994', '1152921504606846976', '9223372036854775807', '-9007199254740991',
  '-9007199254740993', '-9223372036854775808', '-1'
]
const decimals = [
  '0', '-0', '1.50', '-1E+3', 'NaN', 'Infinity', '-Infinity', '9223372036854775807', '9223372036854775808',
  '18446744073709551615', '18446744073709551616', '9.999999999999999999999999999999999E+6144', '1E-6176',
  '1234567890123456789012345678901234'
]
const id = new ObjectId('5f0d1c2b3a49586776655443')
const bson = {
  ...values,
  ...dates,
  'date that msgpack5 gets wrong': new Date(2 ** 34 * 1000 - 1),
  'another that msgpack5 gets wrong': new Date(2 ** 34 * 1000),
  ...Object.fromEntries(binaries),
  ...Object.fromEntries(decimals.map(n => ['decimal ' + n, Decimal128.fromString(n)])),
  ...Object.fromEntries(odd.map(n => ['number ' + (Object.is(n, -0) ? '-0' : n), n])),
  'empty binary': new Binary(Buffer.alloc(0)),
  'empty old binary': new Binary(Buffer.alloc(0), 2),
  'vector of float32': Binary.fromFloat32Array(new Float32Array([1.5, -2])),
  uuid: new UUID('9a4c0b92-0720-4601-9640-dcb899a77975'),
  buffer: Buffer.from([0, 255]),
  'object id': id,
  timestamp: new Timestamp({ t: 4294967295, i: 7 }),
  regex: /^a.*b$/gi,
  'regex of BSON': new BSONRegExp('é\\.(x)', 'ilmsux'),
  'empty regex': new BSONRegExp('', ''),
  code: new Code('x => x'),
  'code with scope': new Code('x => x + y', { y: 1, when: new Date(5), deep: { long: Long.MAX_VALUE } }),
  'code with an empty scope': new Code('x', {}),
  reference: new DBRef('films', id),
  'reference to another database': new DBRef('films', id, 'other', { more: new Date(5) }),
  MinKey: new MinKey(),
  MaxKey: new MaxKey(),
  Map: new Map([['a', 1], ['b', new Map([['c', new Date(5)]])]]),
  BigInt: 2n ** 62n,
  'everything at once': [id, new Date(5), { d: Decimal128.fromString('1.5'), r: /a/i }, [new MinKey(), NaN, Long.MIN_VALUE]],
  'nested 99 deep': nest(99)
}
const looseBson = {
  'regex with options out of order': /^a.*b$/gims,
  ...Object.fromEntries(longs.map(n => ['long ' + n, Long.fromString(n)])),
  'small long': Long.fromNumber(5),
  'unsigned long': Long.fromString('18446744073709551615', true),
  'whole double': new Double(5),
  'wide double': new Double(4294967296),
  int32: new Int32(-5),
  symbol: new BSONSymbol('s')
}

const msgpack = {
  ...values,
  ...dates,
  'not a number': NaN,
  infinities: [Infinity, -Infinity],
  'zero below zero': -0,
  'float32 limits': [3.4028234663852886e38, 1.1754943508222875e-38, 16777216.5, 0.10000000149011612],
  ...Object.fromEntries([0, 1, 255, 256, 65535, 65536].map(n => [`${n} bytes`, Buffer.alloc(n, 7)])),
  Uint8Array: new Uint8Array([1, 2, 3]),
  Float32Array: new Float32Array([1.5]),
  'Map of texts': new Map([['a', 1], ['b', new Map()]]),
  'Map of numbers': new Map([[1, 'a'], [-5, 'b'], [1.5, 'c'], [2 ** 40, { d: new Date(5) }]]),
  'Map of anything': new Map([
    ['a', 1], [null, 2], [true, 3], [Buffer.from([1]), 4], [new Date(5), 5], [[1, [2]], 6], [{ k: 1 }, 7],
    [new Map([[1, 2]]), new Map([[3, 4]])], [new Ext(9, [1]), 9]
  ]),
  ...Object.fromEntries([0, 1, 2, 3, 4, 5, 8, 12, 16, 17, 255, 256, 65536].map(n => {
    return [`extension of ${n} bytes`, new Ext(5, Buffer.alloc(n, 7))]
  })),
  ...Object.fromEntries([0, 1, 127].map(type => ['extension ' + type, new Ext(type, [1, 2, 3])])),
  'everything at once': [Buffer.from('x'), { d: new Date(-1), e: new Ext(7, [1]) }, [NaN, new Map([[1, NaN]])]],
  'what it leaves out': { a: undefined, b: () => 1, c: /a/, d: new Set([1]) },
  'nested 100 deep': nest(100)
}

const packed = (options, values) => Object.entries(values).map(([name, value]) => {
  return { encoding: 'msgpack', name: `${name} with ${JSON.stringify(options)}`, value, write: packer(options).encode, loose: true }
})

// `write` encodes the value, alone or in a job.
export function catalogue () {
  const writer = encoding => value => encode(encoding, value)
  const entries = (encoding, values, more = {}) => Object.entries(values).map(([name, value]) => {
    return { encoding, name, value, write: writer(encoding), ...more }
  })
  const withUndefined = value => Buffer.from(BSON.serialize(value, { ignoreUndefined: false, serializeFunctions: true }))
  return [
    ...entries('json', json),
    ...entries('bson', bson),
    ...entries('bson', looseBson, { loose: true }),
    ...entries('bson', { undefined: [undefined, { a: undefined }], sparse: [1, , 3], left: { a: undefined, b: 1 } }), // eslint-disable-line no-sparse-arrays
    ...entries('bson', { undefined: { a: undefined, b: [undefined], f: function f () {} } }, { name: 'undefined, written', write: withUndefined }),
    ...entries('bson', { invalid: new Date(NaN) }, { name: 'date that is none' }),
    ...entries('msgpack', msgpack),
    // msgpack5 writes these with bits in the wrong place, and reads another date.
    ...entries('msgpack', {
      'date with a nanosecond': new Date(2 ** 34 * 1000 - 1),
      'date in 1970': new Date(2 ** 34 * 1000)
    }, { unread: true }),
    ...packed({ forceFloat64: true }, { fractions, odd }),
    ...packed({ compatibilityMode: true }, { texts: [texts['text of 255 bytes'], ''], buffer: Buffer.from('a buffer as a text') }),
    ...packed({ disableTimestampEncoding: true }, { date: new Date(5) }),
    ...packed({ preferMap: true }, { map: new Map([['a', 1]]) }),
    ...['json', 'bson', 'msgpack'].flatMap(encoding => {
      return entries(encoding, { 'nested 101 deep': nest(101), 'nested 1000 deep': nest(1000) }, { refused: true })
    })
  ]
}
