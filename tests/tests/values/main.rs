//! Every kind of value that the codecs of MicroServices.js can write, held against these codecs
//! themselves: js-bson, msgpack5 and JSON, in a Node process (`tests/peer/values`).
//!
//! A value is looked at alone and as the `data` of a job. It is read; it keeps its bytes; in each
//! other encoding it has the bytes that the library there would have written, or at least the
//! library sees the value in them; and it comes back.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod claims;
mod codecs;
mod entry;

use std::env;

use bytes::Bytes;
use claims::Claims;
use codecs::{Codecs, encoding, hex};
use entry::Entry;
use serde_json::{Value, json};
use warren_protocol::{CodecError, Encoding, Payload, topic};

#[test]
fn every_value_of_each_library_is_read_kept_and_said_again_in_the_other_encodings() {
    let mut codecs = Codecs::start();
    let entries = codecs.entries(&json!({"catalogue": true}));
    for encoding in Encoding::ALL {
        let count = entries.iter().filter(|e| e.encoding == encoding).count();
        assert!(count >= 100, "{encoding}: only {count} values");
    }
    check(&mut codecs, &entries);
}

#[test]
fn any_value_of_each_library_is_read_kept_and_said_again_in_the_other_encodings() {
    const SEEDS: u32 = 4;
    const COUNT: u32 = 25;
    let first = env::var("WARREN_TEST_SEED").map_or(20_261_121, |seed| seed.parse().unwrap());
    let mut codecs = Codecs::start();
    for seed in first..first + SEEDS {
        println!("WARREN_TEST_SEED={seed}");
        for encoding in ["json", "bson", "msgpack"] {
            let request = json!({"random": encoding, "seed": seed, "count": COUNT});
            let entries = codecs.entries(&request);
            assert_eq!(entries.len(), COUNT as usize);
            check(&mut codecs, &entries);
        }
    }
}

fn check(codecs: &mut Codecs, entries: &[Entry]) {
    let mut claims = Claims::default();
    for entry in entries {
        entry.check(&mut claims);
    }
    claims.settle(codecs);
}

/// One message of each kind, written by each library.
#[test]
fn a_message_is_found_in_its_own_encoding_whichever_is_configured_and_is_an_error_in_the_others() {
    let bodies = Codecs::start().ask(&json!({"bodies": true}));
    assert_eq!(bodies.as_array().unwrap().len(), 15);
    for body in bodies.as_array().unwrap() {
        let written = encoding(&body["encoding"]);
        let topic = body["topic"].as_str().unwrap();
        let body = hex(&body["hex"]);
        for configured in Encoding::ALL {
            let (found, again) = read(configured, topic, &body).unwrap();
            assert_eq!(found, written, "{topic} where {configured} is configured");
            match again {
                Ok(again) => assert_eq!(again, body, "{written} {topic}"),
                Err(_) => assert_eq!((written, topic), (Encoding::Bson, topic::WORKER_LIST)),
            }
            assert_eq!(decodes(configured, topic, &body), configured == written);
        }
    }
}

type Again = Result<Bytes, CodecError>;

/// Reads a body as what its topic says, and writes it again in the encoding that it was in.
fn read(at: Encoding, topic: &str, body: &Bytes) -> Result<(Encoding, Again), CodecError> {
    Ok(match topic {
        topic::WORKER_NEXT => {
            let (found, job) = at.read_job(body)?;
            (found, found.encode_job(&job))
        }
        topic::WORKER_NEXT_ACK => {
            let (found, ack) = at.read_ack(body)?;
            (found, found.encode_ack(&ack))
        }
        topic::ERROR => {
            let (found, error) = at.read_error(body)?;
            (found, found.encode_error(&error))
        }
        topic::WORKER_NEW_SEND => {
            let (found, identity) = at.read_identity(body)?;
            (found, found.encode_identity(&identity))
        }
        _ => {
            let (found, list) = at.read_worker_list(body)?;
            (found, found.encode_worker_list(&list))
        }
    })
}

fn decodes(encoding: Encoding, topic: &str, body: &Bytes) -> bool {
    match topic {
        topic::WORKER_NEXT => encoding.decode_job(body).is_ok(),
        topic::WORKER_NEXT_ACK => encoding.decode_ack(body).is_ok(),
        topic::ERROR => encoding.decode_error(body).is_ok(),
        topic::WORKER_NEW_SEND => encoding.decode_identity(body).is_ok(),
        _ => encoding.decode_worker_list(body).is_ok(),
    }
}

/// What a gateway adds to the data of a job, a Node worker has to find there.
#[test]
fn a_field_that_was_added_is_seen_behind_all_others() {
    let mut claims = Claims::default();
    for (text, seen) in [
        ("{}", r#"{"resId": text "é\u0000\""}"#),
        (
            r#"{"z":[1,{"}":"{"}],"a":null}"#,
            r#"{"z": [number 1, {"}": text "{"}], "a": null, "resId": text "é\u0000\""}"#,
        ),
    ] {
        let payload = Payload::new(Encoding::Json, text.into()).unwrap();
        for encoding in Encoding::ALL {
            let added = payload.to(encoding).unwrap();
            let added = added.with_text_field("resId", "é\0\"").unwrap();
            claims.sees(text, encoding, added.to_bytes().unwrap(), seen);

            let wrapped = added.wrapped("é").unwrap();
            let seen = format!(r#"{{"é": {seen}}}"#);
            claims.sees(text, encoding, wrapped.to_bytes().unwrap(), &seen);
        }
    }
    claims.settle(&mut Codecs::start());
}

#[test]
fn what_is_malformed_for_a_library_is_an_error_for_us() {
    let bodies = Codecs::start().ask(&json!({"bodies": true}));
    let mut codecs = Codecs::start();
    for body in bodies.as_array().unwrap() {
        let written = encoding(&body["encoding"]);
        let body = hex(&body["hex"]);
        let cut: Vec<_> = (0..body.len())
            .map(|end| (written, body.slice(..end)))
            .collect();
        for ((_, bytes), seen) in cut.iter().zip(codecs.see(&cut)) {
            assert!(seen.is_err(), "a library read {} bytes", bytes.len());
            assert!(Payload::new(written, bytes.clone()).is_err());
        }
    }
}

/// All other tests compare texts that come from the process, so it must not say the same of everything.
#[test]
fn the_libraries_are_real_and_tell_values_apart() {
    let mut codecs = Codecs::start();
    let double = b"\x10\0\0\0\x01v\0\0\0\0\0\0\0\0\x80\0".as_slice();
    let seen = codecs.see(&[
        (Encoding::Bson, Bytes::from_static(double)),
        (
            Encoding::Bson,
            b"\x0c\0\0\0\x10v\0\x05\0\0\0\0".as_slice().into(),
        ),
        (Encoding::MessagePack, b"\xc4\x01\x05".as_slice().into()),
        (Encoding::MessagePack, b"\xa1\x05".as_slice().into()),
        (Encoding::Json, "[5]".into()),
    ]);
    let seen: Vec<Value> = seen.into_iter().map(|seen| seen.unwrap().into()).collect();
    assert_eq!(
        seen,
        [
            r#"{"v": number -0}"#,
            r#"{"v": number 5}"#,
            "bytes 05",
            r#"text "\u0005""#,
            "[number 5]",
        ]
    );
}
