//! The news for a worker that a job which it sent was given up.

use uuid::Uuid;
use warren_protocol::{Address, CallError, Ending, ErrorTarget, JobError, Payload};

use crate::{Epitaph, Kind, Message};

/// The namespace of the ids of such news: the same job that is given up again makes the same id.
const NAMESPACE: Uuid = Uuid::from_u128(0x3d0f_51c2_8a6e_4b27_9c14_70ab_5de8_f963);

/// The message that tells it; `None` where nobody wants to know, or somebody else is told: whoever
/// waits for the answer.
pub(crate) fn of(message: &Message, epitaph: &Epitaph) -> Option<Message> {
    let sender = message.errors_to.clone()?;
    let is_told_elsewhere = message.reply_to.is_some() || message.from_peer;
    if message.kind != Kind::Job || is_told_elsewhere {
        return None;
    }
    let encoding = message.encoding;
    let (id, data) = match encoding.decode_job(&message.body) {
        Ok(job) => (job.id, job.data),
        Err(_) => (message.id.clone(), Payload::null(encoding)),
    };
    let is_run = !matches!(epitaph.reason, "unrouted" | "expired" | "decode");
    let attempts = message.attempt.saturating_sub(u32::from(!is_run));
    let error = JobError {
        target: ErrorTarget::Id(sender.to_string()),
        error: epitaph.error.clone(),
        id,
        data,
        cause: Some(CallError::Failed {
            worker: message.to.worker_type().to_string(),
            attempts,
            reason: epitaph.error.clone(),
        }),
        ending: Some(Ending {
            reason: epitaph.reason.to_owned(),
            stop: message.to.to_string(),
            attempts,
        }),
    };
    let body = encoding.encode_error(&error).ok()?;
    let name = format!("{}\n{}", message.id, message.to);
    let id = Uuid::new_v5(&NAMESPACE, name.as_bytes()).to_string();
    Some(Message {
        kind: Kind::Error,
        trace_parent: message.trace_parent.clone(),
        ..Message::new(id, Address::One(sender), encoding, body)
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use warren_protocol::Encoding;

    use super::*;

    fn job() -> Message {
        let body = r#"{"workers_list":["WB:*"],"workers_list_id":0,"data":{"n":1},"sender":{"id":"WA:9123456789012","type":"WA"},"id":"J1"}"#;
        let (to, body) = ("WB:*".parse().unwrap(), Bytes::from_static(body.as_bytes()));
        Message {
            attempt: 3,
            errors_to: Some("WA:9123456789012".parse().unwrap()),
            ..Message::new("m1".to_owned(), to, Encoding::Json, body)
        }
    }

    fn epitaph(reason: &'static str) -> Epitaph {
        Epitaph {
            reason,
            error: "the disk is full".to_owned(),
            plugin: None,
            stack: None,
            host: "h".to_owned(),
        }
    }

    #[test]
    fn a_sender_is_told_what_became_of_which_job() {
        let news = of(&job(), &epitaph("permanent")).unwrap();
        assert_eq!(
            (news.kind, news.to.to_string().as_str()),
            (Kind::Error, "WA:9123456789012")
        );
        assert_eq!(news.correlation_id, None);
        let error = news.encoding.decode_error(&news.body).unwrap();
        assert_eq!(
            (error.id.as_str(), error.error.as_str()),
            ("J1", "the disk is full")
        );
        assert_eq!(error.data.to_bytes().unwrap(), "{\"n\":1}");
        let ending = error.ending.unwrap();
        assert_eq!(
            (ending.reason.as_str(), ending.stop.as_str()),
            ("permanent", "WB:*")
        );
        assert_eq!(ending.attempts, 3);
        // What nobody took was not started this time.
        let news = of(&job(), &epitaph("unrouted")).unwrap();
        let error = news.encoding.decode_error(&news.body).unwrap();
        assert_eq!(error.ending.unwrap().attempts, 2);
    }

    #[test]
    fn nobody_is_told_who_does_not_ask_for_it_or_is_told_otherwise() {
        let told = |change: fn(&mut Message)| {
            let mut message = job();
            change(&mut message);
            of(&message, &epitaph("permanent")).is_some()
        };
        assert!(told(|_| {}));
        assert!(!told(|message| message.errors_to = None));
        assert!(!told(|message| message.reply_to = message.errors_to.clone()));
        assert!(!told(|message| message.from_peer = true));
        // News of news.
        assert!(!told(|message| message.kind = Kind::Error));
    }

    #[test]
    fn a_job_that_cannot_be_read_is_told_of_without_its_data() {
        let unreadable = Message {
            body: Bytes::from_static(b"not json"),
            ..job()
        };
        let news = of(&unreadable, &epitaph("decode")).unwrap();
        let error = news.encoding.decode_error(&news.body).unwrap();
        assert_eq!(
            (error.id.as_str(), error.data),
            ("m1", Payload::null(Encoding::Json))
        );
    }
}
