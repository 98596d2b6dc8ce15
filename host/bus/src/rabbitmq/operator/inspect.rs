//! What of the topology is there, and as it should be. Looking changes nothing.
//!
//! First it is asked for passively: an answer of 404 means that it is missing. What is there is then
//! declared with our arguments, which does nothing when they are the same and is refused with 406,
//! in words that name the difference, when they are not. (Should somebody delete it in between, it
//! would be made. AMQP has no way of comparing without.) Bindings cannot be seen over AMQP at all.

use lapin::{
    Channel, ExchangeKind,
    options::ExchangeDeclareOptions,
    types::{FieldTable, ShortString},
};
use warren_protocol::WorkerType;

use super::{
    super::{
        bounded::{Failure, STEP_TIMEOUT, within},
        topology::{self, Entity},
    },
    Operator, OperatorError,
};

/// One thing that is to be on the broker, and what was seen of it.
#[derive(Clone, Debug)]
pub struct Finding {
    /// What it is.
    pub thing: Thing,
    /// What was seen.
    pub state: State,
    /// The type that it belongs to; `None` for what every host needs.
    pub worker_type: Option<WorkerType>,
    entity: Entity,
}

/// A part of the topology.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Thing {
    /// An exchange of this name.
    Exchange(String),
    /// A queue or stream of this name.
    Queue(String),
    /// A queue's place on an exchange.
    Binding {
        /// Where messages come from.
        exchange: String,
        /// With which key.
        key: String,
        /// Where they go.
        queue: String,
    },
}

/// What was seen of a part of the topology.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// There, with the arguments that it should have.
    Right,
    /// Not there.
    Missing,
    /// There with other properties: the broker's words.
    Differs(String),
    /// This user may not know: the broker's words.
    Refused(String),
    /// AMQP does not show it.
    Unseen,
}

impl Operator {
    /// Looks at everything that these types and every host need.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn inspect(&self, types: &[WorkerType]) -> Result<Vec<Finding>, OperatorError> {
        let common = topology::common().into_iter().map(|entity| (None, entity));
        let own = types.iter().flat_map(|worker_type| {
            let own = topology::of_type(worker_type).into_iter();
            own.map(|entity| (Some(worker_type.clone()), entity))
        });
        let mut channel = self.channel().await?;
        let mut findings = Vec::new();
        for (worker_type, entity) in common.chain(own) {
            let state = match see(&channel, &entity).await {
                Ok(state) => state,
                Err(failure) => {
                    let state = State::of(&failure).ok_or(failure)?;
                    // The refusal has ended it.
                    channel = self.channel().await?;
                    state
                }
            };
            findings.push(Finding {
                thing: Thing::of(&entity),
                state,
                worker_type,
                entity,
            });
        }
        topology::close(&channel).await;
        Ok(findings)
    }

    /// Declares what is missing, and every binding of what is there. Deletes nothing. Returns what
    /// was declared.
    ///
    /// # Errors
    /// When the broker refuses one, or does not answer. Those before it are declared by then.
    pub async fn apply(&self, findings: &[Finding]) -> Result<Vec<Thing>, OperatorError> {
        let channel = self.channel().await?;
        let mut declared = Vec::new();
        for finding in findings {
            if matches!(finding.state, State::Missing | State::Unseen) {
                topology::declare(&channel, &finding.entity).await?;
                declared.push(finding.thing.clone());
            }
        }
        topology::close(&channel).await;
        Ok(declared)
    }
}

impl Thing {
    fn of(entity: &Entity) -> Self {
        let text = |name: &ShortString| name.as_str().to_owned();
        match entity {
            Entity::Exchange { name, .. } => Self::Exchange(text(name)),
            Entity::Queue { name, .. } => Self::Queue(text(name)),
            Entity::Binding {
                queue,
                exchange,
                key,
            } => Self::Binding {
                exchange: text(exchange),
                key: text(key),
                queue: text(queue),
            },
        }
    }
}

impl State {
    /// What a refusal says about the thing that was asked for. `None`: nothing, the link is at fault.
    fn of(failure: &Failure) -> Option<Self> {
        if failure.is_not_found() {
            Some(Self::Missing)
        } else if failure.is_mismatch() {
            Some(Self::Differs(failure.to_string()))
        } else if failure.is_access_refused() {
            Some(Self::Refused(failure.to_string()))
        } else {
            None
        }
    }
}

/// Looks at one thing. A refusal, which ends the channel, is an error here.
async fn see(channel: &Channel, entity: &Entity) -> Result<State, Failure> {
    match entity {
        Entity::Exchange { name, kind, .. } => {
            look_at_exchange(channel, name.clone(), kind.clone()).await?;
        }
        Entity::Queue { name, .. } => {
            topology::look(channel, name.clone()).await?;
        }
        Entity::Binding { .. } => return Ok(State::Unseen),
    }
    topology::declare(channel, entity).await?;
    Ok(State::Right)
}

pub(super) async fn look_at_exchange(
    channel: &Channel,
    name: ShortString,
    kind: ExchangeKind,
) -> Result<(), Failure> {
    let options = ExchangeDeclareOptions {
        passive: true,
        ..ExchangeDeclareOptions::default()
    };
    let answer = channel.exchange_declare(name, kind, options, FieldTable::default());
    within(STEP_TIMEOUT, "look at an exchange", answer).await
}
