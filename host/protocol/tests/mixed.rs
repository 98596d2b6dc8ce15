//! In a fleet of mixed encodings a message is found in the one it is in, and in no other.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod support;

use bytes::Bytes;
use support::{Recorded, conversation};
use warren_protocol::{CodecError, Encoding, topic};

/// The encoding that a body is found in, when another may be configured.
fn found(at: Encoding, routing_key: &str, body: &Bytes) -> Result<Encoding, CodecError> {
    match routing_key {
        topic::WORKER_NEXT => at.read_job(body).map(|(found, _)| found),
        topic::WORKER_NEXT_ACK => at.read_ack(body).map(|(found, _)| found),
        topic::ERROR => at.read_error(body).map(|(found, _)| found),
        topic::WORKER_LIST => at.read_worker_list(body).map(|(found, _)| found),
        _ => at.read_identity(body).map(|(found, _)| found),
    }
}

#[test]
fn every_recorded_message_is_found_in_its_encoding_whichever_is_configured() {
    for encoding in Encoding::ALL {
        for recorded in conversation(encoding) {
            let Recorded {
                routing_key, body, ..
            } = &recorded;
            for configured in Encoding::ALL {
                let found = found(configured, routing_key, body);
                match recorded.decoded.is_null() {
                    false => assert_eq!(found, Ok(encoding), "{routing_key} at {configured}"),
                    // A plain text, as `worker.getAll` has it.
                    true => assert!(found.is_err()),
                }
            }
        }
    }
}

#[test]
fn what_is_no_message_in_any_encoding_is_an_error_of_the_configured_one() {
    let topics = [
        topic::WORKER_NEXT,
        topic::WORKER_NEXT_ACK,
        topic::ERROR,
        topic::WORKER_LIST,
        topic::WORKER_DEL,
    ];
    for body in [
        b"".as_slice(),
        b"not json",
        b"\x80",
        b"{}",
        b"\x05\0\0\0\0",
        b"\xc1",
        b"5",
    ] {
        let body = Bytes::from_static(body);
        for configured in Encoding::ALL {
            for routing_key in topics {
                // No fields are no entries: an empty document is an empty list.
                if (routing_key, &body[..]) == (topic::WORKER_LIST, b"\x05\0\0\0\0") {
                    assert_eq!(found(configured, routing_key, &body), Ok(Encoding::Bson));
                    continue;
                }
                let fault = found(configured, routing_key, &body).unwrap_err();
                let (CodecError::Malformed { encoding, .. }
                | CodecError::Unexpected { encoding, .. }) = fault
                else {
                    panic!("{fault}");
                };
                assert_eq!(encoding, configured);
            }
        }
    }
}

#[test]
fn an_empty_list_is_found_in_its_encoding() {
    for encoding in [Encoding::Json, Encoding::MessagePack] {
        let body = encoding.encode_worker_list(&[]).unwrap();
        for configured in Encoding::ALL {
            assert_eq!(
                configured.read_worker_list(&body),
                Ok((encoding, Vec::new()))
            );
        }
    }
}

/// No sender writes such bytes by chance: the length of the document is the head of a map and of a
/// key, and the rest of that key is the head of its first field.
#[test]
fn a_body_that_was_made_to_be_read_in_two_encodings_is_read_in_the_configured_one() {
    const LENGTH: u16 = 0xaa84;
    let document = |bytes: &[u8]| {
        let length = u32::try_from(bytes.len()).unwrap().to_le_bytes();
        [length.as_slice(), b"\0", bytes].concat()
    };
    let tail = b"\x02id\0\x05\0\0\0WA:1\0\x02type\0\x03\0\0\0WA\0\0";
    let fields = b"\xc0\xa2id\xa4WB:1\xa4type\xa2WB\xa1z\xc5".as_slice();

    let rest = LENGTH - 12 - u16::try_from(fields.len() + 2).unwrap();
    let filling = vec![0; usize::from(rest) - 8 - tail.len()];
    let fields = [fields, &rest.to_be_bytes()].concat();
    let body = [
        &u32::from(LENGTH).to_le_bytes(),
        b"\x05x\0".as_slice(),
        &document(&fields),
        b"\x05y\0",
        &document(&filling),
        tail,
    ];
    let body = Bytes::from(body.concat());
    assert_eq!(body.len(), usize::from(LENGTH));

    for (configured, expected) in [
        (Encoding::Bson, (Encoding::Bson, "WA")),
        (Encoding::MessagePack, (Encoding::MessagePack, "WB")),
        (Encoding::Json, (Encoding::Bson, "WA")),
    ] {
        let (found, identity) = configured.read_identity(&body).unwrap();
        assert_eq!((found, identity.worker_type.as_str()), expected);
    }
}
