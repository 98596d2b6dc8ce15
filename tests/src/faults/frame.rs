//! AMQP 0.9.1 on the wire, as far as the proxy has to understand it: where a frame ends, which
//! channel and which method it is, and the name that a client gives its connection.

use bytes::{Buf, Bytes, BytesMut};

/// Which way a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the client to the broker.
    ToServer,
    /// From the broker to the client.
    ToClient,
}

/// A method by its class and its number (AMQP 0.9.1, "Class and Method Ids").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Method(pub u16, pub u16);

impl Method {
    /// Where a client names its connection.
    pub const CONNECTION_START_OK: Self = Self(10, 11);
    /// The end of the handshake.
    pub const CONNECTION_OPEN_OK: Self = Self(10, 41);
    /// The broker asks for less.
    pub const CONNECTION_BLOCKED: Self = Self(10, 60);
    /// A queue is declared.
    pub const QUEUE_DECLARE: Self = Self(50, 10);
    /// A consumer begins.
    pub const BASIC_CONSUME: Self = Self(60, 20);
    /// A message enters the broker.
    pub const BASIC_PUBLISH: Self = Self(60, 40);
    /// A message leaves the broker.
    pub const BASIC_DELIVER: Self = Self(60, 60);
    /// To the server: a job is done. To the client: a message is safe (the confirm).
    pub const BASIC_ACK: Self = Self(60, 80);
}

/// One frame, whole.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    pub(super) channel: u16,
    /// `None` for content, heartbeats and the preamble.
    pub(super) method: Option<Method>,
    /// As it came.
    pub(super) bytes: Bytes,
}

/// Takes the next frame out of what has been read; `None` while it is not whole.
pub(super) fn next(buffer: &mut BytesMut) -> Option<Frame> {
    const PREAMBLE: usize = 8;
    if buffer.starts_with(b"AMQP") {
        let bytes = (buffer.len() >= PREAMBLE).then(|| buffer.split_to(PREAMBLE).freeze())?;
        let (channel, method) = (0, None);
        return Some(Frame {
            channel,
            method,
            bytes,
        });
    }
    const HEAD: usize = 7;
    let mut head = buffer.get(..HEAD)?;
    let (kind, channel, size) = (head.get_u8(), head.get_u16(), head.get_u32());
    let whole = HEAD + usize::try_from(size).ok()? + 1;
    if buffer.len() < whole {
        return None;
    }
    let bytes = buffer.split_to(whole).freeze();
    const METHOD: u8 = 1;
    let mut payload = bytes.get(HEAD..HEAD + 4).unwrap_or_default();
    let method = (kind == METHOD && payload.len() == 4)
        .then(|| Method(payload.get_u16(), payload.get_u16()));
    Some(Frame {
        channel,
        method,
        bytes,
    })
}

/// The last word of the client's `connection_name`: what it uses the connection for.
pub(super) fn role(start_ok: &Bytes) -> Option<String> {
    const NAME: &[u8] = b"connection_name";
    let place = start_ok.windows(NAME.len()).position(|part| part == NAME)?;
    let mut rest = start_ok.get(place + NAME.len()..)?;
    // A long string: `S`, its size, its bytes.
    if rest.len() < 5 || rest.get_u8() != b'S' {
        return None;
    }
    let size = usize::try_from(rest.get_u32()).ok()?;
    let name = std::str::from_utf8(rest.get(..size)?).ok()?;
    name.rsplit(' ').next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_cut_where_they_end() {
        let mut wire = BytesMut::from(&b"AMQP\0\0\x09\x01"[..]);
        wire.extend_from_slice(&[1, 0, 5, 0, 0, 0, 4, 0, 60, 0, 40, 0xCE]);
        wire.extend_from_slice(&[8, 0, 0, 0, 0]);
        assert_eq!(next(&mut wire).unwrap().method, None);
        let publish = next(&mut wire).unwrap();
        assert_eq!(
            (publish.channel, publish.method),
            (5, Some(Method::BASIC_PUBLISH))
        );
        assert!(next(&mut wire).is_none(), "half a heartbeat");
        wire.extend_from_slice(&[0, 0, 0xCE]);
        assert_eq!(next(&mut wire).unwrap().method, None);
        assert!(wire.is_empty());
    }

    #[test]
    fn a_role_is_the_last_word_of_the_connections_name() {
        let frame = Bytes::from_static(b"..\x0fconnection_nameS\0\0\0\x10warren h consume..");
        assert_eq!(role(&frame).as_deref(), Some("consume"));
        assert_eq!(role(&Bytes::from_static(b"connection_name")), None);
    }
}
