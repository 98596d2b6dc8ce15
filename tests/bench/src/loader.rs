//! Puts jobs on the broker and takes the replies, in the message format of each contender.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesUnordered};
use hdrhistogram::Histogram;
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer,
    ExchangeKind,
    message::Delivery,
    options::{
        BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions,
        QueueBindOptions, QueueDeclareOptions, QueuePurgeOptions,
    },
    types::{AMQPValue, FieldTable, LongString, ShortString},
};
use serde_json::json;
use tokio::time::{sleep_until, timeout};

use crate::work;

/// The exchange of a host's jobs and replies; the other contenders use it as well.
pub(crate) const JOBS: &str = "warren.v1.jobs";
/// Who asks: an address of a worker, since replies go to one.
const SENDER: &str = "BENCH:1795220941865";
/// Publishes that wait for their confirm at the same time.
const WINDOW: usize = 1000;
/// How long an answer may take before the whole measurement is given up.
const PATIENCE: Duration = Duration::from_secs(20);

/// How a contender wants its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// A job of Warren.
    Warren,
    /// A task of Celery.
    Celery,
}

/// Where jobs go.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) queue: String,
    pub(crate) exchange: &'static str,
    pub(crate) key: String,
    pub(crate) format: Format,
    /// What a job carries.
    pub(crate) data: serde_json::Value,
}

/// One connection that sends and asks.
pub(crate) struct Loader {
    channel: Channel,
    replies: Consumer,
    reply_queue: ShortString,
    /// Counts what is asked for a while: the answer to an earlier one comes twice where a contender was
    /// ended before its acknowledgement had arrived.
    phase: usize,
    _connection: Connection,
}

/// What asking for a while has shown.
pub(crate) struct Asked {
    /// From the moment at which a job was due to its reply, in microseconds.
    pub(crate) latency: Histogram<u64>,
    /// Replies in a second.
    pub(crate) rate: f64,
}

impl Loader {
    pub(crate) async fn connect(url: &str) -> Result<Self> {
        let connection = Connection::connect(url, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        let durable = ExchangeDeclareOptions {
            durable: true,
            ..ExchangeDeclareOptions::default()
        };
        let none = FieldTable::default;
        channel
            .exchange_declare(JOBS.into(), ExchangeKind::Direct, durable, none())
            .await?;
        let exclusive = QueueDeclareOptions {
            exclusive: true,
            ..QueueDeclareOptions::default()
        };
        let inbox = channel.queue_declare("".into(), exclusive, none()).await?;
        let reply_queue = inbox.name().clone();
        let options = QueueBindOptions::default();
        channel
            .queue_bind(
                reply_queue.clone(),
                JOBS.into(),
                SENDER.into(),
                options,
                none(),
            )
            .await?;
        let options = BasicConsumeOptions {
            no_ack: true,
            ..BasicConsumeOptions::default()
        };
        let replies = channel
            .basic_consume(reply_queue.clone(), "bench".into(), options, none())
            .await?;
        Ok(Self {
            channel,
            replies,
            reply_queue,
            phase: 0,
            _connection: connection,
        })
    }

    /// Declares the durable queue of a contender that does not declare its own.
    pub(crate) async fn declare(&self, target: &Target) -> Result<()> {
        let mut arguments = FieldTable::default();
        let kind = AMQPValue::LongString(LongString::from("quorum"));
        arguments.insert("x-queue-type".into(), kind);
        let options = QueueDeclareOptions {
            durable: true,
            ..QueueDeclareOptions::default()
        };
        let queue: ShortString = target.queue.as_str().into();
        self.channel
            .queue_declare(queue.clone(), options, arguments)
            .await?;
        if target.exchange == JOBS {
            let (options, none) = (QueueBindOptions::default(), FieldTable::default());
            self.channel
                .queue_bind(
                    queue,
                    JOBS.into(),
                    target.key.as_str().into(),
                    options,
                    none,
                )
                .await?;
        }
        Ok(())
    }

    /// How many jobs are ready in the queue.
    pub(crate) async fn n_ready(&self, queue: &str) -> Result<u32> {
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let none = FieldTable::default();
        let queue = self
            .channel
            .queue_declare(queue.into(), options, none)
            .await?;
        Ok(queue.message_count())
    }

    pub(crate) async fn purge(&self, queue: &str) -> Result<()> {
        let options = QueuePurgeOptions::default();
        self.channel.queue_purge(queue.into(), options).await?;
        Ok(())
    }

    /// Puts so many jobs without a reply into the queue; returns when the broker has confirmed all.
    pub(crate) async fn fill(&self, target: &Target, n: usize) -> Result<()> {
        let letter = Letter::new(target, None);
        let mut confirms = FuturesUnordered::new();
        for index in 0..n {
            if confirms.len() >= WINDOW {
                taken(confirms.next().await.transpose()?)?;
            }
            confirms.push(self.publish(target, &letter, index).await?);
        }
        while let Some(confirm) = confirms.next().await {
            taken(Some(confirm?))?;
        }
        Ok(())
    }

    /// Asks until `until`, with so many questions open at all times.
    pub(crate) async fn ask_always(
        &mut self,
        target: &Target,
        n_open: usize,
        until: Duration,
    ) -> Result<Asked> {
        self.phase += 1;
        let letter = Letter::new(target, Some(self.reply_to(target)));
        let (begun, mut asked) = (Instant::now(), Vec::new());
        let mut latency = histogram()?;
        let mut n_answered = 0;
        let mut confirms = FuturesUnordered::new();
        while n_answered < asked.len() || begun.elapsed() < until {
            while asked.len() - n_answered < n_open && begun.elapsed() < until {
                let index = asked.len();
                asked.push(Instant::now());
                confirms.push(self.publish(target, &letter, index).await?);
            }
            tokio::select! {
                biased;
                answer = self.answer() => {
                    note(&mut latency, &asked, answer?)?;
                    n_answered += 1;
                }
                Some(confirm) = confirms.next(), if !confirms.is_empty() => taken(Some(confirm?))?,
            }
        }
        let rate = n_answered as f64 / begun.elapsed().as_secs_f64();
        Ok(Asked { latency, rate })
    }

    /// Asks at a rate, whether answers come or not: what a stall delays counts from the moment at
    /// which it was due.
    pub(crate) async fn ask_at(
        &mut self,
        target: &Target,
        rate: f64,
        during: Duration,
    ) -> Result<Asked> {
        self.phase += 1;
        let letter = Letter::new(target, Some(self.reply_to(target)));
        let n = (rate * during.as_secs_f64()).max(1.0) as usize;
        let begun = Instant::now();
        let due: Vec<Instant> = (0..n)
            .map(|index| begun + Duration::from_secs_f64(index as f64 / rate))
            .collect();
        let (mut n_sent, mut n_answered) = (0, 0);
        let mut latency = histogram()?;
        let mut confirms = FuturesUnordered::new();
        while n_answered < n {
            while let Some(moment) = due.get(n_sent)
                && *moment <= Instant::now()
            {
                confirms.push(self.publish(target, &letter, n_sent).await?);
                n_sent += 1;
            }
            let next = due.get(n_sent).copied();
            tokio::select! {
                biased;
                answer = self.answer() => {
                    note(&mut latency, &due, answer?)?;
                    n_answered += 1;
                }
                Some(confirm) = confirms.next(), if !confirms.is_empty() => taken(Some(confirm?))?,
                () = sleep_until(next.unwrap_or(begun).into()), if next.is_some() => {}
            }
        }
        let rate = n_answered as f64 / begun.elapsed().as_secs_f64();
        Ok(Asked { latency, rate })
    }

    fn reply_to(&self, target: &Target) -> ShortString {
        match target.format {
            Format::Warren => SENDER.into(),
            Format::Celery => self.reply_queue.clone(),
        }
    }

    /// The number of the question that has been answered.
    async fn answer(&mut self) -> Result<usize> {
        loop {
            let answer = timeout(PATIENCE, self.replies.next()).await;
            let answer = answer.context("no reply came for 20 s")?;
            let answer = answer.context("the broker has ended the inbox")??;
            if let Some(index) = self.question(&answer)? {
                return Ok(index);
            }
        }
    }

    /// The number of the question that this answers; `None` where it is of an earlier phase.
    fn question(&self, answer: &Delivery) -> Result<Option<usize>> {
        let properties = &answer.properties;
        if properties
            .kind()
            .as_ref()
            .is_some_and(|kind| kind.as_str() == "error")
        {
            bail!("an error came: {}", String::from_utf8_lossy(&answer.data));
        }
        let id = properties.correlation_id().as_ref();
        let numbers = id.and_then(|id| id.as_str().strip_prefix("bench-")?.split_once('-'));
        let numbers =
            numbers.and_then(|(phase, index)| Some((phase.parse().ok()?, index.parse().ok()?)));
        let (phase, index): (usize, usize) =
            numbers.context("a reply without the number of its question")?;
        Ok((phase == self.phase).then_some(index))
    }

    async fn publish(
        &self,
        target: &Target,
        letter: &Letter,
        index: usize,
    ) -> Result<lapin::PublisherConfirm> {
        // A form that Celery takes as well.
        let id: ShortString = format!("bench-{}-{index}", self.phase).into();
        let mut properties = letter.properties.clone().with_message_id(id.clone());
        if target.format == Format::Celery || letter.asks {
            properties = properties.with_correlation_id(id.clone());
        }
        if target.format == Format::Celery {
            let id = AMQPValue::LongString(LongString::from(id.as_str()));
            let mut headers = properties.headers().clone().unwrap_or_default();
            headers.insert("id".into(), id.clone());
            headers.insert("root_id".into(), id);
            properties = properties.with_headers(headers);
        }
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let (exchange, key) = (target.exchange.into(), target.key.as_str().into());
        let sent = self
            .channel
            .basic_publish(exchange, key, options, &letter.body, properties);
        Ok(sent.await?)
    }
}

/// What all messages for a target have in common.
struct Letter {
    properties: BasicProperties,
    body: Bytes,
    asks: bool,
}

impl Letter {
    fn new(target: &Target, reply_to: Option<ShortString>) -> Self {
        const PERSISTENT: u8 = 2;
        let mut properties = BasicProperties::default()
            .with_delivery_mode(PERSISTENT)
            .with_content_type("application/json".into());
        let asks = reply_to.is_some();
        if let Some(reply_to) = reply_to {
            properties = properties.with_reply_to(reply_to);
        }
        let body = match target.format {
            Format::Warren => {
                properties = properties.with_type("job".into());
                work::envelope(&target.key, SENDER, &target.data)
            }
            Format::Celery => {
                let text = |text: &str| AMQPValue::LongString(LongString::from(text));
                let mut headers = FieldTable::default();
                headers.insert("lang".into(), text("py"));
                headers.insert("task".into(), text("tally.run"));
                headers.insert("ignore_result".into(), AMQPValue::Boolean(!asks));
                properties = properties
                    .with_content_encoding("utf-8".into())
                    .with_headers(headers);
                let embedded =
                    json!({"callbacks": null, "errbacks": null, "chain": null, "chord": null});
                Bytes::from(json!([[target.data], {}, embedded]).to_string())
            }
        };
        Self {
            properties,
            body,
            asks,
        }
    }
}

fn taken(confirmation: Option<Confirmation>) -> Result<()> {
    match confirmation {
        Some(Confirmation::Ack(None)) | None => Ok(()),
        Some(other) => bail!("the broker did not take a job: {other:?}"),
    }
}

/// Three digits, up to a minute.
fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 60_000_000, 3)?)
}

fn note(latency: &mut Histogram<u64>, due: &[Instant], index: usize) -> Result<()> {
    let due = due.get(index).context("a reply to no question")?;
    let micros = u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX);
    latency.saturating_record(micros.max(1));
    Ok(())
}
