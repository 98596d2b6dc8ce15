//! The ceiling: a consumer on lapin and nothing else, with the guarantees of a host. A job is
//! acknowledged after its work, and one with a reply after the broker has confirmed the reply.

use anyhow::{Context, Result, bail};
use futures_util::StreamExt;
use lapin::{
    Channel, Confirmation, Connection, ConnectionProperties,
    message::Delivery,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
        ConfirmSelectOptions,
    },
    types::FieldTable,
};

use crate::{
    loader::JOBS,
    work::{self, PREFETCH},
};

/// Works until it is killed.
pub(crate) async fn run(url: &str, queue: &str) -> Result<()> {
    let connect = async || Connection::connect(url, ConnectionProperties::default()).await;
    // Two connections, as RabbitMQ advises: a publisher that is held back must not keep jobs away.
    let (consuming, publishing) = (connect().await?, connect().await?);
    let replies = publishing.create_channel().await?;
    replies
        .confirm_select(ConfirmSelectOptions::default())
        .await?;
    let jobs = consuming.create_channel().await?;
    jobs.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
    let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
    let mut deliveries = jobs
        .basic_consume(queue.into(), "bare".into(), options, none)
        .await?;
    announce();
    while let Some(delivery) = deliveries.next().await {
        let delivery = delivery?;
        if delivery.properties.reply_to().is_none() {
            work::perform(&delivery.data)?;
            delivery.ack(BasicAckOptions::default()).await?;
        } else {
            let replies = replies.clone();
            tokio::spawn(async move {
                if let Err(error) = answer(&replies, delivery).await {
                    complain(&error);
                }
            });
        }
    }
    bail!("the broker has ended the consumer")
}

async fn answer(replies: &Channel, delivery: Delivery) -> Result<()> {
    let body = work::perform(&delivery.data)?;
    let properties = &delivery.properties;
    let to = properties
        .reply_to()
        .clone()
        .context("nobody to reply to")?;
    let mut head = lapin::BasicProperties::default()
        .with_content_type("application/json".into())
        .with_type("reply".into());
    if let Some(id) = properties.correlation_id() {
        head = head.with_correlation_id(id.clone());
    }
    let options = BasicPublishOptions {
        mandatory: true,
        ..BasicPublishOptions::default()
    };
    let confirm = replies.basic_publish(JOBS.into(), to, options, &body, head);
    match confirm.await?.await? {
        Confirmation::Ack(None) => {}
        other => bail!("the reply was not taken: {other:?}"),
    }
    delivery.ack(BasicAckOptions::default()).await?;
    Ok(())
}

#[allow(clippy::print_stdout, reason = "who started it reads this word")]
fn announce() {
    println!("ready");
}

#[allow(
    clippy::print_stderr,
    reason = "a benchmark's own trouble is for a person"
)]
fn complain(error: &anyhow::Error) {
    eprintln!("the bare consumer: {error:#}");
}
