//! The messages that a run leads to: what it sent, and its own output. Pure: nothing is published
//! here.

use uuid::Uuid;
use warren_bus::{Kind, Message, PEER_PATIENCE};
use warren_protocol::{
    Address, Encoding, Identity, Job, Outcome, Payload, Slip, Stop, WorkerType, job_id,
};

use crate::{clock::now_ms, host::Host, registry::Seat};

/// The namespace of hop ids: the same run that decides the same makes the same ids, so that a
/// repeated publish is recognised as one.
pub(super) const HOP_NAMESPACE: Uuid = Uuid::from_u128(0x77a1_7e4b_5c1d_4a39_9d0e_2f6b_8c35_e1d7);

/// The messages that a successful run leads to.
pub(super) fn consequences(
    host: &Host,
    seat: &Seat,
    incoming: &Message,
    job: &Job,
    outcome: Outcome,
    sends: Vec<Slip>,
) -> Result<Vec<Message>, String> {
    let mut messages = Vec::new();
    for (index, slip) in sends.into_iter().enumerate() {
        let hop = Hop {
            route: slip.stops,
            position: 0,
            data: slip.data,
        };
        messages.push(outgoing(host, seat, incoming, job, index + 1, hop, false)?);
    }
    let hop = match outcome {
        Outcome::Route(slip) => Some(Hop {
            route: slip.stops,
            position: 0,
            data: slip.data,
        }),
        Outcome::Forward(data) => match (job.next_stop(), &incoming.reply_to) {
            (Some(_), _) => Some(Hop {
                route: job.route.clone(),
                position: job.position + 1,
                data,
            }),
            (None, Some(caller)) => Some(Hop {
                route: vec![Stop::from(&Address::One(caller.clone()))],
                position: 0,
                data,
            }),
            // The end of the route, and nobody waits.
            (None, None) => None,
        },
        _ => None,
    };
    if let Some(hop) = hop {
        messages.push(outgoing(host, seat, incoming, job, 0, hop, true)?);
    }
    Ok(messages)
}

/// What is handed over for a run: nothing, its one message, or a bundle of all of them for any
/// worker of its type, which sends them on.
pub(super) fn one_message(
    carrier: &WorkerType,
    incoming: &Message,
    job: &Job,
    mut messages: Vec<Message>,
) -> Option<Message> {
    if messages.len() < 2 {
        return messages.pop();
    }
    let mut name = format!("{}\n{}\nbundle", root(incoming, job), job.position);
    for message in &messages {
        name.push('\n');
        name.push_str(&message.id);
    }
    let id = Uuid::new_v5(&HOP_NAMESPACE, name.as_bytes()).to_string();
    Some(Message::bundle(carrier.clone(), id, &messages))
}

/// As [`one_message`], for what an HTTP request sent.
pub(crate) fn one_message_by_request(
    carrier: &WorkerType,
    mut messages: Vec<Message>,
) -> Option<Message> {
    if messages.len() < 2 {
        return messages.pop();
    }
    let id = Uuid::new_v4().to_string();
    Some(Message::bundle(carrier.clone(), id, &messages))
}

/// Where a message goes and what it carries.
struct Hop {
    route: Vec<Stop>,
    position: usize,
    data: Payload,
}

/// One message of a run. The run's own output carries the call along; what it sent besides does
/// not.
fn outgoing(
    host: &Host,
    seat: &Seat,
    incoming: &Message,
    job: &Job,
    index: usize,
    hop: Hop,
    carries_call: bool,
) -> Result<Message, String> {
    let stop = hop
        .route
        .get(hop.position)
        .ok_or("the route has no such stop")?;
    let to = stop.address().map_err(|error| error.to_string())?;
    let reply_to = incoming.reply_to.clone().filter(|_| carries_call);
    let from_peer = incoming.from_peer && carries_call;
    // A Node worker that waits is as slow to come back as its process: its answer outlives a broker.
    let answers =
        matches!((&to, &reply_to), (Address::One(to), Some(caller)) if to == caller) && !from_peer;
    let id = if from_peer {
        place_id(incoming, index)
    } else {
        hop_id(root(incoming, job), job.position, index, &to, &hop.data)
    };
    let job = Job {
        route: hop.route,
        position: hop.position,
        data: hop.data,
        sender: Identity::from(&seat.id),
        id: id.clone(),
    };
    let body = host
        .encoding
        .encode_job(&job)
        .map_err(|error| error.to_string())?;
    Ok(Message {
        id,
        to,
        kind: if answers { Kind::Reply } else { Kind::Job },
        encoding: host.encoding,
        body,
        correlation_id: incoming.correlation_id.clone().filter(|_| carries_call),
        attempt: 1,
        deadline_ms: if from_peer && reply_to.is_some() {
            // It waits without end; each hop is begun in time, or it is told.
            let patience = u64::try_from(PEER_PATIENCE.as_millis()).unwrap_or(u64::MAX);
            Some(now_ms().saturating_add(patience))
        } else {
            incoming.deadline_ms.filter(|_| carries_call)
        },
        // Who waits is told instead.
        errors_to: seat
            .hears_errors()
            .filter(|_| reply_to.is_none() && !from_peer),
        reply_to,
        first_ms: None,
        trace_parent: incoming.trace_parent.clone(),
        from_peer,
    })
}

/// The messages for jobs that an HTTP request sent: there is no incoming job.
///
/// # Errors
/// When a slip cannot be written in the bus's encoding.
pub(crate) fn sent_by_request(
    host: &Host,
    seat: &Seat,
    sends: Vec<Slip>,
) -> Result<Vec<Message>, String> {
    sends
        .into_iter()
        .map(|slip| {
            let stop = slip.stops.first().ok_or("there is no stop")?;
            let to = stop.address().map_err(|error| error.to_string())?;
            let job = Job {
                route: slip.stops,
                position: 0,
                data: slip.data,
                sender: Identity::from(&seat.id),
                id: job_id(now_ms()),
            };
            let body = host
                .encoding
                .encode_job(&job)
                .map_err(|error| error.to_string())?;
            Ok(Message {
                errors_to: seat.hears_errors(),
                ..Message::new(job.id, to, host.encoding, body)
            })
        })
        .collect()
}

/// By what a job is known. The ids of Node's jobs are milliseconds and collide; their messages have
/// ids of their own.
fn root<'a>(incoming: &'a Message, job: &'a Job) -> &'a str {
    if incoming.from_peer {
        &incoming.id
    } else {
        &job.id
    }
}

/// The same for the same job, whatever it decides: a Node worker that waits dies of a second answer,
/// also of one that differs from the first.
fn place_id(incoming: &Message, index: usize) -> String {
    let name = format!("{}\n{index}", incoming.id);
    Uuid::new_v5(&HOP_NAMESPACE, name.as_bytes()).to_string()
}

/// The same decision of the same job makes the same id; another decision makes another.
fn hop_id(root: &str, position: usize, index: usize, to: &Address, data: &Payload) -> String {
    let mut name = format!("{root}\n{position}\n{index}\n{to}\n").into_bytes();
    match data.to_bytes() {
        Ok(bytes) => name.extend_from_slice(&bytes),
        // A bare value has no bytes of its own in BSON; its JSON form identifies it as well.
        Err(_) => {
            let json = data.to(Encoding::Json).and_then(|data| data.to_bytes());
            name.extend_from_slice(&json.unwrap_or_default());
        }
    }
    Uuid::new_v5(&HOP_NAMESPACE, &name).to_string()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn message(id: &str) -> Message {
        Message::new(
            id.to_owned(),
            "WC:*".parse().unwrap(),
            Encoding::Json,
            Bytes::new(),
        )
    }

    #[test]
    fn several_messages_become_one_and_another_decision_another_one() {
        let carrier = WorkerType::new("WB").unwrap();
        let packed = |ids: &[&str]| {
            let messages = ids.iter().map(|id| message(id)).collect();
            one_message(&carrier, &message("m"), &job("J1"), messages)
        };
        assert_eq!(packed(&[]), None);
        assert_eq!(packed(&["a"]), Some(message("a")));
        let bundle = packed(&["a", "b"]).unwrap();
        assert_eq!(
            (bundle.kind, bundle.to.to_string().as_str()),
            (Kind::Bundle, "WB:*")
        );
        assert_eq!(bundle, packed(&["a", "b"]).unwrap());
        assert_ne!(bundle.id, packed(&["a", "c"]).unwrap().id);
    }

    fn payload(json: &'static str) -> Payload {
        Payload::new(Encoding::Json, Bytes::from_static(json.as_bytes())).unwrap()
    }

    fn job(id: &str) -> Job {
        Job {
            route: vec![Stop::new("WB:*")],
            position: 0,
            data: payload("null"),
            sender: Identity {
                id: "WA:2000000000000".to_owned(),
                worker_type: "WA".to_owned(),
            },
            id: id.to_owned(),
        }
    }

    #[test]
    fn the_same_decision_has_the_same_id_and_another_decision_has_another() {
        let to: Address = "WC:*".parse().unwrap();
        let elsewhere: Address = "WD:*".parse().unwrap();
        let id = hop_id("J1", 0, 0, &to, &payload("{\"a\":1}"));
        assert_eq!(id, hop_id("J1", 0, 0, &to, &payload("{\"a\":1}")));
        for other in [
            hop_id("J2", 0, 0, &to, &payload("{\"a\":1}")),
            hop_id("J1", 0, 1, &to, &payload("{\"a\":1}")),
            hop_id("J1", 0, 0, &elsewhere, &payload("{\"a\":1}")),
            hop_id("J1", 0, 0, &to, &payload("{\"a\":2}")),
        ] {
            assert_ne!(id, other);
        }
    }

    #[test]
    fn a_bare_value_in_bson_identifies_a_hop_too() {
        let to: Address = "WC:*".parse().unwrap();
        let bare = |json| payload(json).to(Encoding::Bson).unwrap();
        let id = hop_id("J1", 0, 0, &to, &bare("1"));
        assert_ne!(id, hop_id("J1", 0, 0, &to, &bare("2")));
    }
}
