//! Requests that wait for their reply: sends them out, and matches what comes back by the
//! correlation id.

pub(crate) mod reply;
pub(crate) mod request;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;
use uuid::Uuid;
use warren_bus::{Bus, PublishError};
use warren_protocol::{Address, CallError, Encoding, WorkerId, job_id};
use warren_runtime::Call;

use crate::{clock::now_ms, telemetry::metrics::Metrics};
use reply::Reply;
use request::{Request, millis};

/// The open calls of one host.
pub(crate) struct Calls {
    bus: Arc<dyn Bus>,
    encoding: Encoding,
    metrics: Arc<Metrics>,
    /// The field of a call's data by which a Node worker's answer is known again (`resId`): all that
    /// such a worker carries along. `None` where there are none.
    peer_field: Option<String>,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    by_id: HashMap<String, oneshot::Sender<Reply>>,
    /// The ids of the calls whose data has this text in the field for Node workers, oldest first.
    by_field: HashMap<String, Vec<String>>,
}

impl Calls {
    /// No call is open.
    #[must_use]
    pub(crate) fn new(
        bus: Arc<dyn Bus>,
        encoding: Encoding,
        metrics: Arc<Metrics>,
        peer_field: Option<String>,
    ) -> Self {
        Self {
            bus,
            encoding,
            metrics,
            peer_field,
            waiting: Mutex::default(),
        }
    }

    /// Sends a call out and waits for its reply, no longer than its timeout.
    ///
    /// # Errors
    /// [`CallError`] says why there is none.
    ///
    /// # Cancel safety
    /// Dropping the future gives the call up; the job may still run.
    pub(crate) async fn call(&self, caller: &WorkerId, call: Call) -> Reply {
        self.call_as(caller, job_id(now_ms()), call).await
    }

    /// As [`Calls::call`], by a job with this id.
    ///
    /// # Errors
    /// As [`Calls::call`].
    ///
    /// # Cancel safety
    /// As [`Calls::call`].
    pub(crate) async fn call_as(&self, caller: &WorkerId, id: String, call: Call) -> Reply {
        let Call {
            slip,
            timeout,
            trace_parent,
        } = call;
        let correlation_id = Uuid::new_v4().to_string();
        let request = Request::new(caller, id, slip, self.encoding)?;
        let Request {
            to,
            job,
            mut message,
        } = request.answered_to(caller, correlation_id.clone(), timeout);
        message.trace_parent = trace_parent;
        self.metrics.sent(caller.worker_type(), "job_request");

        let (waiter, reply) = oneshot::channel();
        let field = self.peer_field.as_ref();
        let field = field.and_then(|field| job.data.text_field(field));
        let _open = Open::new(self, correlation_id, field, waiter);
        let exchange = async {
            // The reply may come before the confirm does, and it is worth more.
            tokio::pin!(reply);
            tokio::select! {
                biased;
                reply = &mut reply => return unwrap_reply(reply),
                published = self.bus.publish(message) => {
                    published.map_err(|error| call_error(error, &to))?;
                }
            }
            tokio::select! {
                biased;
                reply = &mut reply => unwrap_reply(reply),
                () = self.desertion(&to) => Err(CallError::NoLiveWorker { address: to.to_string() }),
            }
        };
        tokio::time::timeout(timeout, exchange)
            .await
            .unwrap_or_else(|_| {
                Err(CallError::Timeout {
                    address: to.to_string(),
                    after_ms: millis(timeout),
                })
            })
    }

    /// Returns when nobody is there to answer, on any host.
    async fn desertion(&self, to: &Address) {
        match to {
            Address::Any(worker_type) => self.bus.absence(worker_type).await,
            // A worker that is gone has no queue any more; publishing has told.
            Address::One(_) => std::future::pending().await,
        }
    }

    /// Hands a reply to the call that waits for it; `false` when none does any more.
    pub(crate) fn resolve(&self, correlation_id: &str, reply: Reply) -> bool {
        let waiter = {
            let mut waiting = self.lock();
            waiting
                .find(correlation_id)
                .and_then(|id| waiting.by_id.remove(&id))
        };
        waiter.is_some_and(|waiter| waiter.send(reply).is_ok())
    }

    /// Whether a call waits for the reply with this correlation id.
    pub(crate) fn is_open(&self, correlation_id: &str) -> bool {
        self.lock().find(correlation_id).is_some()
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// The id of the open call that is known by this text: its own, or the one in its data.
    fn find(&self, correlation_id: &str) -> Option<String> {
        if self.by_id.contains_key(correlation_id) {
            return Some(correlation_id.to_owned());
        }
        let known = self.by_field.get(correlation_id)?;
        known
            .iter()
            .find(|id| self.by_id.contains_key(*id))
            .cloned()
    }
}

/// An entry in the table of open calls, for as long as somebody waits.
struct Open<'a> {
    calls: &'a Calls,
    correlation_id: String,
    field: Option<String>,
}

impl<'a> Open<'a> {
    fn new(
        calls: &'a Calls,
        correlation_id: String,
        field: Option<String>,
        waiter: oneshot::Sender<Reply>,
    ) -> Self {
        let mut waiting = calls.lock();
        waiting.by_id.insert(correlation_id.clone(), waiter);
        if let Some(field) = &field {
            let known = waiting.by_field.entry(field.clone()).or_default();
            known.push(correlation_id.clone());
        }
        Self {
            calls,
            correlation_id,
            field,
        }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let mut waiting = self.calls.lock();
        waiting.by_id.remove(&self.correlation_id);
        let Some(field) = &self.field else { return };
        if let Some(known) = waiting.by_field.get_mut(field) {
            known.retain(|id| *id != self.correlation_id);
            if known.is_empty() {
                waiting.by_field.remove(field);
            }
        }
    }
}

fn unwrap_reply(reply: Result<Reply, oneshot::error::RecvError>) -> Reply {
    reply.unwrap_or_else(|_| {
        Err(CallError::Unavailable {
            reason: "the call was given up".to_owned(),
        })
    })
}

/// What a message that could not be handed over means to the one who waits for the answer.
pub(crate) fn call_error(error: PublishError, to: &Address) -> CallError {
    match error {
        PublishError::Unroutable(_) => match to {
            Address::Any(worker_type) => CallError::UnknownType {
                worker_type: worker_type.to_string(),
            },
            Address::One(id) => CallError::NoLiveWorker {
                address: id.to_string(),
            },
        },
        PublishError::QueueFull(_) => CallError::QueueFull {
            worker_type: to.worker_type().to_string(),
        },
        PublishError::TooLarge { .. } => CallError::Invalid {
            reason: error.to_string(),
        },
        // The reason names the broker and its user: that is for the log and `/readyz`, and not for
        // whoever sent a request.
        PublishError::Unavailable(_) => CallError::Unavailable {
            reason: "the broker is out of reach or did not confirm in time".to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use warren_bus::EmbeddedBroker;
    use warren_protocol::{Payload, Slip, Stop, WorkerType};

    use super::*;

    struct Fixture {
        calls: Calls,
        bus: Arc<dyn Bus>,
        caller: WorkerId,
    }

    fn fixture() -> Fixture {
        let (bus, _inbox) = EmbeddedBroker::default().connect("test");
        let bus: Arc<dyn Bus> = Arc::new(bus);
        let metrics = Arc::new(Metrics::new().unwrap());
        Fixture {
            calls: Calls::new(
                bus.clone(),
                Encoding::Json,
                metrics,
                Some("resId".to_owned()),
            ),
            bus,
            caller: WorkerId::draw(&WorkerType::new("WA").unwrap()),
        }
    }

    fn call(to: &str, timeout: Duration) -> Call {
        let data = Payload::new(Encoding::Json, Bytes::from_static(b"{\"n\":1}")).unwrap();
        Call {
            slip: Slip {
                stops: vec![Stop::new(to)],
                data,
            },
            timeout,
            trace_parent: None,
        }
    }

    #[tokio::test]
    async fn a_call_to_a_type_that_nobody_serves_fails_at_once() {
        let Fixture { calls, caller, .. } = fixture();
        let reply = calls
            .call(&caller, call("WX:*", Duration::from_secs(60)))
            .await;
        let worker_type = "WX".to_owned();
        assert_eq!(reply, Err(CallError::UnknownType { worker_type }));
    }

    #[tokio::test]
    async fn a_reply_wakes_the_call_with_its_correlation_id_once() {
        let Fixture { calls, bus, caller } = fixture();
        let other = WorkerId::draw(&WorkerType::new("WB").unwrap());
        let mut jobs = bus.join(&other, 1).await.unwrap();
        let asking = calls.call(&caller, call("WB:*", Duration::from_secs(60)));
        let answering = async {
            let job = jobs.recv().await.unwrap();
            assert_eq!(job.message.reply_to.as_ref(), Some(&caller));
            let correlation_id = job.message.correlation_id.clone().unwrap();
            let data = Payload::new(Encoding::Json, Bytes::from_static(b"42")).unwrap();
            assert!(calls.resolve(&correlation_id, Ok(data.clone())));
            assert!(!calls.resolve(&correlation_id, Ok(data)));
            job.ack().await.unwrap();
        };
        let (reply, ()) = tokio::join!(asking, answering);
        assert_eq!(
            reply.unwrap().to_bytes().unwrap(),
            Bytes::from_static(b"42")
        );
    }

    #[tokio::test]
    async fn a_call_without_a_reply_ends_at_its_timeout_and_leaves_nothing_behind() {
        let Fixture { calls, bus, caller } = fixture();
        let other = WorkerId::draw(&WorkerType::new("WB").unwrap());
        let _jobs = bus.join(&other, 1).await.unwrap();
        let reply = calls
            .call(&caller, call("WB:*", Duration::from_millis(50)))
            .await;
        let expected = CallError::Timeout {
            address: "WB:*".to_owned(),
            after_ms: 50,
        };
        assert_eq!(reply, Err(expected));
        let waiting = calls.lock();
        assert!(waiting.by_id.is_empty() && waiting.by_field.is_empty());
    }

    #[tokio::test]
    async fn a_node_worker_s_answer_is_known_by_the_field_that_it_carries_along() {
        let Fixture { calls, bus, caller } = fixture();
        let other = WorkerId::draw(&WorkerType::new("WB").unwrap());
        let mut jobs = bus.join(&other, 1).await.unwrap();
        let asking = |res_id: &str| {
            let mut call = call("WB:*", Duration::from_secs(60));
            let data = format!("{{\"resId\":\"{res_id}\"}}").into_bytes();
            call.slip.data = Payload::new(Encoding::Json, data.into()).unwrap();
            calls.call(&caller, call)
        };
        let answering = async {
            for _ in 0..2 {
                jobs.recv().await.unwrap().ack().await.unwrap();
            }
            assert!(calls.is_open("r2") && !calls.is_open("r3"));
            let data = Payload::new(Encoding::Json, Bytes::from_static(b"2")).unwrap();
            assert!(calls.resolve("r2", Ok(data.clone())));
            assert!(!calls.resolve("r2", Ok(data.clone())));
            assert!(calls.resolve("r1", Ok(data)));
        };
        let (one, two, ()) = tokio::join!(asking("r1"), asking("r2"), answering);
        assert!(one.is_ok() && two.is_ok());
        assert!(calls.lock().by_field.is_empty());
    }
}
