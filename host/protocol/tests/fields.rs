//! A payload can be given one more field, or be put into an object, without a change to what is
//! already there.
#![allow(missing_docs, clippy::unwrap_used)]

use bytes::Bytes;
use warren_protocol::{CodecError, Encoding, Payload};

fn json(text: &str) -> Payload {
    Payload::new(Encoding::Json, text.to_owned().into()).unwrap()
}

fn text_of(payload: &Payload) -> String {
    let json = payload.to(Encoding::Json).unwrap().to_bytes().unwrap();
    String::from_utf8(json.to_vec()).unwrap()
}

#[test]
fn a_field_is_added_behind_all_others() {
    for (object, expected) in [
        ("{}", r#"{"k":"é\u0000"}"#),
        (r#"{"a":{}}"#, r#"{"a":{},"k":"é\u0000"}"#),
        (r#"{"a":"{"}"#, r#"{"a":"{","k":"é\u0000"}"#),
        (
            r#"{"a":[1.5,-0],"b":{"k":1}}"#,
            r#"{"a":[1.5,-0],"b":{"k":1},"k":"é\u0000"}"#,
        ),
    ] {
        for encoding in Encoding::ALL {
            let object = json(object).to(encoding).unwrap();
            let added = object.with_text_field("k", "é\0").unwrap();
            assert_eq!(added.encoding(), encoding);
            assert_eq!(text_of(&added), expected);
            assert_eq!(added.text_field("k").as_deref(), Some("é\0"));
            Payload::new(encoding, added.to_bytes().unwrap()).unwrap();
        }
    }
}

#[test]
fn the_other_fields_keep_their_bytes() {
    let added = json(" { \"a\" : 1.50 ,\"a\":\"\\/\"\n} ").with_text_field("k", "v");
    assert_eq!(
        added.unwrap().to_bytes().unwrap(),
        " { \"a\" : 1.50 ,\"a\":\"\\/\",\"k\":\"v\"}"
    );
    // A head of 32 bits and an integer of 64 that MessagePack could write in less.
    let packed = b"\xdf\0\0\0\x01\xd9\x01a\xcf\0\0\0\0\0\0\0\x05".as_slice();
    let packed = Payload::new(Encoding::MessagePack, packed.into()).unwrap();
    assert_eq!(
        packed
            .with_text_field("k", "v")
            .unwrap()
            .to_bytes()
            .unwrap(),
        b"\x82\xd9\x01a\xcf\0\0\0\0\0\0\0\x05\xa1k\xa1v".as_slice()
    );
    let document = b"\x10\0\0\0\x12a\0\x05\0\0\0\0\0\0\0\0".as_slice();
    let document = Payload::new(Encoding::Bson, document.into()).unwrap();
    assert_eq!(
        document
            .with_text_field("k", "v")
            .unwrap()
            .to_bytes()
            .unwrap(),
        b"\x19\0\0\0\x12a\0\x05\0\0\0\0\0\0\0\x02k\0\x02\0\0\0v\0\0".as_slice()
    );
}

#[test]
fn the_head_of_a_map_grows_with_its_fields() {
    for (fields, head) in [
        (14, b"\x8f".as_slice()),
        (15, b"\xde\x00\x10"),
        (65_535, b"\xdf\x00\x01\x00\x00"),
    ] {
        let text: Vec<_> = (0..fields).map(|n| format!("\"k{n}\":null")).collect();
        let object = json(&format!("{{{}}}", text.join(",")));
        let packed = object.to(Encoding::MessagePack).unwrap();
        let added = packed.with_text_field("k", "v").unwrap();
        assert!(added.to_bytes().unwrap().starts_with(head), "{fields}");
        assert_eq!(
            added.to(Encoding::Json).unwrap(),
            object.with_text_field("k", "v").unwrap()
        );
    }
}

#[test]
fn a_field_that_is_there_stays_as_it_is() {
    for object in [r#"{"k":"old","a":1}"#, r#"{"k":5}"#, r#"{"k":null}"#] {
        for encoding in Encoding::ALL {
            let object = json(object).to(encoding).unwrap();
            assert_eq!(object.with_text_field("k", "new").unwrap(), object);
        }
    }
}

#[test]
fn only_an_object_can_be_given_a_field() {
    for value in ["[]", "[1]", "null", "\"{}\"", "5", "true"] {
        for encoding in Encoding::ALL {
            let value = json(value).to(encoding).unwrap();
            assert!(!value.is_object());
            assert_eq!(
                value.with_text_field("k", "v"),
                Err(CodecError::Unexpected {
                    encoding,
                    field: "data",
                    expected: "an object"
                })
            );
        }
    }
    let map = Payload::new(Encoding::MessagePack, Bytes::from_static(b"\x81\x01\x02")).unwrap();
    assert!(!map.is_object());
    assert!(map.with_text_field("k", "v").is_err());
    assert!(json(" {}").is_object());

    let document = json("{}").to(Encoding::Bson).unwrap();
    let refused = document.with_text_field("a\0b", "v").unwrap_err();
    assert!(matches!(refused, CodecError::Inexpressible { .. }));
}

#[test]
fn a_value_in_an_object_is_the_same_value() {
    for text in [
        "[1,[2]]",
        "null",
        "\"x\"",
        "5",
        "1.5",
        "true",
        r#"{"a":{}}"#,
    ] {
        for encoding in Encoding::ALL {
            let value = json(text).to(encoding).unwrap();
            let object = value.wrapped("é").unwrap();
            assert!(object.is_object());
            assert_eq!(text_of(&object), format!(r#"{{"é":{text}}}"#));
            object.to_bytes().unwrap();
            let inside = object.field("é");
            assert_eq!(inside, Some(value).filter(|_| text != "null"));
            assert_eq!(object.field("e"), None);
        }
    }
    assert_eq!(
        json(" [ 1.0 ] ").wrapped("a").unwrap().to_bytes().unwrap(),
        r#"{"a": [ 1.0 ] }"#
    );
}

#[test]
fn a_value_that_nests_too_deep_in_an_object_is_an_error() {
    let nest = |depth: usize| json(&["[".repeat(depth), "]".repeat(depth)].concat());
    for encoding in Encoding::ALL {
        nest(99).to(encoding).unwrap().wrapped("a").unwrap();
        let refused = nest(100).to(encoding).unwrap().wrapped("a").unwrap_err();
        let refused = refused.to_string();
        assert!(
            refused.contains("nested deeper than 100 levels"),
            "{refused}"
        );
    }
}

#[test]
fn what_ends_the_connections_of_node_workers_is_found() {
    let payload = |bytes: &'static [u8]| {
        Payload::new(Encoding::MessagePack, Bytes::from_static(bytes)).unwrap()
    };
    // {"a": [ext 5 of one byte]}, {"__proto__": nil}, {"a": a time}
    let extension = payload(&[0x81, 0xa1, b'a', 0x91, 0xd4, 5, 0]);
    assert_eq!(extension.hazard_for_node(), Some("a MessagePack extension"));
    let proto = payload(b"\x81\xa9__proto__\xc0");
    assert_eq!(proto.hazard_for_node(), Some("a field `__proto__`"));
    let time = payload(&[0x81, 0xa1, b'a', 0xd6, 0xff, 0, 0, 0, 1]);
    assert_eq!(time.hazard_for_node(), None);
    let in_json = Payload::new(Encoding::Json, Bytes::from_static(br#"{"__proto__":1}"#));
    assert_eq!(in_json.unwrap().hazard_for_node(), None);
}
