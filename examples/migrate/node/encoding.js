// The encodings of MicroServices.js. No message says which one it is in: all that share a bus must
// be configured alike.
import * as bson from 'bson';
import msgpack5 from 'msgpack5';

const msgpack = msgpack5();

export const encodings = {
  json: {
    encode: (value) => Buffer.from(JSON.stringify(value)),
    decode: (body) => JSON.parse(body.toString()),
  },
  // A document is never a list: encoding a list throws.
  bson: {
    encode: (value) => Buffer.from(bson.serialize(value)),
    decode: (body) => bson.deserialize(body),
  },
  msgpack: {
    encode: (value) => msgpack.encode(value),
    decode: (body) => msgpack.decode(body),
  },
};
