//! A bundle: all messages that one run leads to, in one. Handing it over is the one moment that
//! decides, so a crash in between sends all of them or none.
//!
//! The body is a JSON array with one entry for each part, a line feed, and the parts' bodies one
//! after the other, untouched.

use bytes::{Buf, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use warren_protocol::{Address, Encoding, WorkerType};

use crate::{Kind, Message};

/// A bundle cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the bundle cannot be read: {0}")]
pub struct BundleError(String);

/// One part, without its body.
#[derive(Serialize, Deserialize)]
struct Part {
    id: String,
    to: String,
    kind: PartKind,
    encoding: String,
    /// Length of its body in bytes.
    length: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    correlation_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reply_to: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    deadline_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    first_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trace_parent: Option<String>,
    #[serde(default, skip_serializing_if = "is_false")]
    from_peer: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    errors_to: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_false(flag: &bool) -> bool {
    !flag
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum PartKind {
    Job,
    Reply,
    Error,
}

impl Message {
    /// Packs messages into one for any worker of `carrier`, which sends them on. `id`: what the
    /// bundle is known by. The parts begin with their first attempt; a bundle in a bundle is left
    /// out, since nobody makes one.
    #[must_use]
    pub fn bundle(carrier: WorkerType, id: String, parts: &[Self]) -> Self {
        let parts = || {
            parts
                .iter()
                .filter_map(|message| Some((message, kind(message)?)))
        };
        let head: Vec<Part> = parts()
            .map(|(message, kind)| Part {
                id: message.id.clone(),
                to: message.to.to_string(),
                kind,
                encoding: message.encoding.content_type().to_owned(),
                length: message.body.len(),
                correlation_id: message.correlation_id.clone(),
                reply_to: message.reply_to.as_ref().map(ToString::to_string),
                deadline_ms: message.deadline_ms,
                first_ms: message.first_ms,
                trace_parent: message.trace_parent.clone(),
                from_peer: message.from_peer,
                errors_to: message.errors_to.as_ref().map(ToString::to_string),
            })
            .collect();
        // Texts and numbers: there is nothing that JSON cannot say.
        let head = serde_json::to_vec(&head).unwrap_or_default();
        let length = parts()
            .map(|(message, _)| message.body.len())
            .sum::<usize>();
        let mut body = BytesMut::with_capacity(head.len() + 1 + length);
        body.extend_from_slice(&head);
        body.extend_from_slice(b"\n");
        for (message, _) in parts() {
            body.extend_from_slice(&message.body);
        }
        Self {
            kind: Kind::Bundle,
            ..Self::new(id, Address::Any(carrier), Encoding::Json, body.freeze())
        }
    }

    /// The messages of a bundle, in their order.
    ///
    /// # Errors
    /// [`BundleError`] when the body is not that of a bundle, or is cut off.
    pub fn unbundle(&self) -> Result<Vec<Self>, BundleError> {
        let error = |reason: &dyn ToString| BundleError(reason.to_string());
        let end = self.body.iter().position(|byte| *byte == b'\n');
        let end = end.ok_or_else(|| error(&"its head has no end"))?;
        let head: Vec<Part> =
            serde_json::from_slice(&self.body.slice(..end)).map_err(|e| error(&e))?;
        let mut rest = self.body.slice(end + 1..);
        let mut messages = Vec::with_capacity(head.len());
        for part in head {
            if part.length > rest.len() {
                return Err(error(&format!("the body of {} is cut off", part.id)));
            }
            let body: Bytes = rest.slice(..part.length);
            rest.advance(part.length);
            messages.push(part.message(body).map_err(|reason| error(&reason))?);
        }
        Ok(messages)
    }
}

impl Part {
    fn message(self, body: Bytes) -> Result<Message, String> {
        let to = self.to.parse();
        let to = to.map_err(|_| format!("`{}` is not an address", self.to))?;
        let encoding = Encoding::from_content_type(&self.encoding);
        let encoding = encoding.ok_or_else(|| format!("{} is not known", self.encoding))?;
        let worker = |id: String| {
            id.parse()
                .map_err(|_| format!("`{id}` is not a worker's id"))
        };
        let reply_to = self.reply_to.map(worker);
        let errors_to = self.errors_to.map(worker);
        Ok(Message {
            id: self.id,
            to,
            kind: match self.kind {
                PartKind::Job => Kind::Job,
                PartKind::Reply => Kind::Reply,
                PartKind::Error => Kind::Error,
            },
            encoding,
            body,
            correlation_id: self.correlation_id,
            reply_to: reply_to.transpose()?,
            attempt: 1,
            deadline_ms: self.deadline_ms,
            first_ms: self.first_ms,
            trace_parent: self.trace_parent,
            from_peer: self.from_peer,
            errors_to: errors_to.transpose()?,
        })
    }
}

fn kind(message: &Message) -> Option<PartKind> {
    match message.kind {
        Kind::Job => Some(PartKind::Job),
        Kind::Reply => Some(PartKind::Reply),
        Kind::Error => Some(PartKind::Error),
        Kind::Bundle => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(id: &str, body: &'static [u8]) -> Message {
        Message::new(
            id.to_owned(),
            "WB:*".parse().unwrap(),
            Encoding::MessagePack,
            Bytes::from_static(body),
        )
    }

    fn bundle(parts: &[Message]) -> Message {
        Message::bundle(WorkerType::new("WA").unwrap(), "b1".to_owned(), parts)
    }

    #[test]
    fn what_is_packed_is_unpacked_in_its_order() {
        let parts = [
            part("a", b"line\nfeed"),
            part("b", b""),
            Message {
                kind: Kind::Reply,
                to: "WA:9123456789012".parse().unwrap(),
                correlation_id: Some("c".to_owned()),
                reply_to: Some("WA:9123456789012".parse().unwrap()),
                deadline_ms: Some(5),
                first_ms: Some(3),
                trace_parent: Some("00-aa-bb-01".to_owned()),
                from_peer: true,
                errors_to: Some("WA:9123456789013".parse().unwrap()),
                ..part("c", &[0, 255, 10])
            },
        ];
        let bundle = bundle(&parts);
        assert_eq!(bundle.to.to_string(), "WA:*");
        assert_eq!(bundle.unbundle().unwrap(), parts);
    }

    #[test]
    fn a_body_that_is_cut_off_is_refused() {
        let mut cut = bundle(&[part("a", b"12345")]);
        cut.body.truncate(cut.body.len() - 1);
        let refused = cut.unbundle().unwrap_err().to_string();
        assert!(refused.contains("cut off"), "{refused}");
        cut.body.truncate(3);
        assert!(cut.unbundle().is_err());
    }
}
