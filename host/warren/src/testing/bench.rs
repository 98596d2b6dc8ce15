//! The bus of a case: an embedded broker that has the worker under test, and around it, in the place
//! of all other workers, what the case says that they answer. What the worker's host hands over is
//! taken and kept here, as a broker takes it; what comes back goes over the broker, to the host's own
//! inbox.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::{Notify, watch};
use warren_bus::{
    Bus, Delivery, Embedded, Epitaph, Health, JoinError, Kind, Message, PublishError, Subscription,
};
use warren_protocol::{
    Address, CallError, Encoding, ErrorTarget, Identity, Job, JobError, Payload, Stop, WorkerId,
    WorkerType,
};

use super::case::{Answer, Call, Fault};

/// What the others do, and what they have seen. Shared by the hosts of one case.
pub(super) struct Script {
    state: Mutex<State>,
    /// Told at every change.
    pub(super) changed: Notify,
}

#[derive(Default)]
struct State {
    plan: Vec<Call>,
    next: usize,
    seen: Seen,
    /// Parts of bundles that are on their way.
    open: HashSet<String>,
    /// The host ends at the next message that it hands over for a job.
    crashes: bool,
    has_crashed: bool,
    /// The last attempt of a job that the case waits for.
    last_attempt: u32,
    /// It ends at this call, from 1.
    crashes_at_call: Option<u32>,
    absent: HashSet<WorkerType>,
}

/// What the others have seen of the worker.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// Its calls, in order.
    pub(super) calls: Vec<Asked>,
    /// What else it has handed over: jobs and replies, in order.
    pub(super) handed: Vec<Message>,
    /// The job, if it was given up.
    pub(super) buried: Option<Epitaph>,
}

/// A call of the worker.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) stops: Vec<String>,
    pub(super) data: Payload,
}

impl Script {
    pub(super) fn new(plan: Vec<Call>, last_attempt: u32, fault: Fault) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                plan,
                last_attempt,
                crashes: fault == Fault::Crash,
                crashes_at_call: match fault {
                    Fault::CrashAtCall(n) => Some(n),
                    _ => None,
                },
                ..State::default()
            }),
            changed: Notify::new(),
        })
    }

    /// What was seen since the last time. The calls are answered from the first one on again.
    pub(super) fn take(&self) -> Seen {
        let mut state = self.lock();
        state.next = 0;
        std::mem::take(&mut state.seen)
    }

    /// Whether a host has ended in the middle.
    pub(super) fn has_crashed(&self) -> bool {
        self.lock().has_crashed
    }

    /// Another host goes on.
    pub(super) fn recover(&self) {
        self.lock().has_crashed = false;
    }

    /// Whether everything that was handed over together has been taken apart.
    pub(super) fn is_settled(&self) -> bool {
        self.lock().open.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One host's place on the bus of a case.
pub(super) struct Bench {
    inner: Arc<Embedded>,
    script: Arc<Script>,
    worker_type: WorkerType,
    encoding: Encoding,
}

impl Bench {
    pub(super) fn new(
        inner: Embedded,
        script: Arc<Script>,
        worker_type: WorkerType,
        encoding: Encoding,
    ) -> Self {
        Self {
            inner: Arc::new(inner),
            script,
            worker_type,
            encoding,
        }
    }

    /// Brings the worker a message.
    pub(super) async fn deliver(&self, message: Message) -> Result<(), PublishError> {
        self.inner.publish(message).await
    }

    /// A call of the worker under test: its host waits for the answer under the worker's own id.
    fn caller(&self, message: &Message) -> Option<WorkerId> {
        let caller = message.reply_to.clone();
        caller.filter(|id| message.kind == Kind::Job && *id.worker_type() == self.worker_type)
    }

    async fn answer_call(&self, message: &Message, caller: WorkerId) -> Result<(), PublishError> {
        let Ok(job) = message.encoding.decode_job(&message.body) else {
            return Ok(()); // The host has written it a moment ago.
        };
        let (planned, crashes) = {
            let mut state = self.script.lock();
            let planned = state.plan.get(state.next).cloned();
            state.next += 1;
            state.seen.calls.push(Asked {
                stops: stops(&job.route),
                data: job.data.clone(),
            });
            let crashes = state.crashes_at_call.map(|n| n as usize) == Some(state.next);
            if crashes {
                (state.crashes_at_call, state.has_crashed) = (None, true);
            }
            (planned, crashes)
        };
        self.script.changed.notify_waiters();
        if crashes {
            self.inner.close().await;
            return Ok(());
        }
        let address = message.to.to_string();
        let (answer, delay) = match planned {
            Some(call) => (call.answer, call.delay),
            None => {
                let reason = "the case expects no further call".to_owned();
                (Answer::Failed(reason), Duration::ZERO)
            }
        };
        let answer = match answer {
            Answer::UnknownType => return Err(PublishError::Unroutable(address)),
            Answer::QueueFull => return Err(PublishError::QueueFull(address)),
            Answer::Unavailable => {
                return Err(PublishError::Unavailable("the case says so".to_owned()));
            }
            Answer::NoLiveWorker => {
                let absent = message.to.worker_type().clone();
                self.script.lock().absent.insert(absent);
                return Ok(());
            }
            Answer::Reply(value) => Ok(value.to_string().into_bytes()),
            Answer::Timeout => Err(CallError::Timeout {
                address,
                after_ms: message.deadline_ms.map_or(0, |deadline| {
                    deadline.saturating_sub(crate::clock::now_ms())
                }),
            }),
            Answer::Failed(reason) => Err(CallError::Failed {
                worker: message.to.worker_type().to_string(),
                attempts: 1,
                reason,
            }),
        };
        let Some(reply) = self.reply(message, job, caller, answer) else {
            return Ok(());
        };
        let inner = self.inner.clone();
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            // A caller that is gone needs no answer.
            let _ = inner.publish(reply).await;
        });
        Ok(())
    }

    /// The message that ends a call. `None` where the bus has no form for it.
    fn reply(
        &self,
        asked: &Message,
        job: Job,
        caller: WorkerId,
        answer: Result<Vec<u8>, CallError>,
    ) -> Option<Message> {
        let to = Address::One(caller.clone());
        let (kind, body) = match answer {
            Ok(json) => {
                let data = Payload::new(Encoding::Json, json.into()).ok()?;
                let other = WorkerId::draw(asked.to.worker_type());
                let reply = Job {
                    route: vec![Stop::from(&to)],
                    position: 0,
                    data,
                    sender: Identity::from(&other),
                    id: format!("{}-reply", asked.id),
                };
                (Kind::Reply, self.encoding.encode_job(&reply).ok()?)
            }
            Err(cause) => {
                let error = JobError {
                    target: ErrorTarget::Id(caller.to_string()),
                    error: cause.to_string(),
                    id: job.id,
                    data: job.data,
                    cause: Some(cause),
                    ending: None,
                };
                (Kind::Error, self.encoding.encode_error(&error).ok()?)
            }
        };
        Some(Message {
            kind,
            correlation_id: asked.correlation_id.clone(),
            ..Message::new(format!("{}-reply", asked.id), to, self.encoding, body)
        })
    }

    /// What a run has led to. `true`: the host ends now.
    fn take(&self, message: &Message) -> bool {
        let mut state = self.script.lock();
        if message.kind == Kind::Bundle {
            for part in message.unbundle().unwrap_or_default() {
                state.open.insert(part.id);
            }
        } else {
            state.open.remove(&message.id);
            state.seen.handed.push(message.clone());
        }
        let crashes = std::mem::take(&mut state.crashes);
        state.has_crashed |= crashes;
        crashes
    }
}

/// Stops as they are on the bus: a bare type means any worker of it.
pub(super) fn stops(route: &[Stop]) -> Vec<String> {
    let shown = |stop: &Stop| {
        let address = stop.address().map(|address| address.to_string());
        address.unwrap_or_else(|_| stop.as_str().to_owned())
    };
    route.iter().map(shown).collect()
}

#[async_trait]
impl Bus for Bench {
    async fn join(&self, worker: &WorkerId, prefetch: u16) -> Result<Subscription, JoinError> {
        self.inner.join(worker, prefetch).await
    }

    async fn leave(&self, worker: &WorkerId) {
        self.inner.leave(worker).await;
    }

    async fn forget(&self, worker: &WorkerId) {
        self.inner.forget(worker).await;
    }

    async fn publish(&self, message: Message) -> Result<(), PublishError> {
        if let Some(caller) = self.caller(&message) {
            return self.answer_call(&message, caller).await;
        }
        let is_bundle = message.kind == Kind::Bundle;
        let crashes = self.take(&message);
        // The host's own, which it takes apart itself.
        let taken = if is_bundle {
            self.inner.publish(message).await
        } else {
            Ok(())
        };
        if crashes {
            self.inner.close().await;
        }
        self.script.changed.notify_waiters();
        taken
    }

    /// Nobody waits for the time of another attempt here.
    async fn park(&self, message: Message, _until_ms: u64) -> Result<(), PublishError> {
        {
            let state = self.script.lock();
            if message.attempt > state.last_attempt {
                return Ok(());
            }
        }
        self.inner.park(message, 0).await
    }

    async fn put_back(&self, delivery: Delivery) {
        self.inner.put_back(delivery).await;
    }

    async fn set_prefetch(&self, worker: &WorkerId, prefetch: u16) {
        self.inner.set_prefetch(worker, prefetch).await;
    }

    async fn absence(&self, worker_type: &WorkerType) {
        if !self.script.lock().absent.remove(worker_type) {
            std::future::pending::<()>().await;
        }
    }

    async fn bury(&self, message: Message, epitaph: Epitaph) -> Result<(), PublishError> {
        self.script.lock().seen.buried = Some(epitaph.clone());
        self.inner.bury(message, epitaph).await
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.inner.health()
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}
