//! Speaking on `notifications` as the peers there do: transient, unconfirmed, an empty table of
//! headers. The application's name is the one thing that is ours: no peer looks at it, and a gateway
//! knows by it what hosts have said.

use lapin::{
    BasicProperties, Channel, Connection, options::BasicPublishOptions, types::FieldTable,
};

use crate::rabbitmq::{
    bounded::{Failure, STEP_TIMEOUT, WRITE_TIMEOUT, within},
    names::NOTIFICATIONS,
    topology,
    wire::APP_ID,
};

/// One channel on which announcements, jobs and acknowledgements for peers go out.
pub(in crate::rabbitmq) struct Voice(Channel);

impl Voice {
    /// Declares the exchange of the peers, and speaks there.
    pub(in crate::rabbitmq) async fn open(connection: &Connection) -> Result<Self, Failure> {
        let opened = connection.create_channel();
        let channel = within(STEP_TIMEOUT, "open a channel", opened).await?;
        topology::declare(&channel, &topology::peers_exchange(NOTIFICATIONS)).await?;
        Ok(Self(channel))
    }

    /// Whether it can still be heard.
    pub(in crate::rabbitmq) fn is_open(&self) -> bool {
        self.0.status().connected()
    }

    /// Says something to everybody.
    pub(in crate::rabbitmq) async fn say(&self, key: &str, body: &[u8]) -> Result<(), Failure> {
        let sent = self.0.basic_publish(
            NOTIFICATIONS.into(),
            key.into(),
            BasicPublishOptions::default(),
            body,
            properties(),
        );
        within(WRITE_TIMEOUT, "say something to the peers", sent)
            .await
            .map(drop)
    }
}

/// The properties of everything that a host says to peers.
pub(in crate::rabbitmq) fn properties() -> BasicProperties {
    BasicProperties::default()
        .with_headers(FieldTable::default())
        .with_app_id(APP_ID.into())
}

/// Whether a host has said it.
pub(in crate::rabbitmq) fn is_ours(properties: &BasicProperties) -> bool {
    let app_id = properties.app_id().as_ref();
    app_id.is_some_and(|app_id| app_id.as_str() == APP_ID)
}
