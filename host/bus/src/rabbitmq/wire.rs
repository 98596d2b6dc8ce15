//! What a message is in AMQP: properties, headers, and how both are read from anybody.
//!
//! Written exactly, read liberally: a job that a foreign client published without any property is
//! a job in its first attempt. Headers are built anew on every publish, so what a broker adds
//! (`x-death` and the like) is never carried on: a kept one makes a message stick.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable, LongString, ShortString},
};
use warren_protocol::{Address, Encoding};

use crate::{Epitaph, Kind, Message, PublishError};

pub(super) const APP_ID: &str = "warren";
const ATTEMPT: &str = "x-warren-attempt";
const DEADLINE: &str = "x-warren-deadline";
pub(super) const REASON: &str = "x-warren-reason";
pub(super) const ERROR: &str = "x-warren-error";
pub(super) const PLUGIN: &str = "x-warren-plugin";
pub(super) const STACK: &str = "x-warren-stack";
pub(super) const HOST: &str = "x-warren-host";
const FIRST: &str = "x-warren-first";
const NOT_BEFORE: &str = "x-warren-not-before";
pub(super) const DIED: &str = "x-warren-died";
const TRACE_PARENT: &str = "traceparent";
const FROM_PEER: &str = "x-warren-from-peer";
const ERRORS_TO: &str = "x-warren-errors-to";

/// Survives a restart of the broker.
pub(super) const PERSISTENT: u8 = 2;
const TRANSIENT: u8 = 1;

/// The longest text of a dead letter's header, in bytes. All properties of a message share one
/// frame of (by default) 128 KiB, and a larger one ends the connection.
const MAX_HEADER_BYTES: usize = 4 * 1024;

/// The properties with which a message is published.
///
/// # Errors
/// [`PublishError::TooLarge`] when an id is longer than AMQP's short strings.
pub(super) fn properties(message: &Message) -> Result<BasicProperties, PublishError> {
    let delivery_mode = if message.kind.is_durable() {
        PERSISTENT
    } else {
        TRANSIENT
    };
    let mut properties = BasicProperties::default()
        .with_delivery_mode(delivery_mode)
        .with_message_id(short(&message.id)?)
        .with_content_type(message.encoding.content_type().into())
        .with_type(kind_name(message.kind).into())
        .with_timestamp(now_ms() / 1000)
        .with_app_id(APP_ID.into())
        .with_headers(headers(message));
    if let Some(id) = &message.correlation_id {
        properties = properties.with_correlation_id(short(id)?);
    }
    if let Some(worker) = &message.reply_to {
        properties = properties.with_reply_to(short(worker.as_str())?);
    }
    Ok(properties)
}

/// The properties of a dead letter: the message's own, and why it was given up.
///
/// # Errors
/// As [`properties`].
pub(super) fn dead_letter(
    message: &Message,
    epitaph: &Epitaph,
) -> Result<BasicProperties, PublishError> {
    let mut headers = headers(message);
    headers.insert(REASON.into(), text(epitaph.reason));
    headers.insert(ERROR.into(), text(&epitaph.error));
    headers.insert(HOST.into(), text(&epitaph.host));
    headers.insert(DIED.into(), moment(now_ms()));
    if let Some(plugin) = &epitaph.plugin {
        headers.insert(PLUGIN.into(), text(plugin));
    }
    if let Some(stack) = &epitaph.stack {
        headers.insert(STACK.into(), text(stack));
    }
    let properties = properties(message)?;
    Ok(properties
        .with_headers(headers)
        .with_delivery_mode(PERSISTENT))
}

/// The properties of a message that waits for its time: its own, and when that is.
///
/// # Errors
/// As [`properties`].
pub(super) fn parked(message: &Message, until_ms: u64) -> Result<BasicProperties, PublishError> {
    let mut headers = headers(message);
    headers.insert(NOT_BEFORE.into(), moment(until_ms));
    let properties = properties(message)?;
    Ok(properties
        .with_headers(headers)
        .with_delivery_mode(PERSISTENT))
}

/// The same properties for a message that the broker also puts where `key` leads, in one step with its
/// own way; nobody who gets it sees that.
pub(super) fn with_copy_to(properties: BasicProperties, key: &str) -> BasicProperties {
    let mut headers = properties.headers().clone().unwrap_or_default();
    let keys = vec![AMQPValue::LongString(LongString::from(key))];
    headers.insert("BCC".into(), AMQPValue::FieldArray(keys.into()));
    properties.with_headers(headers)
}

/// The headers without what a broker has added when the message was dead-lettered.
pub(super) fn without_deaths(headers: &FieldTable) -> FieldTable {
    let mut kept = FieldTable::default();
    for (name, value) in headers.inner() {
        let name_text = name.as_str();
        let is_death = ["x-death", "x-first-death", "x-last-death"]
            .iter()
            .any(|prefix| name_text.starts_with(prefix));
        if !is_death && !matches!(name_text, "x-delivery-count" | "CC" | "BCC") {
            kept.insert(name.clone(), value.clone());
        }
    }
    kept
}

/// When a parked message is due, in milliseconds since 1970. `None`: at once.
pub(super) fn due_at(properties: &BasicProperties) -> Option<u64> {
    integer(properties.headers().as_ref()?.inner().get(NOT_BEFORE)?)
}

/// Milliseconds since 1970 (UTC).
pub(super) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}

/// Reads a message that came for `to`. `encoding` is that of a message that does not name its own.
pub(super) fn read(
    to: Address,
    encoding: Encoding,
    properties: &BasicProperties,
    body: Vec<u8>,
) -> Message {
    let owned = |text: &Option<ShortString>| text.as_ref().map(|text| text.as_str().to_owned());
    let headers = properties.headers().as_ref();
    let number = |name: &str| headers.and_then(|table| integer(table.inner().get(name)?));
    let attempt = number(ATTEMPT).and_then(|n| u32::try_from(n).ok());
    Message {
        id: owned(properties.message_id()).unwrap_or_else(draw_id),
        to,
        kind: match properties.kind().as_ref().map(ShortString::as_str) {
            Some("reply") => Kind::Reply,
            Some("error") => Kind::Error,
            Some("bundle") => Kind::Bundle,
            _ => Kind::Job,
        },
        encoding: properties
            .content_type()
            .as_ref()
            .and_then(|name| Encoding::from_content_type(name.as_str()))
            .unwrap_or(encoding),
        body: Bytes::from(body),
        correlation_id: owned(properties.correlation_id()),
        reply_to: properties
            .reply_to()
            .as_ref()
            .and_then(|id| id.as_str().parse().ok()),
        attempt: attempt.unwrap_or(1).max(1),
        deadline_ms: number(DEADLINE),
        first_ms: number(FIRST).or_else(|| {
            let seconds = (*properties.timestamp())?;
            seconds.checked_mul(1000)
        }),
        trace_parent: headers.and_then(|table| string(table.inner().get(TRACE_PARENT)?)),
        from_peer: headers
            .is_some_and(|table| table.inner().get(FROM_PEER) == Some(&AMQPValue::Boolean(true))),
        errors_to: headers
            .and_then(|table| string(table.inner().get(ERRORS_TO)?))
            .and_then(|id| id.parse().ok()),
    }
}

fn headers(message: &Message) -> FieldTable {
    let mut headers = FieldTable::default();
    headers.insert(
        ATTEMPT.into(),
        AMQPValue::LongLongInt(message.attempt.into()),
    );
    let first = message.first_ms.unwrap_or_else(now_ms);
    headers.insert(FIRST.into(), moment(first));
    if let Some(deadline) = message.deadline_ms {
        headers.insert(DEADLINE.into(), moment(deadline));
    }
    if let Some(parent) = &message.trace_parent {
        headers.insert(TRACE_PARENT.into(), text(parent));
    }
    if message.from_peer {
        headers.insert(FROM_PEER.into(), AMQPValue::Boolean(true));
    }
    if let Some(sender) = &message.errors_to {
        headers.insert(ERRORS_TO.into(), text(sender.as_str()));
    }
    headers
}

/// Milliseconds since 1970. AMQP's own time has whole seconds.
fn moment(ms: u64) -> AMQPValue {
    AMQPValue::LongLongInt(i64::try_from(ms).unwrap_or(i64::MAX))
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Job => "job",
        Kind::Reply => "reply",
        Kind::Error => "error",
        Kind::Bundle => "bundle",
    }
}

/// Any of AMQP's integers: clients choose differently.
pub(super) fn integer(value: &AMQPValue) -> Option<u64> {
    match *value {
        AMQPValue::ShortShortInt(n) => u64::try_from(n).ok(),
        AMQPValue::ShortShortUInt(n) => Some(n.into()),
        AMQPValue::ShortInt(n) => u64::try_from(n).ok(),
        AMQPValue::ShortUInt(n) => Some(n.into()),
        AMQPValue::LongInt(n) => u64::try_from(n).ok(),
        AMQPValue::LongUInt(n) => Some(n.into()),
        AMQPValue::LongLongInt(n) => u64::try_from(n).ok(),
        AMQPValue::Timestamp(n) => Some(n),
        _ => None,
    }
}

pub(super) fn string(value: &AMQPValue) -> Option<String> {
    match value {
        AMQPValue::LongString(text) => String::from_utf8(text.as_bytes().to_vec()).ok(),
        AMQPValue::ShortString(text) => Some(text.as_str().to_owned()),
        _ => None,
    }
}

/// lapin panics when it is given a longer one.
fn short(text: &str) -> Result<ShortString, PublishError> {
    ShortString::try_new(text).map_err(|_| PublishError::TooLarge {
        size: text.len(),
        limit: usize::from(u8::MAX),
    })
}

/// A header's text, cut at a character.
pub(super) fn text(text: &str) -> AMQPValue {
    let end = text.floor_char_boundary(MAX_HEADER_BYTES);
    AMQPValue::LongString(LongString::from(text.get(..end).unwrap_or_default()))
}

/// The id of a message that came without one. It gets another one when it is delivered again:
/// who wants duplicates recognised sends an id.
fn draw_id() -> String {
    format!("{:032x}", rand::random::<u128>())
}

#[cfg(test)]
mod tests {
    use lapin::protocol::basic::parse_properties;
    use rand::{RngExt, SeedableRng, rngs::StdRng};
    use warren_protocol::WorkerType;

    use super::*;

    fn message() -> Message {
        Message {
            id: "m1".to_owned(),
            to: "WB:*".parse().unwrap(),
            kind: Kind::Job,
            encoding: Encoding::Bson,
            body: Bytes::from_static(b"body"),
            correlation_id: Some("c1".to_owned()),
            reply_to: Some("WA:9123456789012".parse().unwrap()),
            attempt: 3,
            deadline_ms: Some(1_795_220_940_610),
            first_ms: Some(1_795_220_900_000),
            trace_parent: Some("00-aa-bb-01".to_owned()),
            from_peer: true,
            errors_to: Some("WA:9123456789013".parse().unwrap()),
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for kind in [Kind::Job, Kind::Reply, Kind::Error, Kind::Bundle] {
            let sent = Message { kind, ..message() };
            let properties = properties(&sent).unwrap();
            let read = read(
                sent.to.clone(),
                Encoding::Json,
                &properties,
                b"body".to_vec(),
            );
            assert_eq!(read, sent);
        }
    }

    /// Properties as anybody might put them on the wire: any of them, with any text, and headers of
    /// ours and others' of any type.
    fn anybodys_properties(rng: &mut StdRng) -> Vec<u8> {
        const TEXTS: [&str; 8] = [
            "",
            "reply",
            "bundle",
            "application/msgpack",
            "WA:9123456789012",
            "WA:*",
            "-1",
            "\u{e9}",
        ];
        const NAMES: [&str; 6] = [ATTEMPT, DEADLINE, FIRST, TRACE_PARENT, FROM_PEER, "x-death"];
        let short = |rng: &mut StdRng| {
            let text = TEXTS[rng.random_range(0..TEXTS.len())].as_bytes();
            [&[u8::try_from(text.len()).unwrap()], text].concat()
        };
        let mut table = Vec::new();
        for _ in 0..rng.random_range(0..6) {
            let name = NAMES[rng.random_range(0..NAMES.len())];
            table.push(u8::try_from(name.len()).unwrap());
            table.extend(name.as_bytes());
            let (kind, length) = [
                (b't', 1),
                (b'b', 1),
                (b'B', 1),
                (b's', 2),
                (b'u', 2),
                (b'I', 4),
                (b'i', 4),
                (b'l', 8),
                (b'f', 4),
                (b'd', 8),
                (b'D', 5),
                (b'T', 8),
                (b'V', 0),
                (b'S', 0),
            ][rng.random_range(0..14)];
            table.push(kind);
            table.extend((0..length).map(|_| rng.random::<u8>()));
            if kind == b'S' {
                // Any bytes: AMQP's long strings need not be text.
                let text: Vec<u8> = (0..rng.random_range(0..9)).map(|_| rng.random()).collect();
                table.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
                table.extend(text);
            }
        }
        let flags = rng.random::<u16>() & 0xfffc;
        let mut bytes = flags.to_be_bytes().to_vec();
        for bit in (2..16).rev().filter(|bit| flags & (1 << bit) != 0) {
            match bit {
                13 => {
                    bytes.extend(u32::try_from(table.len()).unwrap().to_be_bytes());
                    bytes.extend(&table);
                }
                11 | 12 => bytes.push(rng.random()),
                6 => bytes.extend(rng.random::<u64>().to_be_bytes()),
                _ => bytes.extend(short(rng)),
            }
        }
        bytes
    }

    #[test]
    fn whatever_anybody_sends_is_read_and_can_be_sent_on() {
        let mut rng = StdRng::seed_from_u64(10_381);
        let mut n_read = 0;
        for round in 0..20_000 {
            let mut bytes = anybodys_properties(&mut rng);
            // Half of them damaged.
            if round % 2 == 0 {
                let at = rng.random_range(0..bytes.len());
                bytes[at] = rng.random();
            }
            let Ok((_, properties_read)) = parse_properties(bytes.as_slice()) else {
                continue;
            };
            n_read += 1;
            let to: Address = "WB:*".parse().unwrap();
            let again = |properties: &BasicProperties| {
                read(to.clone(), Encoding::Json, properties, b"{}".to_vec())
            };
            let message = again(&properties_read);
            assert!(message.attempt >= 1);
            let _ = (
                due_at(&properties_read),
                parked(&message, u64::MAX).unwrap(),
            );
            let sent = again(&properties(&message).unwrap());
            // A moment beyond what AMQP can say is the last one.
            let moment = |ms: u64| ms.min(i64::MAX.unsigned_abs());
            assert_eq!(sent.deadline_ms, message.deadline_ms.map(moment));
            assert!(
                message
                    .first_ms
                    .is_none_or(|ms| sent.first_ms == Some(moment(ms)))
            );
            let kept = |message: &Message| Message {
                deadline_ms: None,
                first_ms: None,
                ..message.clone()
            };
            assert_eq!(kept(&sent), kept(&message));
        }
        assert!(n_read > 10_000, "only {n_read} were read at all");
    }

    #[test]
    fn only_jobs_are_written_to_disk() {
        let mode = |kind| {
            *properties(&Message { kind, ..message() })
                .unwrap()
                .delivery_mode()
        };
        assert_eq!(mode(Kind::Job), Some(2));
        assert_eq!(mode(Kind::Bundle), Some(2));
        assert_eq!(mode(Kind::Reply), Some(1));
        assert_eq!(mode(Kind::Error), Some(1));
    }

    #[test]
    fn a_bare_message_of_a_foreign_client_is_a_first_attempt() {
        let to = Address::Any(WorkerType::new("WB").unwrap());
        let read = read(
            to,
            Encoding::MessagePack,
            &BasicProperties::default(),
            vec![1],
        );
        assert_eq!((read.attempt, read.kind), (1, Kind::Job));
        assert_eq!(read.encoding, Encoding::MessagePack);
        assert_eq!((read.reply_to, read.deadline_ms), (None, None));
        assert!(!read.id.is_empty());
    }

    #[test]
    fn an_id_that_amqp_cannot_carry_is_refused() {
        let long = Message {
            id: "x".repeat(256),
            ..message()
        };
        let refused = properties(&long);
        assert_eq!(
            refused,
            Err(PublishError::TooLarge {
                size: 256,
                limit: 255
            })
        );
    }

    #[test]
    fn a_huge_error_text_does_not_outgrow_the_frame() {
        let epitaph = Epitaph {
            reason: "trap",
            error: "é".repeat(1_000_000),
            plugin: None,
            stack: Some("é".repeat(1_000_000)),
            host: "host".to_owned(),
        };
        let properties = dead_letter(&message(), &epitaph).unwrap();
        let headers = properties.headers().clone().unwrap();
        for name in [ERROR, STACK] {
            let Some(AMQPValue::LongString(text)) = headers.inner().get(name) else {
                panic!("no header {name}");
            };
            assert_eq!(text.as_bytes().len(), MAX_HEADER_BYTES);
        }
    }
}
