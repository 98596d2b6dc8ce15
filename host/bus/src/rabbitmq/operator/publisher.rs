//! Many messages on one channel, their confirms taken as they come: what puts a load on a broker.
//!
//! A host has one message on a channel at a time, because the broker gives back what nobody receives
//! without saying which confirm that belongs to. Here all messages go to one address, so whichever
//! confirm it comes with says what is true of all of them.

use lapin::{
    Channel,
    options::{BasicPublishOptions, ConfirmSelectOptions},
};

use super::{
    super::{
        bounded::{Failure, STEP_TIMEOUT, within},
        names::JOBS,
        publish::{self, Parcel},
        wire,
    },
    Operator, OperatorError,
};
use crate::{Message, PublishError};

/// A channel for many messages to one address.
pub struct Publisher {
    channel: Channel,
    max_message_bytes: usize,
}

impl Operator {
    /// Opens a channel for many messages to one address.
    ///
    /// # Errors
    /// When the broker refuses or does not answer.
    pub async fn publisher(&self) -> Result<Publisher, OperatorError> {
        let opened = self.publishing.create_channel();
        let channel = within(STEP_TIMEOUT, "open a channel", opened).await?;
        let answer = channel.confirm_select(ConfirmSelectOptions::default());
        within(STEP_TIMEOUT, "ask for confirms", answer).await?;
        Ok(Publisher {
            channel,
            max_message_bytes: self.max_message_bytes,
        })
    }
}

impl Publisher {
    /// Writes a message when it is first polled, and ends when the broker has stored it where its
    /// receiver gets it. Any number may be under way. Has no bound in time: whoever waits has one.
    ///
    /// # Errors
    /// As [`Operator::publish`]. After one that is too large, the channel is closed.
    pub fn publish(
        &self,
        message: Message,
    ) -> impl Future<Output = Result<(), PublishError>> + Send + use<> {
        let (channel, limit) = (self.channel.clone(), self.max_message_bytes);
        async move {
            let size = message.body.len();
            if size > limit {
                return Err(PublishError::TooLarge { size, limit });
            }
            let key = message.to.to_string();
            let parcel = Parcel {
                exchange: JOBS.into(),
                key: &key,
                body: &message.body,
                properties: wire::properties(&message)?,
            };
            let options = BasicPublishOptions {
                mandatory: true,
                ..BasicPublishOptions::default()
            };
            let written = channel.basic_publish(
                parcel.exchange.clone(),
                parcel.key.into(),
                options,
                parcel.body,
                parcel.properties.clone(),
            );
            let confirmed = async { written.await?.await };
            match confirmed.await {
                Ok(confirmation) => publish::verdict(confirmation, parcel.key),
                Err(error) => Err(refused(Failure::Refused("publish", error), &parcel)),
            }
        }
    }
}

fn refused(failure: Failure, parcel: &Parcel<'_>) -> PublishError {
    if failure.is_mismatch() {
        publish::too_large(&failure, parcel)
    } else {
        PublishError::Unavailable(failure.to_string())
    }
}
