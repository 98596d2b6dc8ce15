//! A dead letter as it is read from a queue or from the log, whoever wrote it.

use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable, ShortString},
};
use warren_protocol::{Address, CodecError, Encoding, Job, WorkerType};

use super::super::wire::{self, DIED, ERROR, HOST, PLUGIN, REASON, STACK};
use crate::Message;

/// What a broker adds when it dead-letters by itself: one entry for each queue and reason, the last
/// one first.
const DEATHS: &str = "x-death";

/// A job that was given up.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetter {
    /// Whose queue it was put into.
    pub worker_type: WorkerType,
    /// The job as it was. Addressed to any worker of the type, since only that is known. Its id is
    /// empty when it came without one.
    pub message: Message,
    /// The word for why it was given up; the broker's own word where the broker did it.
    pub reason: String,
    /// The text for a person.
    pub error: String,
    /// The file, version and digest of the plugin that ran it last.
    pub plugin: Option<String>,
    /// Where the guest was when it failed: a line for each call, the innermost first.
    pub stack: Option<String>,
    /// The host that gave it up.
    pub host: Option<String>,
    /// When it was given up, in milliseconds since 1970.
    pub died_ms: Option<u64>,
}

impl DeadLetter {
    /// Reads one. `None` when its key is no worker type.
    pub(super) fn read(
        encoding: Encoding,
        key: &str,
        properties: &BasicProperties,
        body: Vec<u8>,
    ) -> Option<Self> {
        let worker_type = WorkerType::new(key).ok()?;
        let to = Address::Any(worker_type.clone());
        let mut message = wire::read(to, encoding, properties, body);
        if properties.message_id().is_none() {
            message.id.clear();
        }
        let headers = properties.headers().as_ref();
        let text = |name: &str| headers.and_then(|table| wire::string(table.inner().get(name)?));
        let number = |name: &str| headers.and_then(|table| wire::integer(table.inner().get(name)?));
        let death = headers.and_then(last_death);
        let death_text =
            |name: &str| death.and_then(|death| wire::string(death.inner().get(name)?));
        let death_time = death.and_then(|death| wire::integer(death.inner().get("time")?));
        let seconds = death_time.or(*properties.timestamp());
        Some(Self {
            worker_type,
            message,
            reason: text(REASON)
                .or_else(|| death_text("reason"))
                .unwrap_or_else(|| "unknown".to_owned()),
            error: text(ERROR).unwrap_or_else(|| match death_text("queue") {
                Some(queue) => format!("dead-lettered by the broker, out of {queue}"),
                None => String::new(),
            }),
            plugin: text(PLUGIN),
            stack: text(STACK),
            host: text(HOST),
            died_ms: number(DIED).or_else(|| seconds?.checked_mul(1000)),
        })
    }

    /// The envelope.
    ///
    /// # Errors
    /// When the body is no job in the encoding that it came in.
    pub fn job(&self) -> Result<Job, CodecError> {
        self.message.encoding.decode_job(&self.message.body)
    }
}

/// The note that a dead letter has left its queue.
pub(super) struct Left {
    pub(super) worker_type: WorkerType,
    pub(super) id: String,
}

/// What became of a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Departure {
    Replayed,
    Dropped,
}

const LEFT_HOW: &str = "x-warren-left";
const LEFT_TYPE: &str = "x-warren-type";

impl Left {
    /// The properties of a note.
    pub(super) fn properties(
        worker_type: &WorkerType,
        id: Option<&ShortString>,
        how: Departure,
    ) -> BasicProperties {
        let how = match how {
            Departure::Replayed => "replayed",
            Departure::Dropped => "dropped",
        };
        let mut headers = FieldTable::default();
        headers.insert(LEFT_HOW.into(), wire::text(how));
        headers.insert(LEFT_TYPE.into(), wire::text(worker_type.as_str()));
        let properties = BasicProperties::default()
            .with_delivery_mode(wire::PERSISTENT)
            .with_app_id(wire::APP_ID.into())
            .with_headers(headers);
        match id {
            Some(id) => properties.with_message_id(id.clone()),
            None => properties,
        }
    }

    /// Reads a note. `None` when it does not say whose it is.
    pub(super) fn read(properties: &BasicProperties) -> Option<Self> {
        let headers = properties.headers().as_ref()?;
        let worker_type = wire::string(headers.inner().get(LEFT_TYPE)?)?;
        let id = properties.message_id().as_ref();
        Some(Self {
            worker_type: WorkerType::new(&worker_type).ok()?,
            id: id.map(|id| id.as_str().to_owned()).unwrap_or_default(),
        })
    }
}

fn last_death(headers: &FieldTable) -> Option<&FieldTable> {
    let AMQPValue::FieldArray(deaths) = headers.inner().get(DEATHS)? else {
        return None;
    };
    match deaths.as_slice().first()? {
        AMQPValue::FieldTable(death) => Some(death),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(pairs: &[(&str, AMQPValue)]) -> FieldTable {
        let mut table = FieldTable::default();
        for (name, value) in pairs {
            table.insert((*name).into(), value.clone());
        }
        table
    }

    #[test]
    fn what_the_broker_dead_letters_itself_says_why_and_when() {
        let death = table(&[
            ("reason", wire::text("maxlen")),
            ("queue", wire::text("warren.v1.q.WB")),
            ("time", AMQPValue::Timestamp(1_795_220_940)),
        ]);
        let deaths = AMQPValue::FieldArray(vec![AMQPValue::FieldTable(death)].into());
        let properties = BasicProperties::default()
            .with_timestamp(1_000_000_000)
            .with_headers(table(&[(DEATHS, deaths)]));
        let letter = DeadLetter::read(Encoding::Json, "WB", &properties, vec![]).unwrap();
        assert_eq!(letter.reason, "maxlen");
        assert_eq!(letter.died_ms, Some(1_795_220_940_000));
        assert!(letter.error.contains("warren.v1.q.WB"), "{}", letter.error);
        assert_eq!(letter.message.id, "");
    }

    #[test]
    fn a_note_is_read_back() {
        let worker_type = WorkerType::new("WB").unwrap();
        let properties = Left::properties(&worker_type, Some(&"m1".into()), Departure::Dropped);
        let left = Left::read(&properties).unwrap();
        assert_eq!((left.worker_type, left.id), (worker_type, "m1".to_owned()));
    }
}
