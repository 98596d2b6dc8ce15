//! A value says the same in every encoding, and says it in the bytes of js-bson and msgpack5.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod support;

use bytes::Bytes;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::Value;
use support::from_hex;
use warren_protocol::{CodecError, Encoding, Payload};

fn vectors(part: &str) -> Vec<Value> {
    let all: Value = serde_json::from_str(include_str!("../fixtures/transcoding.json")).unwrap();
    all[part].as_array().unwrap().clone()
}

fn json(text: &str) -> Payload {
    Payload::new(Encoding::Json, text.to_owned().into()).unwrap()
}

fn msgpack(bytes: impl Into<Bytes>) -> Payload {
    Payload::new(Encoding::MessagePack, bytes.into()).unwrap()
}

fn bson(bytes: impl Into<Bytes>) -> Payload {
    Payload::new(Encoding::Bson, bytes.into()).unwrap()
}

fn bytes_in(encoding: Encoding, payload: &Payload) -> Bytes {
    payload.to(encoding).unwrap().to_bytes().unwrap()
}

fn text_of(payload: &Payload) -> String {
    String::from_utf8(bytes_in(Encoding::Json, payload).to_vec()).unwrap()
}

/// The document in which the BSON test vectors wrap a value.
fn wrapped(text: &str) -> Payload {
    json(&format!(r#"{{"v":{text}}}"#))
}

#[test]
fn json_becomes_the_bytes_of_js_bson_and_of_msgpack5_and_comes_back() {
    let vectors = vectors("plain");
    assert!(vectors.len() > 50);
    for vector in vectors {
        let text = vector["json"].as_str().unwrap();
        let document = bson(from_hex(&vector["bson"]));
        assert_eq!(
            bytes_in(Encoding::Bson, &wrapped(text)),
            from_hex(&vector["bson"]),
            "{text}"
        );
        assert_eq!(
            text_of(&document),
            text_of(&wrapped(text)),
            "{text} from BSON"
        );

        let packed = msgpack(from_hex(&vector["msgpack"]));
        assert_eq!(
            bytes_in(Encoding::MessagePack, &json(text)),
            from_hex(&vector["msgpack"]),
            "{text}"
        );
        assert_eq!(text_of(&packed), text, "{text} from MessagePack");
    }
}

#[test]
fn what_only_bson_says_becomes_extended_json_as_js_bson_writes_it_and_comes_back() {
    for vector in vectors("special") {
        let words = vector["json"].as_str().unwrap();
        let document = bson(from_hex(&vector["bson"]));
        assert_eq!(text_of(&document), text_of(&wrapped(words)));
        assert_eq!(
            bytes_in(Encoding::Bson, &wrapped(words)),
            from_hex(&vector["bson"]),
            "{words}"
        );

        let through_msgpack = document.to(Encoding::MessagePack).unwrap();
        assert_eq!(
            bytes_in(Encoding::Bson, &through_msgpack),
            from_hex(&vector["bson"]),
            "{words}"
        );
    }
}

#[test]
fn a_date_is_a_date_in_bson_and_in_msgpack() {
    for vector in vectors("dates") {
        let packed = msgpack(from_hex(&vector["msgpack"]));
        let words = text_of(&packed);
        assert!(words.starts_with(r#"{"$date":"#), "{words}");
        assert_eq!(
            bytes_in(Encoding::Bson, &wrapped(&words)),
            from_hex(&vector["bson"])
        );
        assert_eq!(
            bytes_in(Encoding::MessagePack, &json(&words)),
            from_hex(&vector["msgpack"])
        );
    }
}

#[test]
fn numbers_that_json_has_not_are_written_as_msgpack5_writes_them() {
    for vector in vectors("floats") {
        let words = vector["json"].as_str().unwrap();
        assert_eq!(text_of(&msgpack(from_hex(&vector["msgpack"]))), words);
        assert_eq!(
            bytes_in(Encoding::MessagePack, &json(words)),
            from_hex(&vector["msgpack"])
        );
    }
}

#[track_caller]
fn check(packed: &[u8], words: &str) {
    assert_eq!(text_of(&msgpack(packed.to_vec())), words);
    assert_eq!(bytes_in(Encoding::MessagePack, &json(words)), packed);
}

#[test]
fn what_only_msgpack_says_becomes_words_in_json_and_comes_back() {
    check(
        b"\xc4\x03\x01\x02\x03",
        r#"{"$binary":{"base64":"AQID","subType":"00"}}"#,
    );
    check(
        b"\xd4\x05\x01",
        r#"{"$msgpackExt":{"type":5,"base64":"AQ=="}}"#,
    );
    check(
        b"\xc7\x03\x85\x01\x02\x03",
        r#"{"$msgpackExt":{"type":-123,"base64":"AQID"}}"#,
    );
    check(
        b"\xcf\x00\x20\x00\x00\x00\x00\x00\x02",
        r#"{"$numberLong":"9007199254740994"}"#,
    );
    check(
        b"\xd3\x80\x00\x00\x00\x00\x00\x00\x00",
        r#"{"$numberLong":"-9223372036854775808"}"#,
    );
    check(
        b"\xcf\x80\x00\x00\x00\x00\x00\x00\x00",
        r#"{"$numberDecimal":"9223372036854775808"}"#,
    );
    check(
        b"\x82\x01\xa1a\x91\x81\xc0\xc4\x00\x80",
        concat!(
            r#"{"$msgpackMap":[[1,"a"],[[{"$msgpackMap":[[null,"#,
            r#"{"$binary":{"base64":"","subType":"00"}}]]}],{}]]}"#
        ),
    );
}

/// msgpack5 would read another integer, so it is given words.
#[test]
fn an_integer_that_no_javascript_number_holds_is_read_from_msgpack_and_written_in_words() {
    for (packed, words) in [
        (
            b"\xcf\x00\x20\x00\x00\x00\x00\x00\x01",
            r#"{"$numberLong":"9007199254740993"}"#,
        ),
        (
            b"\xd3\x80\x00\x00\x00\x00\x00\x00\x01",
            r#"{"$numberLong":"-9223372036854775807"}"#,
        ),
        (
            b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
            r#"{"$numberDecimal":"18446744073709551615"}"#,
        ),
    ] {
        let packed = msgpack(packed.as_slice());
        for through in [Encoding::Json, Encoding::Bson] {
            let there = packed.to(through).unwrap();
            assert_eq!(text_of(&there), words);
            let back = there.to(Encoding::MessagePack).unwrap();
            assert_eq!(
                back.text_field("$numberLong").is_some(),
                words.contains("Long")
            );
            assert_eq!(text_of(&back), words);
            assert_eq!(back.to(through).unwrap(), there);
        }
    }
}

#[test]
fn a_map_of_words_that_is_an_object_is_left_alone() {
    let text = r#"{"$msgpackMap":[["a",1]]}"#;
    let packed = json(text).to(Encoding::MessagePack).unwrap();
    assert_eq!(packed.to_bytes().unwrap().first(), Some(&0x81));
    assert_eq!(text_of(&packed), text);
}

#[test]
fn a_negative_zero_keeps_its_sign() {
    let zero = wrapped("-0.0");
    for encoding in Encoding::ALL {
        let there = zero.to(encoding).unwrap();
        assert_eq!(text_of(&there.to(Encoding::Bson).unwrap()), r#"{"v":-0}"#);
    }
}

#[test]
fn half_a_surrogate_pair_is_read_as_the_replacement_character() {
    for (text, mended) in [
        (r#""\ud83d""#, r#""\ufffd""#),
        (r#""\uDE00\uD83D""#, r#""\ufffd\ufffd""#),
        (
            r#"{"a\ud83dA":"\ud83d\ud83d\ude00"}"#,
            r#"{"a\ufffdA":"\ufffd\ud83d\ude00"}"#,
        ),
        (r#"["\\ud83d","\ud83d"]"#, r#"["\\ud83d","\ufffd"]"#),
        (r#""\ud83d\n""#, r#""\ufffd\n""#),
    ] {
        assert_eq!(json(text).to_bytes().unwrap(), mended.to_owned());
    }
    for kept in [r#""\ud83d\ude00""#, r#""\\ud83d""#, r#""\\\\ude00""#] {
        assert_eq!(json(kept).to_bytes().unwrap(), kept.to_owned());
    }
    for broken in [r#""\ud83d"#, r#""\ud83d\u""#, r#""\ud8""#, r#""\ud83d\"#] {
        let body = Bytes::copy_from_slice(broken.as_bytes());
        assert!(Payload::new(Encoding::Json, body).is_err(), "{broken}");
    }
    let job = r#"{"workers_list":["W\ud83d:*"],"data":["\ud83d"],"sender":{"id":"a","type":"b"},"id":"J"}"#;
    let job = Encoding::Json.decode_job(&job.to_owned().into()).unwrap();
    assert_eq!(text_of(&job.data), r#"["\ufffd"]"#);
    assert_eq!(job.route[0].as_str(), "W\u{fffd}:*");
}

#[test]
fn what_only_msgpack_says_comes_back_from_bson() {
    for packed in [
        b"\xc7\x03\x85\x01\x02\x03".as_slice(),
        b"\x81\x01\xc0",
        b"\xcf\x80\x00\x00\x00\x00\x00\x00\x00",
        b"\xd6\xff\x00\x00\x00\x01",
    ] {
        let there = msgpack(packed.to_vec()).to(Encoding::Bson).unwrap();
        assert_eq!(bytes_in(Encoding::MessagePack, &there), packed);
    }
}

#[test]
fn a_date_that_milliseconds_would_shorten_stays_an_extension() {
    check(
        b"\xd7\xff\x00\x00\x00\x04\x00\x00\x00\x01",
        r#"{"$msgpackExt":{"type":-1,"base64":"AAAABAAAAAE="}}"#,
    );
}

#[test]
fn an_integer_beyond_the_precision_of_javascript_stays_exact() {
    let long = wrapped("9007199254740993");
    let document = bson(bytes_in(Encoding::Bson, &long));
    assert_eq!(
        text_of(&document),
        r#"{"v":{"$numberLong":"9007199254740993"}}"#
    );
    assert_eq!(
        bytes_in(Encoding::MessagePack, &document),
        b"\x81\xa1v\x81\xab$numberLong\xb09007199254740993".as_slice()
    );
}

#[test]
fn a_double_beyond_that_precision_stays_a_double() {
    let packed = msgpack(b"\xcb\x43\xb0\x00\x00\x00\x00\x00\x00".to_vec());
    assert_eq!(text_of(&packed), "1.152921504606847e+18");
    let there = bytes_in(Encoding::Bson, &wrapped(&text_of(&packed)));
    assert_eq!(there, b"\x10\0\0\0\x01v\0\0\0\0\0\0\0\xb0\x43\0".as_slice());
    assert_eq!(
        bytes_in(Encoding::MessagePack, &json(&text_of(&packed))),
        packed.to_bytes().unwrap()
    );
}

#[test]
fn an_object_that_only_resembles_extended_json_is_left_alone() {
    for text in [
        r#"{"$oid":"short"}"#,
        r#"{"$oid":5}"#,
        r#"{"$date":"yesterday"}"#,
        r#"{"$binary":{"base64":"***","subType":"00"}}"#,
        r#"{"$numberLong":"1e5"}"#,
        r#"{"$oid":"5f0d1c2b3a49586776655443","more":1}"#,
        r#"{"$msgpackExt":{"type":128,"base64":""}}"#,
        r#"{"$where":"x"}"#,
        r#"{"$timestamp":{"t":-1,"i":0}}"#,
    ] {
        for encoding in [Encoding::Bson, Encoding::MessagePack] {
            assert_eq!(text_of(&json(text).to(encoding).unwrap()), text);
        }
    }
}

#[test]
fn long_texts_and_lists_have_the_shortest_head() {
    for (length, head) in [
        (65_535, b"\xda\xff\xff".as_slice()),
        (65_536, b"\xdb\0\x01\0\0"),
    ] {
        let text = "x".repeat(length);
        let packed = bytes_in(Encoding::MessagePack, &json(&format!("\"{text}\"")));
        assert_eq!(packed, [head, text.as_bytes()].concat());
    }
    for (length, head) in [
        (65_535, b"\xdc\xff\xff".as_slice()),
        (65_536, b"\xdd\0\x01\0\0"),
    ] {
        let items = vec!["0"; length].join(",");
        let packed = bytes_in(Encoding::MessagePack, &json(&format!("[{items}]")));
        assert_eq!(packed, [head, &vec![0; length]].concat());
    }
}

#[test]
fn a_bson_value_that_is_no_document_cannot_stand_alone() {
    for (text, name) in [
        ("5", "Int32"),
        ("null", "Null"),
        ("[1]", "Array"),
        ("\"t\"", "String"),
        ("1.5", "Double"),
        ("true", "Boolean"),
    ] {
        let value = json(text).to(Encoding::Bson).unwrap();
        let refused = value.to_bytes().unwrap_err();
        assert_eq!(
            refused.to_string(),
            format!("BSON cannot say {name} outside a document")
        );
        assert_eq!(text_of(&value), text, "but in another encoding it can");
    }
}

#[test]
fn a_key_with_a_nul_has_no_form_in_bson() {
    let refused = json(r#"{"a\u0000b":1}"#).to(Encoding::Bson).unwrap_err();
    assert!(matches!(
        refused,
        CodecError::Inexpressible {
            encoding: Encoding::Bson,
            ..
        }
    ));
}

#[test]
fn the_types_that_bson_has_given_up_are_read() {
    let document = |tag: u8, value: &[u8]| {
        let length = u8::try_from(value.len() + 8).unwrap();
        text_of(&bson(
            [&[length, 0, 0, 0, tag, b'v', 0], value, &[0]].concat(),
        ))
    };
    assert_eq!(document(0x06, b""), r#"{"v":null}"#);
    assert_eq!(document(0x0e, b"\x02\0\0\0s\0"), r#"{"v":"s"}"#);
    assert_eq!(
        document(
            0x0c,
            b"\x02\0\0\0n\0\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01"
        ),
        r#"{"v":{"$dbPointer":{"$ref":"n","$id":{"$oid":"010101010101010101010101"}}}}"#
    );
    assert_eq!(
        document(0x0f, b"\x0f\0\0\0\x02\0\0\0c\0\x05\0\0\0\0"),
        r#"{"v":{"$code":"c","$scope":{}}}"#
    );
    assert_eq!(
        document(0x05, b"\x05\0\0\0\x02\x01\0\0\0A"),
        r#"{"v":{"$binary":{"base64":"QQ==","subType":"02"}}}"#
    );
    assert_eq!(document(0x12, b"\x05\0\0\0\0\0\0\0"), r#"{"v":5}"#);
}

#[test]
fn the_same_encoding_keeps_every_byte() {
    for text in ["  {\"a\" : 1.50, \"a\": \"\\/\"}\n", "-0", "1E5"] {
        assert_eq!(
            json(text).to(Encoding::Json).unwrap().to_bytes().unwrap(),
            text.to_owned()
        );
    }
    assert_eq!(
        format!("{:?}", json("\"secret\"")),
        "Payload(JSON, 8 bytes)"
    );
}

fn random_text(rng: &mut StdRng) -> String {
    let alphabet = [
        'a', 'Z', '"', '\\', '\n', 'é', '\u{2028}', '😀', '\u{1}', '/',
    ];
    let length = rng.random_range(0..40);
    (0..length)
        .map(|_| alphabet[rng.random_range(0..alphabet.len())])
        .collect()
}

fn random_value(rng: &mut StdRng, depth: usize) -> Value {
    match rng.random_range(0..if depth < 4 { 9 } else { 7 }) {
        0 => Value::Null,
        1 => rng.random::<bool>().into(),
        2 => rng.random_range(-300..300_i64).into(),
        3 => rng
            .random_range(-9_007_199_254_740_991..=9_007_199_254_740_991_i64)
            .into(),
        4 => rng.random::<i32>().into(),
        5 => (rng.random::<f64>() * 1e3 + 0.5).into(),
        6 => random_text(rng).into(),
        7 => (0..rng.random_range(0..20))
            .map(|_| random_value(rng, depth + 1))
            .collect(),
        _ => (0..rng.random_range(0..20))
            .map(|_| (random_text(rng), random_value(rng, depth + 1)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
    }
}

#[test]
fn any_value_survives_a_journey_through_all_encodings() {
    let mut rng = StdRng::seed_from_u64(20_261_121);
    for _ in 0..500 {
        let value = random_value(&mut rng, 0);
        let start = json(&value.to_string());
        let there = start
            .to(Encoding::Bson)
            .unwrap()
            .to(Encoding::MessagePack)
            .unwrap();
        let back = there
            .to(Encoding::Bson)
            .unwrap()
            .to(Encoding::Json)
            .unwrap();
        let read: Value = serde_json::from_slice(&back.to_bytes().unwrap()).unwrap();
        assert_eq!(read, value);
    }
}
