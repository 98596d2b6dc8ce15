//! The recorded conversations, read for every test of this crate.
#![allow(dead_code, reason = "no file of tests uses all of it")]

use bytes::Bytes;
use serde_json::Value;
use warren_protocol::Encoding;

/// One recorded message.
pub(crate) struct Recorded {
    pub(crate) exchange: String,
    pub(crate) routing_key: String,
    pub(crate) body: Bytes,
    /// What a Node worker reads; null for a plain text.
    pub(crate) decoded: Value,
}

/// The conversation of real Node workers in one encoding.
pub(crate) fn conversation(encoding: Encoding) -> Vec<Recorded> {
    let text = match encoding {
        Encoding::Json => include_str!("../../fixtures/json.json"),
        Encoding::Bson => include_str!("../../fixtures/bson.json"),
        Encoding::MessagePack => include_str!("../../fixtures/msgpack.json"),
    };
    let entries: Vec<Value> = serde_json::from_str(text).unwrap();
    entries
        .into_iter()
        .map(|entry| Recorded {
            exchange: entry["exchange"].as_str().unwrap().to_owned(),
            routing_key: entry["routing_key"].as_str().unwrap().to_owned(),
            body: from_hex(&entry["body_hex"]),
            decoded: entry["decoded"].clone(),
        })
        .collect()
}

/// Bytes that a file of test vectors gives as hexadecimal digits.
pub(crate) fn from_hex(digits: &Value) -> Bytes {
    let digits = digits.as_str().unwrap().as_bytes();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

/// Reads a body as what its routing key says, and writes it again.
pub(crate) fn read_and_write(
    encoding: Encoding,
    routing_key: &str,
    body: &Bytes,
) -> Result<Bytes, warren_protocol::CodecError> {
    use warren_protocol::topic;
    match routing_key {
        topic::WORKER_NEXT => encoding.encode_job(&encoding.decode_job(body)?),
        topic::WORKER_NEXT_ACK => encoding.encode_ack(&encoding.decode_ack(body)?),
        topic::ERROR => encoding.encode_error(&encoding.decode_error(body)?),
        topic::WORKER_LIST => encoding.encode_worker_list(&encoding.decode_worker_list(body)?),
        _ => encoding.encode_identity(&encoding.decode_identity(body)?),
    }
}
