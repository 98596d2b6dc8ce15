//! Bytes from guests and from the bus may be anything. They are answered with an error that does
//! not repeat them, and never with a panic.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use bytes::Bytes;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use support::{Recorded, conversation, read_and_write};
use warren_protocol::{CodecError, Encoding, GET_ALL, Payload, topic};

#[track_caller]
fn refused(encoding: Encoding, bytes: impl Into<Bytes>) -> String {
    Payload::new(encoding, bytes.into())
        .unwrap_err()
        .to_string()
}

#[test]
fn a_message_cut_off_anywhere_is_an_error() {
    for encoding in Encoding::ALL {
        for Recorded {
            routing_key, body, ..
        } in conversation(encoding)
        {
            for end in 0..body.len() {
                let read = read_and_write(encoding, &routing_key, &body.slice(..end));
                assert!(
                    read.is_err(),
                    "{encoding} {routing_key} cut off at byte {end}"
                );
            }
        }
    }
}

#[test]
fn a_message_with_something_after_it_is_an_error() {
    for encoding in Encoding::ALL {
        for Recorded {
            routing_key, body, ..
        } in conversation(encoding)
        {
            let longer = [&body, b"\0".as_slice()].concat();
            assert!(read_and_write(encoding, &routing_key, &longer.into()).is_err());
        }
    }
}

#[test]
fn a_message_in_one_encoding_is_an_error_in_the_others() {
    for encoding in Encoding::ALL {
        for Recorded {
            routing_key, body, ..
        } in conversation(encoding)
        {
            for other in Encoding::ALL.into_iter().filter(|other| *other != encoding) {
                assert!(read_and_write(other, &routing_key, &body).is_err());
            }
        }
        assert!(
            encoding
                .decode_job(&Bytes::from_static(GET_ALL.as_bytes()))
                .is_err()
        );
    }
}

#[test]
fn no_change_of_bytes_leads_to_a_panic() {
    let mut rng = StdRng::seed_from_u64(10_380);
    for encoding in Encoding::ALL {
        for Recorded {
            routing_key, body, ..
        } in conversation(encoding)
        {
            for _ in 0..300 {
                let mut changed = body.to_vec();
                for _ in 0..rng.random_range(1..4) {
                    let at = rng.random_range(0..changed.len());
                    changed[at] = rng.random();
                }
                let changed = Bytes::from(changed);
                drop(read_and_write(encoding, &routing_key, &changed));
                if let Ok(payload) = Payload::new(encoding, changed) {
                    for other in Encoding::ALL {
                        drop(payload.to(other));
                    }
                }
            }
        }
    }
}

#[test]
fn every_decimal_and_date_has_words() {
    let mut rng = StdRng::seed_from_u64(128);
    for _ in 0..10_000 {
        for (tag, length) in [(0x13_u8, 16), (0x09, 8)] {
            let value: Vec<u8> = (0..length).map(|_| rng.random()).collect();
            let size = u8::try_from(length + 8).unwrap();
            let body = [&[size, 0, 0, 0, tag, b'v', 0], value.as_slice(), &[0]].concat();
            let payload = Payload::new(Encoding::Bson, body.into()).unwrap();
            let json = payload.to(Encoding::Json).unwrap();
            json.to(Encoding::Bson).unwrap();
        }
    }
}

#[test]
fn a_nest_of_a_hundred_levels_is_read_and_one_deeper_is_refused() {
    let json = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let msgpack = |depth: usize| [vec![0x91; depth], vec![0xc0]].concat();

    let value = Payload::new(Encoding::Json, json(100).into()).unwrap();
    for encoding in Encoding::ALL {
        assert_eq!(
            value.to(encoding).unwrap().to(Encoding::Json).unwrap(),
            value
        );
    }
    Payload::new(Encoding::MessagePack, msgpack(100).into()).unwrap();
    Payload::new(Encoding::Bson, bson_nest(100).into()).unwrap();

    let json_error = refused(Encoding::Json, json(101));
    assert!(
        json_error.contains("nested deeper than 100 levels"),
        "{json_error}"
    );
    assert_eq!(
        refused(Encoding::MessagePack, msgpack(101)),
        "malformed MessagePack: nested deeper than 100 levels, at byte 101"
    );
    let bson_error = refused(Encoding::Bson, bson_nest(101));
    assert!(
        bson_error.contains("nested deeper than 100 levels"),
        "{bson_error}"
    );
}

/// Documents within documents, one key of one letter each.
fn bson_nest(depth: usize) -> Vec<u8> {
    const DOCUMENT_BYTES: usize = 5;
    const ELEMENT_BYTES: usize = 3;
    let mut body = Vec::new();
    for level in 0..depth {
        let inside = depth - level - 1;
        let length = DOCUMENT_BYTES + inside * (DOCUMENT_BYTES + ELEMENT_BYTES);
        body.extend(i32::try_from(length).unwrap().to_le_bytes());
        if inside > 0 {
            body.extend(b"\x03a\0");
        }
    }
    body.extend(vec![0; depth]);
    body
}

#[test]
fn a_bomb_of_a_million_levels_does_not_exhaust_the_stack() {
    const LEVELS: usize = 1_000_000;
    let bombs = [
        (Encoding::Json, vec![b'['; LEVELS]),
        (
            Encoding::Json,
            [vec![b'['; LEVELS], vec![b']'; LEVELS]].concat(),
        ),
        (Encoding::Json, b"{\"a\":".repeat(LEVELS)),
        (Encoding::MessagePack, vec![0x91; LEVELS]),
        (Encoding::MessagePack, b"\x81\xa1a".repeat(LEVELS)),
        (Encoding::Bson, bson_nest(LEVELS)),
    ];
    for (encoding, bomb) in bombs {
        let bomb = Bytes::from(bomb);
        assert!(Payload::new(encoding, bomb.clone()).is_err());
        assert!(encoding.decode_job(&bomb).is_err());
        assert!(encoding.decode_worker_list(&bomb).is_err());
    }

    let levels = ["[".repeat(LEVELS), "]".repeat(LEVELS)].concat();
    let inside = format!(
        r#"{{"workers_list":["WB:*"],"data":{levels},"sender":{{"id":"a","type":"b"}},"id":"J"}}"#
    );
    assert!(Encoding::Json.decode_job(&inside.into()).is_err());
}

#[test]
fn a_length_that_lies_is_an_error_before_anything_is_allocated() {
    for lie in [
        b"\xdb\xff\xff\xff\xff".as_slice(), // a text
        b"\xc6\xff\xff\xff\xff",            // bytes
        b"\xdd\xff\xff\xff\xff",            // an array
        b"\xdf\xff\xff\xff\xff",            // a map
        b"\xc9\xff\xff\xff\xff\x05",        // an extension
        b"\xc1",                            // nothing that exists
    ] {
        refused(Encoding::MessagePack, lie);
    }
    for lie in [
        b"\xff\xff\xff\x7f\0".as_slice(),           // the document, too long
        b"\x04\0\0\0\0",                            // too short
        b"\xff\xff\xff\xff\0",                      // negative
        b"\x06\0\0\0\0\0",                          // its end is no type
        b"\x0e\0\0\0\x02a\0\xff\xff\xff\x7f\0\0\0", // a text, too long
        b"\x0e\0\0\0\x02a\0\0\0\0\0x\0\0",          // a text without room for its end
        b"\x0e\0\0\0\x02a\0\x02\0\0\0xy\0",         // a text without an end
        b"\x0d\0\0\0\x05a\0\xff\xff\xff\x7f\0\0",   // bytes, too long
        b"\x0d\0\0\0\x05a\0\x00\0\0\0\x02\0",       // old bytes without their length
        b"\x12\0\0\0\x05a\0\x05\0\0\0\x02\x02\0\0\0A\0", // old bytes with another length
        b"\x0d\0\0\0\x03a\0\xff\xff\xff\x7f\0\0",   // a document inside, too long
        b"\x09\0\0\0\x08a\0\x02\0",                 // a truth value of 2
        b"\x08\0\0\0\x55a\0\0",                     // a type that does not exist
        b"\x08\0\0\0\x0aab\x01",                    // a key without an end
        b"\x11\0\0\0\x0fa\0\xff\0\0\0\x01\0\0\0\0\0", // code with scope, too long
    ] {
        refused(Encoding::Bson, lie);
    }
}

#[test]
fn texts_that_are_not_utf_8_and_fields_whose_names_are_not_texts_are_errors() {
    refused(Encoding::Json, b"\"\xff\"".as_slice());
    assert_eq!(
        refused(Encoding::MessagePack, b"\x92\x01\xa1\xff".as_slice()),
        "malformed MessagePack: a text is not UTF-8, at byte 3"
    );
    refused(
        Encoding::Bson,
        b"\x0e\0\0\0\x02a\0\x02\0\0\0\xff\0\0".as_slice(),
    );
    let map = Bytes::from_static(b"\x81\x01\x02");
    let fault = Encoding::MessagePack.decode_job(&map).unwrap_err();
    assert_eq!(
        fault.to_string(),
        "malformed MessagePack: the key of a map is not a text, at byte 1"
    );
}

#[test]
fn json_that_is_not_quite_json_is_an_error() {
    for text in [
        "",
        " ",
        "{",
        "[1,]",
        "{\"a\":1,}",
        "{a:1}",
        "'a'",
        "NaN",
        "01",
        "1 2",
        "\u{feff}1",
        "\"\n\"",
        "nul",
    ] {
        refused(Encoding::Json, text.to_owned());
    }
}

#[test]
fn a_message_of_another_kind_is_named_by_the_field_that_is_wrong() {
    #[track_caller]
    fn check(text: &str, expected: &str) {
        let refused = Encoding::Json
            .decode_job(&text.to_owned().into())
            .unwrap_err();
        assert_eq!(refused.to_string(), expected);
    }
    check(
        "{}",
        "unexpected JSON message: `workers_list` must be an array",
    );
    check("[]", "unexpected JSON message: `message` must be an object");
    check("5", "unexpected JSON message: `message` must be an object");
    check(
        r#"{"workers_list":"WB"}"#,
        "unexpected JSON message: `workers_list` must be an array",
    );
    check(
        r#"{"workers_list":[1]}"#,
        "unexpected JSON message: `workers_list` must be a text",
    );
    check(
        r#"{"workers_list":[],"workers_list_id":-1}"#,
        "unexpected JSON message: `workers_list_id` must be a whole number from 0 to 4294967295",
    );
    check(
        r#"{"workers_list":[],"sender":"WA"}"#,
        "unexpected JSON message: `sender` must be an object",
    );
    check(
        r#"{"workers_list":[],"sender":{"id":"WA:1","type":null}}"#,
        "unexpected JSON message: `type` must be a text",
    );
}

#[test]
fn an_error_never_repeats_what_the_bytes_say() {
    let secret = "do-not-log-me";
    for text in [
        format!(r#"{{"workers_list":"{secret}"}}"#),
        format!(r#""{secret}""#),
        format!(r#"{{"{secret}": nonsense}}"#),
        format!(r#"{{"workers_list":["{secret}"],"{secret}":1,"sender":"{secret}"}}"#),
    ] {
        let fault: CodecError = Encoding::Json.decode_job(&text.into()).unwrap_err();
        assert!(!fault.to_string().contains(secret), "{fault}");
    }
    for routing_key in [topic::WORKER_LIST, topic::ERROR, topic::WORKER_DEL] {
        let body = Bytes::from(format!("\"{secret}\""));
        let fault = read_and_write(Encoding::Json, routing_key, &body).unwrap_err();
        assert!(!format!("{fault} {fault:?}").contains(secret), "{fault}");
    }
}
