//! A bus of either kind with any number of hosts on it, and what the cases do with them.

use std::{ops::Deref, sync::Arc};

use futures_util::future::join_all;
use lapin::{Connection, ConnectionProperties, options::BasicGetOptions, types::AMQPValue};
use warren_bus::{
    Bus, Delivery, EmbeddedBroker, Inbox, Message, RabbitMq, RabbitMqConfig, Subscription,
};
use warren_protocol::{Address, Encoding, WorkerId, WorkerType};
use warren_tests::{broker, eventually, soon};

/// A bus with any number of hosts on it.
pub(crate) enum World {
    Embedded(EmbeddedBroker),
    RabbitMq(String),
}

/// One host of it.
pub(crate) struct Host {
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) inbox: Inbox,
}

/// A dead letter, as it is kept.
#[derive(Debug, PartialEq)]
pub(crate) struct Grave {
    pub(crate) id: String,
    pub(crate) body: Vec<u8>,
    pub(crate) reason: String,
    pub(crate) error: String,
    pub(crate) plugin: String,
    pub(crate) host: String,
}

impl World {
    pub(crate) fn embedded() -> Self {
        Self::Embedded(EmbeddedBroker::default())
    }

    pub(crate) async fn rabbitmq() -> Self {
        Self::RabbitMq(broker::shared().await)
    }

    pub(crate) async fn host(&self) -> Host {
        let name = new_worker().worker_type().to_string();
        let (bus, inbox): (Arc<dyn Bus>, Inbox) = match self {
            Self::Embedded(broker) => {
                let (bus, inbox) = broker.connect(&name);
                (Arc::new(bus), inbox)
            }
            Self::RabbitMq(url) => {
                let config = RabbitMqConfig::new(vec![url.clone()], name);
                let (bus, inbox) = RabbitMq::connect(config).unwrap();
                (Arc::new(bus), inbox)
            }
        };
        let mut health = bus.health();
        let connected = health.wait_for(|health| health.connected);
        soon("the bus connects", connected).await.unwrap();
        Host { bus, inbox }
    }

    pub(crate) async fn dead_letter(&self, worker_type: &WorkerType) -> Grave {
        match self {
            Self::Embedded(broker) => {
                let letter = eventually("a dead letter", async || {
                    broker.dead_letters(worker_type).pop()
                });
                let (message, epitaph) = letter.await;
                Grave {
                    id: message.id,
                    body: message.body.to_vec(),
                    reason: epitaph.reason.to_owned(),
                    error: epitaph.error,
                    plugin: epitaph.plugin.unwrap_or_default(),
                    host: epitaph.host,
                }
            }
            Self::RabbitMq(url) => {
                let options = ConnectionProperties::default();
                let connection = Connection::connect(url, options).await.unwrap();
                let channel = connection.create_channel().await.unwrap();
                let queue = format!("warren.v1.dlq.{worker_type}");
                let letter = eventually("a dead letter", async || {
                    let options = BasicGetOptions::default();
                    channel
                        .basic_get(queue.as_str().into(), options)
                        .await
                        .unwrap()
                });
                let letter = letter.await.delivery;
                let headers = letter.properties.headers().clone().unwrap();
                let header = |name: &str| match headers.inner().get(name) {
                    Some(AMQPValue::LongString(text)) => text.to_string(),
                    None => String::new(),
                    other => panic!("header {name} is {other:?}"),
                };
                Grave {
                    id: letter.properties.message_id().clone().unwrap().to_string(),
                    reason: header("x-warren-reason"),
                    error: header("x-warren-error"),
                    plugin: header("x-warren-plugin"),
                    host: header("x-warren-host"),
                    body: letter.data,
                }
            }
        }
    }
}

impl Deref for Host {
    type Target = dyn Bus;

    fn deref(&self) -> &Self::Target {
        &*self.bus
    }
}

/// A worker of a type that no other test has.
pub(crate) fn new_worker() -> WorkerId {
    let digits = WorkerId::draw(&WorkerType::new("T").unwrap());
    let name = digits.as_str().replace(':', "");
    WorkerId::draw(&WorkerType::new(&name).unwrap())
}

/// Another worker of the same type.
pub(crate) fn another(worker: &WorkerId) -> WorkerId {
    WorkerId::draw(worker.worker_type())
}

pub(crate) fn job(worker: &WorkerId, body: impl Into<Vec<u8>>) -> Message {
    Message::new(
        new_worker().to_string(),
        Address::Any(worker.worker_type().clone()),
        Encoding::Json,
        body.into().into(),
    )
}

/// Publishes jobs `0` to `n - 1`, many at once.
pub(crate) async fn publish_all(host: &Host, worker: &WorkerId, n: usize) {
    let publishes = (0..n).map(|n| host.publish(job(worker, n.to_string())));
    for result in join_all(publishes).await {
        result.unwrap();
    }
}

pub(crate) async fn next(deliveries: &mut Subscription) -> Delivery {
    soon("a delivery", deliveries.recv())
        .await
        .expect("the subscription has ended")
}

pub(crate) async fn take(deliveries: &mut Subscription, n: usize) -> Vec<Delivery> {
    let mut taken = Vec::with_capacity(n);
    for _ in 0..n {
        taken.push(next(deliveries).await);
    }
    taken
}

pub(crate) fn text(delivery: &Delivery) -> String {
    String::from_utf8(delivery.message.body.to_vec()).unwrap()
}
