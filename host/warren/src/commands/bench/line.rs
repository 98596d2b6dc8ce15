//! The line to the bus: sends the jobs of a measurement by their numbers, and tells what becomes of them.
//!
//! On RabbitMQ all jobs go through one channel and all replies come to one queue; a reply is known by its
//! correlation id, which is the id of its job. On the bus inside a host each open job has a connection to
//! the host's admin port. Nothing here has a bound in time: the course of the measurement has.

use std::{fmt, future::pending, net::SocketAddr, time::Duration};

use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use warren_bus::{
    Kind, Message, PublishError,
    operator::{Mailbox, OperatorError, Publisher},
};
use warren_protocol::{Address, CallError, Encoding, Payload, Slip, Stop, WorkerId, WorkerType};

use super::super::ask::{
    Door,
    broker::{self, Broker},
    host::Host,
};
use crate::{
    calls::{reply, request::Request},
    desk::SENDER_TYPE,
};

/// How long the bus may take to store a job that nobody waits for, and a host beyond its time.
const SILENCE: Duration = Duration::from_secs(40);

/// What every job of a run has in common.
#[derive(Clone)]
pub(super) struct Order {
    /// The id of a job without its number.
    pub(super) prefix: String,
    pub(super) stops: Vec<Stop>,
    pub(super) data: Payload,
    /// How long its reply is waited for; `None` when nobody waits.
    pub(super) timeout: Option<Duration>,
    /// Jobs that may wait for the broker's confirm, each held here until then: one that has been answered, or
    /// that nobody waits for any more, may still be one of them.
    pub(super) max_unconfirmed: usize,
}

impl Order {
    pub(super) fn id(&self, number: impl fmt::Display) -> String {
        format!("{}{number}", self.prefix)
    }

    pub(super) fn slip(&self) -> Slip {
        Slip {
            stops: self.stops.clone(),
            data: self.data.clone(),
        }
    }
}

/// What is heard on a line.
pub(super) enum News {
    /// A job has ended.
    Ended(u64, Result<(), CallError>),
    /// Nothing more will be heard.
    Broken(CallError),
}

/// A line to one of the two.
pub(super) enum Line {
    Broker(Box<ToBroker>),
    Host(ToHost),
}

impl Line {
    /// Opens the line behind a door.
    pub(super) async fn open(
        door: &Door,
        order: Order,
        admin: SocketAddr,
    ) -> Result<Self, CallError> {
        match door {
            Door::Broker(broker) => {
                let line = ToBroker::open(broker, order).await?;
                Ok(Self::Broker(Box::new(line)))
            }
            Door::Host(_) => Ok(Self::Host(ToHost {
                admin,
                order,
                idle: Vec::new(),
                open: FuturesUnordered::new(),
            })),
        }
    }

    /// How long a job may be open.
    pub(super) fn patience(&self) -> Duration {
        match self {
            Self::Broker(line) => line.order.timeout.unwrap_or(SILENCE),
            // The host says itself when the time is up.
            Self::Host(line) => line.order.timeout.unwrap_or_default() + SILENCE,
        }
    }

    /// Sends the job of this number.
    ///
    /// # Errors
    /// What is wrong with every job of this run.
    pub(super) fn send(&mut self, number: u64) -> Result<(), CallError> {
        match self {
            Self::Broker(line) => line.send(number),
            Self::Host(line) => {
                line.send(number);
                Ok(())
            }
        }
    }

    /// What is heard next; nothing ever, while nothing is open.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub(super) async fn next(&mut self) -> News {
        match self {
            Self::Broker(line) => line.next().await,
            Self::Host(line) => line.next().await,
        }
    }

    /// How many answers belonged to no job.
    pub(super) fn n_strays(&self) -> u64 {
        match self {
            Self::Broker(line) => line.n_strays,
            Self::Host(_) => 0,
        }
    }
}

/// A channel for jobs, and a queue for their replies.
pub(super) struct ToBroker {
    publisher: Publisher,
    /// `None` where nobody waits for replies: then a job ends with its confirm.
    mailbox: Option<Mailbox>,
    sender: WorkerId,
    to: Address,
    encoding: Encoding,
    order: Order,
    confirms: FuturesUnordered<BoxFuture<'static, (u64, Result<(), PublishError>)>>,
    n_strays: u64,
}

impl ToBroker {
    async fn open(broker: &Broker, order: Order) -> Result<Self, CallError> {
        let invalid = |reason: String| CallError::Invalid { reason };
        let sender = WorkerType::new(SENDER_TYPE).map_err(|error| invalid(error.to_string()))?;
        // Not that of the first job, whose queue may still be there.
        let sender = WorkerId::draw(&sender);
        let to = order.stops.first().map(Stop::address);
        let Some(Ok(to)) = to else {
            return Err(invalid("there is no stop: name at least one".to_owned()));
        };
        let operator = &broker.operator;
        let mailbox = match order.timeout {
            Some(_) => Some(operator.mailbox(&sender).await.map_err(broker::unusable)?),
            None => None,
        };
        // Once, and not for every job.
        let data = order.data.to(broker.encoding);
        let data = data.map_err(|error| invalid(error.to_string()))?;
        Ok(Self {
            publisher: operator.publisher().await.map_err(broker::unusable)?,
            mailbox,
            sender,
            to,
            encoding: broker.encoding,
            order: Order { data, ..order },
            confirms: FuturesUnordered::new(),
            n_strays: 0,
        })
    }

    fn send(&mut self, number: u64) -> Result<(), CallError> {
        let order = &self.order;
        // A broker that holds publishers back confirms nothing until its alarm is over, and no job after this
        // one would fare better: the whole measurement is broken off.
        if self.confirms.len() >= order.max_unconfirmed {
            return Err(CallError::Unavailable {
                reason: format!(
                    "the broker has {} jobs to confirm and takes no more: look at its alarms (memory, disk)",
                    self.confirms.len()
                ),
            });
        }
        let id = order.id(number);
        let mut request = Request::new(&self.sender, id.clone(), order.slip(), self.encoding)?;
        if let Some(timeout) = order.timeout {
            request = request.answered_to(&self.sender, id, timeout);
        }
        let published = self.publisher.publish(request.message);
        self.confirms
            .push(Box::pin(async move { (number, published.await) }));
        Ok(())
    }

    async fn next(&mut self) -> News {
        loop {
            // A message is written when its future is polled: that comes before what has arrived.
            tokio::select! {
                biased;
                Some((number, published)) = self.confirms.next() => match published {
                    // The reply is to come.
                    Ok(()) if self.mailbox.is_some() => {}
                    published => {
                        let result = published.map_err(|error| broker::refused(error, &self.to));
                        return News::Ended(number, result);
                    }
                },
                message = arrival(&mut self.mailbox) => match message {
                    Err(error) => return News::Broken(broker::unusable(error)),
                    Ok(message) => match ending(&self.order.prefix, &message) {
                        Some((number, result)) => return News::Ended(number, result),
                        None => self.n_strays += 1,
                    },
                },
            }
        }
    }
}

async fn arrival(mailbox: &mut Option<Mailbox>) -> Result<Message, OperatorError> {
    match mailbox {
        Some(mailbox) => mailbox.next().await,
        None => pending().await,
    }
}

/// Which job has ended by this message, and how. What a reply says is not looked at.
fn ending(prefix: &str, message: &Message) -> Option<(u64, Result<(), CallError>)> {
    let number = message.correlation_id.as_deref()?.strip_prefix(prefix)?;
    let result = match message.kind {
        Kind::Reply => Ok(()),
        Kind::Error => reply::read(message).map(drop),
        Kind::Job if reply::is_answer_of_a_peer(message) => Ok(()),
        Kind::Job | Kind::Bundle => return None,
    };
    Some((number.parse().ok()?, result))
}

/// A connection to a host's admin port for each open job.
pub(super) struct ToHost {
    admin: SocketAddr,
    order: Order,
    idle: Vec<Host>,
    open: FuturesUnordered<BoxFuture<'static, Back>>,
}

/// A connection that is free again, and what it was used for.
struct Back {
    host: Host,
    number: u64,
    result: Result<(), CallError>,
}

impl ToHost {
    fn send(&mut self, number: u64) {
        let mut host = self.idle.pop().unwrap_or_else(|| Host::new(self.admin));
        let order = &self.order;
        let (id, slip, timeout) = (order.id(number), order.slip(), order.timeout);
        self.open.push(Box::pin(async move {
            let result = match timeout {
                Some(timeout) => host.call(&id, slip, timeout).await.map(drop),
                None => host.send(&id, slip).await,
            };
            Back {
                host,
                number,
                result,
            }
        }));
    }

    async fn next(&mut self) -> News {
        match self.open.next().await {
            Some(back) => {
                self.idle.push(back.host);
                News::Ended(back.number, back.result)
            }
            None => pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn an_answer_is_known_by_its_correlation_id_and_only_in_its_run() {
        let message = |correlation_id: &str, kind| Message {
            correlation_id: Some(correlation_id.to_owned()),
            kind,
            ..Message::new(
                "m1".to_owned(),
                "WB:*".parse().unwrap(),
                Encoding::Json,
                Bytes::from_static(b"{}"),
            )
        };
        let check = |correlation_id: &str, kind, expected: Option<u64>| {
            let ended = ending("bench-1-", &message(correlation_id, kind));
            assert_eq!(
                ended.map(|(number, _)| number),
                expected,
                "{correlation_id}"
            );
        };
        check("bench-1-17", Kind::Reply, Some(17));
        check("bench-1-17", Kind::Error, Some(17));
        check("bench-1-17", Kind::Job, None);
        check("bench-2-17", Kind::Reply, None);
        check("bench-1-", Kind::Reply, None);
        check("17", Kind::Reply, None);
    }
}
