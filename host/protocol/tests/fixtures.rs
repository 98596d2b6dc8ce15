//! What real MicroServices.js 0.0.10 workers said to each other is read, and written again byte for
//! byte, in each encoding.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod support;

use bytes::Bytes;
use serde_json::{Value, json};
use support::{Recorded, conversation, read_and_write};
use warren_protocol::{
    CallError, CodecError, Encoding, ErrorTarget, GET_ALL, GET_WORKER_LIST, Identity, Job,
    JobError, ListEntry, Payload, topic,
};

fn structured(encoding: Encoding) -> impl Iterator<Item = Recorded> {
    conversation(encoding)
        .into_iter()
        .filter(|recorded| !recorded.decoded.is_null())
}

fn first(encoding: Encoding, routing_key: &str) -> Recorded {
    structured(encoding)
        .find(|recorded| recorded.routing_key == routing_key)
        .unwrap()
}

fn as_json(payload: &Payload) -> Value {
    let json = payload.to(Encoding::Json).unwrap().to_bytes().unwrap();
    serde_json::from_slice(&json).unwrap()
}

fn identity_as_json(identity: &Identity) -> Value {
    json!({"id": identity.id, "type": identity.worker_type})
}

fn job_as_json(job: &Job) -> Value {
    json!({
        "workers_list": job.route.iter().map(|stop| stop.as_str()).collect::<Vec<_>>(),
        "workers_list_id": job.position,
        "data": as_json(&job.data),
        "sender": identity_as_json(&job.sender),
        "id": job.id,
    })
}

/// The fixtures of BSON show its doubles as `1.0`, which is the same number.
fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|((k, a), (l, b))| k == l && same(a, b))
        }
        _ => left == right,
    }
}

#[test]
fn every_recorded_message_is_written_again_byte_for_byte() {
    for encoding in Encoding::ALL {
        let mut count = 0;
        for Recorded {
            routing_key, body, ..
        } in structured(encoding)
        {
            let written = read_and_write(encoding, &routing_key, &body).unwrap();
            assert_eq!(written, body, "{encoding} {routing_key}");
            count += 1;
        }
        assert!(count >= 15, "{encoding}: only {count} messages");
    }
}

#[test]
fn every_recorded_message_means_what_a_node_worker_reads() {
    for encoding in Encoding::ALL {
        for Recorded {
            routing_key,
            body,
            decoded,
            ..
        } in structured(encoding)
        {
            let read = match routing_key.as_str() {
                topic::WORKER_NEXT => job_as_json(&encoding.decode_job(&body).unwrap()),
                topic::WORKER_NEXT_ACK => {
                    let ack = encoding.decode_ack(&body).unwrap();
                    let mut read = job_as_json(&ack.job);
                    if ack.ignore_update {
                        read["ignoreUpdate"] = true.into();
                    }
                    read
                }
                topic::ERROR => {
                    let error = encoding.decode_error(&body).unwrap();
                    let ErrorTarget::Worker(target) = &error.target else {
                        panic!("SystemManager writes the target as an object");
                    };
                    json!({
                        "target": identity_as_json(target),
                        "error": error.error,
                        "id": error.id,
                        "data": as_json(&error.data),
                    })
                }
                topic::WORKER_LIST => {
                    let entries = encoding.decode_worker_list(&body).unwrap();
                    let entry = |entry: &ListEntry| json!({"worker": identity_as_json(&entry.worker), "isNext": entry.is_next});
                    entries.iter().map(entry).collect()
                }
                _ => identity_as_json(&encoding.decode_identity(&body).unwrap()),
            };
            assert!(
                same(&read, &decoded),
                "{encoding} {routing_key}: {read} is not {decoded}"
            );
        }
    }
}

#[test]
fn the_two_plain_texts_are_the_recorded_ones() {
    for encoding in Encoding::ALL {
        let mut seen = 0;
        for recorded in conversation(encoding)
            .iter()
            .filter(|r| r.decoded.is_null())
        {
            let expected = match (recorded.exchange.as_str(), recorded.routing_key.as_str()) {
                (topic::NOTIFICATIONS, topic::WORKER_GET_ALL) => GET_ALL,
                (topic::POLLING, topic::WORKER_LIST) => GET_WORKER_LIST,
                other => panic!("{other:?} has no structure"),
            };
            assert_eq!(recorded.body, expected);
            seen += 1;
        }
        assert!(seen >= 2);
    }
}

#[test]
fn the_data_of_a_recorded_job_is_what_a_node_worker_would_have_written_in_the_other_encodings() {
    for from in Encoding::ALL {
        for to in Encoding::ALL {
            for Recorded { body, .. } in
                structured(from).filter(|recorded| recorded.routing_key == topic::WORKER_NEXT)
            {
                let job = from.decode_job(&body).unwrap();
                let there = to.encode_job(&job).unwrap();
                let job_there = to.decode_job(&there).unwrap();
                assert_eq!(job_there.data.encoding(), to);
                assert_eq!(
                    from.encode_job(&job_there).unwrap(),
                    body,
                    "{from} to {to} and back"
                );
            }
        }
    }
}

/// The three conversations differ only in ids and times, so sizes and types can be compared.
#[test]
fn a_job_carried_into_another_encoding_has_the_size_that_a_node_worker_gives_it() {
    for from in Encoding::ALL {
        let job = from
            .decode_job(&first(from, topic::WORKER_NEXT).body)
            .unwrap();
        for to in Encoding::ALL {
            let expected = first(to, topic::WORKER_NEXT).body.len();
            assert_eq!(
                to.encode_job(&job).unwrap().len(),
                expected,
                "{from} to {to}"
            );
        }
    }
}

#[test]
fn the_data_of_a_job_is_a_slice_of_its_body() {
    for encoding in Encoding::ALL {
        let body = first(encoding, topic::WORKER_NEXT).body;
        let data = encoding.decode_job(&body).unwrap().data.to_bytes().unwrap();
        assert!(
            body.as_ptr_range().contains(&data.as_ptr()),
            "{encoding}: the data was copied"
        );
    }
}

#[test]
fn a_field_of_the_data_is_found_without_reading_the_rest() {
    for encoding in Encoding::ALL {
        let recorded = first(encoding, topic::WORKER_NEXT);
        let data = encoding.decode_job(&recorded.body).unwrap().data;
        assert_eq!(
            data.text_field("resId").as_deref(),
            recorded.decoded["data"]["resId"].as_str()
        );
        assert_eq!(data.text_field("params"), None, "not a text");
        assert_eq!(data.text_field("nothing"), None);
    }
}

#[test]
fn a_worker_list_has_no_form_in_bson_but_is_read_from_a_document() {
    let entries = Encoding::Json
        .decode_worker_list(&first(Encoding::Json, topic::WORKER_LIST).body)
        .unwrap();
    let refused = Encoding::Bson.encode_worker_list(&entries).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "BSON cannot say a worker list: it has no array at the top of a message"
    );

    let text = br#"{"0":{"worker":{"id":"WB:1795220940610","type":"WB"},"isNext":true}}"#;
    let document = Payload::new(Encoding::Json, Bytes::from_static(text)).unwrap();
    let document = document.to(Encoding::Bson).unwrap().to_bytes().unwrap();
    let read = Encoding::Bson.decode_worker_list(&document).unwrap();
    assert_eq!(read.len(), 1);
    assert_eq!(read[0].worker.id, "WB:1795220940610");
    assert!(read[0].is_next);
}

#[test]
fn an_error_to_an_id_carries_its_cause_in_the_last_field() {
    let error = JobError {
        target: ErrorTarget::Id("WA:1795220938187".to_owned()),
        error: "the queue of WB is full".to_owned(),
        id: "J1795220941865".to_owned(),
        data: Payload::new(Encoding::Json, Bytes::from_static(br#"{"resId":"r"}"#)).unwrap(),
        cause: Some(CallError::QueueFull {
            worker_type: "WB".to_owned(),
        }),
        ending: None,
    };
    let json = Encoding::Json.encode_error(&error).unwrap();
    assert_eq!(
        std::str::from_utf8(&json).unwrap(),
        concat!(
            r#"{"target":"WA:1795220938187","error":"the queue of WB is full","#,
            r#""id":"J1795220941865","data":{"resId":"r"},"#,
            r#""warren":{"code":"queue-full","worker_type":"WB"}}"#
        )
    );
    for encoding in Encoding::ALL {
        let body = encoding.encode_error(&error).unwrap();
        let read = encoding.decode_error(&body).unwrap();
        assert_eq!(read.target.id(), "WA:1795220938187");
        assert_eq!(read.cause, error.cause);
        assert_eq!(read.data.to(Encoding::Json).unwrap(), error.data);
    }
}

#[test]
fn a_cause_of_a_newer_host_is_left_out_and_the_error_is_read() {
    let body = br#"{"target":"WA:1","error":"e","id":"J","data":{},"warren":{"code":"from-2031"}}"#;
    let read = Encoding::Json
        .decode_error(&Bytes::from_static(body))
        .unwrap();
    assert_eq!(read.cause, None);
}

#[test]
fn every_cause_comes_back_in_every_encoding() {
    let text = || "é \" text".to_owned();
    let causes = [
        CallError::Invalid { reason: text() },
        CallError::UnknownType {
            worker_type: text(),
        },
        CallError::NoLiveWorker { address: text() },
        CallError::QueueFull {
            worker_type: text(),
        },
        CallError::Timeout {
            address: text(),
            after_ms: 9_007_199_254_740_991,
        },
        CallError::Unavailable { reason: text() },
        CallError::Failed {
            worker: text(),
            attempts: 5,
            reason: text(),
        },
    ];
    for encoding in Encoding::ALL {
        for cause in &causes {
            let error = JobError {
                target: ErrorTarget::Id(text()),
                error: cause.to_string(),
                id: text(),
                data: Payload::new(Encoding::Json, Bytes::from_static(b"null")).unwrap(),
                cause: Some(cause.clone()),
                ending: None,
            };
            let body = encoding.encode_error(&error).unwrap();
            assert_eq!(
                encoding.decode_error(&body).unwrap().cause.as_ref(),
                Some(cause)
            );
        }
    }
}

#[test]
fn what_a_peer_may_leave_out_or_add_does_not_matter() {
    let body = br#"{"extra":[1],"id":"J1","sender":{"type":"WA","id":"WA:1","host":"x"},
        "workers_list":["WB:*"]}"#;
    let job = Encoding::Json
        .decode_job(&Bytes::from_static(body))
        .unwrap();
    assert_eq!(job.position, 0);
    assert_eq!(job.data.to_bytes().unwrap(), "null");
    assert_eq!(job.stop().unwrap().as_str(), "WB:*");
    assert_eq!(job.next_stop(), None);
    for encoding in Encoding::ALL {
        let body = encoding.encode_job(&job).unwrap();
        assert_eq!(
            encoding
                .decode_job(&body)
                .unwrap()
                .data
                .to(Encoding::Json)
                .unwrap(),
            job.data
        );
    }
}

#[test]
fn a_position_is_read_in_any_width() {
    let msgpack = |position: &[u8]| {
        let job = first(Encoding::MessagePack, topic::WORKER_NEXT).body;
        let key = b"\xafworkers_list_id";
        let at = job.windows(key.len()).position(|w| w == key).unwrap() + key.len();
        let body = [&job[..at], position, &job[at + 1..]].concat();
        Encoding::MessagePack
            .decode_job(&body.into())
            .map(|job| job.position)
    };
    for wide in [
        b"\x01".as_slice(),
        b"\xcc\x01",
        b"\xcd\0\x01",
        b"\xce\0\0\0\x01",
        b"\xcf\0\0\0\0\0\0\0\x01",
        b"\xd0\x01",
        b"\xd1\0\x01",
        b"\xd2\0\0\0\x01",
        b"\xd3\0\0\0\0\0\0\0\x01",
        b"\xca\x3f\x80\0\0",
        b"\xcb\x3f\xf0\0\0\0\0\0\0",
    ] {
        assert_eq!(msgpack(wide), Ok(1), "{wide:x?}");
    }
    for wrong in [
        b"\xff".as_slice(),
        b"\xca\x3f\0\0\0",
        b"\xa11",
        b"\xc3",
        b"\x90",
        b"\xca\x7f\xc0\0\0",
    ] {
        assert!(
            matches!(msgpack(wrong), Err(CodecError::Unexpected { .. })),
            "{wrong:x?}"
        );
    }

    for position in ["1", "1.0", r#"{"$numberLong":"1"}"#] {
        let text = format!(
            r#"{{"workers_list":["WB:*"],"workers_list_id":{position},"data":1,"sender":{{"id":"a","type":"b"}},"id":"J"}}"#
        );
        let body = Payload::new(Encoding::Json, text.into())
            .unwrap()
            .to(Encoding::Bson)
            .unwrap();
        let read = Encoding::Bson.decode_job(&body.to_bytes().unwrap());
        assert_eq!(read.unwrap().position, 1, "{position}");
    }
}
