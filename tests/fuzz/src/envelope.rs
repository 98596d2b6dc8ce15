//! A message: the bodies that hosts and workers of MicroServices.js send, and bundles.
//!
//! Promised by `warren_protocol` and `warren_bus`: no panic; memory in proportion to the message;
//! what is read and written again is read as the same.

use std::fmt::Debug;

use bytes::Bytes;
use warren_bus::{Kind, Message};
use warren_protocol::{Address, CodecError, Encoding, GET_ALL, Payload, WorkerType};

use crate::{feedback, memory};

/// How many bytes of memory a byte of a message may take while it is read.
const BYTES_PER_BYTE: usize = 256;
/// Beside what is in proportion.
const BYTES_ANYWAY: usize = 64 << 10;

/// Reads the bytes as every kind of message, in every encoding.
pub fn check(bytes: &[u8]) {
    let body = Bytes::copy_from_slice(bytes);
    let most = BYTES_ANYWAY + BYTES_PER_BYTE * bytes.len();
    memory::bounded("reading a message", most, || {
        for encoding in Encoding::ALL {
            let said = format!("{encoding}");
            kind(
                &said,
                &body,
                |b| encoding.decode_job(b),
                |j| encoding.encode_job(j),
            );
            kind(
                &said,
                &body,
                |b| encoding.decode_ack(b),
                |a| encoding.encode_ack(a),
            );
            kind(
                &said,
                &body,
                |b| encoding.decode_error(b),
                |e| encoding.encode_error(e),
            );
            kind(
                &said,
                &body,
                |b| encoding.decode_identity(b),
                |i| encoding.encode_identity(i),
            );
            // There is no list in BSON that could be written.
            if encoding != Encoding::Bson {
                kind(
                    &said,
                    &body,
                    |b| encoding.decode_worker_list(b),
                    |l| encoding.encode_worker_list(l),
                );
            }
            mixed(encoding, &body);
            payload(encoding, &body);
        }
        bundle(&body);
    });
}

fn kind<T: PartialEq + Debug>(
    said: &str,
    body: &Bytes,
    read: impl Fn(&Bytes) -> Result<T, CodecError>,
    write: impl Fn(&T) -> Result<Bytes, CodecError>,
) {
    match read(body) {
        Ok(message) => {
            feedback::outcome(&format!("{said} {}", std::any::type_name::<T>()));
            let written = write(&message).unwrap();
            assert_eq!(read(&written).unwrap(), message);
        }
        Err(error) => feedback::outcome(&error.to_string()),
    }
}

/// In a fleet of mixed encodings the configured one counts, where the body is in it.
fn mixed(encoding: Encoding, body: &Bytes) {
    if let Ok((read, job)) = encoding.read_job(body) {
        assert_eq!(read.decode_job(body).unwrap(), job);
        assert_eq!(read == encoding, encoding.decode_job(body).is_ok());
        // What a host does with it before anything else.
        let _ = (job.stop(), job.next_stop(), job.waits());
        assert_ne!(body.as_ref(), GET_ALL.as_bytes());
    }
    let _ = encoding.read_ack(body);
    let _ = encoding.read_error(body);
    let _ = encoding.read_identity(body);
    let _ = encoding.read_worker_list(body);
}

/// Data on its own, as guests hand it in: carried into the other encodings and back.
fn payload(encoding: Encoding, body: &Bytes) {
    let Ok(payload) = Payload::new(encoding, body.clone()) else {
        return;
    };
    let _ = (payload.text_field("resId"), payload.field("content"));
    let _ = payload.hazard_for_node();
    if let Ok(named) = payload.with_text_field("resId", "r1") {
        assert!(named.field("resId").is_some() || payload.is_object());
    }
    for other in Encoding::ALL {
        let Ok(there) = payload.to(other) else {
            continue;
        };
        // Written by us, so it is sound, and what it says does not change any more.
        let Ok(alone) = there.to_bytes() else {
            continue;
        };
        assert_eq!(Payload::new(other, alone).unwrap(), there);
        let back = there.to(encoding).unwrap();
        assert_eq!(
            back.to(other).unwrap().to_bytes(),
            there.to_bytes(),
            "{encoding} {:?} by way of {other}",
            payload.to_bytes()
        );
    }
}

fn bundle(body: &Bytes) {
    let carrier = WorkerType::new("WA").unwrap();
    let id = "b1".to_owned();
    let to = Address::Any(carrier.clone());
    let message = Message {
        kind: Kind::Bundle,
        ..Message::new(id.clone(), to, Encoding::Json, body.clone())
    };
    match message.unbundle() {
        Ok(parts) => {
            feedback::outcome("a bundle");
            let again = Message::bundle(carrier, id, &parts);
            assert_eq!(again.unbundle().unwrap(), parts);
        }
        Err(error) => feedback::outcome(&error.to_string()),
    }
}
