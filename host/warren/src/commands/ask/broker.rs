//! Sending and calling on a RabbitMQ, as a client of its own.

use std::time::Duration;

use uuid::Uuid;
use warren_bus::{
    Kind, PublishError,
    operator::{Mailbox, Operator, OperatorError},
};
use warren_protocol::{Address, CallError, Encoding, Payload, Slip, WorkerId, WorkerType};

use crate::{
    calls::{
        call_error,
        reply::{self, Reply},
        request::{Request, millis},
    },
    config::{BrokerUrl, Config},
    desk::SENDER_TYPE,
    run,
};

/// A connection for one command.
pub(in crate::commands) struct Broker {
    pub(in crate::commands) operator: Operator,
    pub(in crate::commands) encoding: Encoding,
    /// The field by which a worker of MicroServices.js' answer is known again.
    peer_field: Option<String>,
    /// Who sends.
    id: WorkerId,
}

impl Broker {
    pub(super) async fn connect(config: &Config, urls: &[BrokerUrl]) -> Result<Self, CallError> {
        let sender = WorkerType::new(SENDER_TYPE);
        let sender = sender.map_err(|error| CallError::Invalid {
            reason: error.to_string(),
        })?;
        let operator = Operator::connect(&run::settings(config, urls, "operator")).await;
        Ok(Self {
            operator: operator.map_err(unusable)?,
            encoding: config.encoding,
            peer_field: config.peer_field(),
            id: WorkerId::draw(&sender),
        })
    }

    pub(super) async fn send(&self, id: &str, slip: Slip) -> Result<(), CallError> {
        let request = Request::new(&self.id, id.to_owned(), slip, self.encoding)?;
        let published = self.operator.publish(&request.message).await;
        published.map_err(|error| refused(error, &request.to))
    }

    pub(super) async fn call(&self, id: &str, slip: Slip, timeout: Duration) -> Reply {
        let correlation_id = Uuid::new_v4().to_string();
        let request = Request::new(&self.id, id.to_owned(), slip, self.encoding)?;
        let mut mailbox = match self.operator.mailbox(&self.id).await {
            Err(OperatorError::Missing { .. }) => {
                let error = PublishError::Unroutable(request.to.to_string());
                return Err(refused(error, &request.to));
            }
            opened => opened.map_err(unusable)?,
        };
        let Request { to, job, message } =
            request.answered_to(&self.id, correlation_id.clone(), timeout);
        let field = self.peer_field.as_ref();
        let known = [
            Some(correlation_id),
            field.and_then(|field| job.data.text_field(field)),
        ];
        let exchange = async {
            let reply = answer(&mut mailbox, &known);
            tokio::pin!(reply);
            tokio::select! {
                biased;
                reply = &mut reply => return reply,
                published = self.operator.publish(&message) => {
                    published.map_err(|error| refused(error, &to))?;
                }
            }
            tokio::select! {
                biased;
                reply = &mut reply => reply,
                () = self.desertion(&to) => Err(CallError::NoLiveWorker { address: to.to_string() }),
            }
        };
        let replied = tokio::time::timeout(timeout, exchange).await;
        replied.unwrap_or_else(|_| {
            Err(CallError::Timeout {
                address: to.to_string(),
                after_ms: millis(timeout),
            })
        })
    }

    /// Returns when nobody is there to answer.
    async fn desertion(&self, to: &Address) {
        match to {
            Address::Any(worker_type) => self.operator.absence(worker_type).await,
            Address::One(_) => std::future::pending().await,
        }
    }

    pub(super) async fn close(self) {
        self.operator.close().await;
    }
}

/// The answer to the call that is known by one of these texts.
async fn answer(mailbox: &mut Mailbox, known: &[Option<String>]) -> Result<Payload, CallError> {
    loop {
        let message = mailbox.next().await.map_err(unusable)?;
        let is_answer = match message.kind {
            Kind::Reply | Kind::Error => true,
            Kind::Job => reply::is_answer_of_a_peer(&message),
            Kind::Bundle => false,
        };
        if is_answer && message.correlation_id.is_some() && known.contains(&message.correlation_id)
        {
            return reply::read(&message);
        }
    }
}

/// As for the callers in a host, but a person may see what is wrong with the broker.
pub(in crate::commands) fn refused(error: PublishError, to: &Address) -> CallError {
    match error {
        PublishError::Unavailable(reason) => CallError::Unavailable { reason },
        error => call_error(error, to),
    }
}

pub(in crate::commands) fn unusable(error: OperatorError) -> CallError {
    match error {
        OperatorError::Config(error) => CallError::Invalid {
            reason: error.to_string(),
        },
        error => CallError::Unavailable {
            reason: error.to_string(),
        },
    }
}
