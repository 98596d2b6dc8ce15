//! Jobs, acknowledgements and errors as bodies of messages.
//!
//! Source of the forms: PROTOCOL "The wire". Keys are written in the order in which a Node worker
//! writes them; unknown keys are read over. What a job carries stays bytes.

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    CallError, CodecError, Encoding, Identity, Job, Payload, Stop,
    codec::{self, Kind, Object, Raw, Value},
};

/// "I take this job": the body of `worker.next.ack`.
#[derive(Clone, Debug, PartialEq)]
pub struct Acknowledgement {
    /// The job, with its position already moved on.
    pub job: Job,
    /// The job was addressed to one worker, so the turn in the pool of its type does not move.
    pub ignore_update: bool,
}

/// "Your job has failed": the body of `error`.
#[derive(Clone, Debug, PartialEq)]
pub struct JobError {
    /// Who is told.
    pub target: ErrorTarget,
    /// What went wrong, for a person.
    pub error: String,
    /// The id of the job.
    pub id: String,
    /// What the job carried. A Node worker finds the request that waits by its `resId`.
    pub data: Payload,
    /// The same as `error`, for programs. Only hosts write it; a Node worker carries it along.
    pub cause: Option<CallError>,
    /// How a job ended that nobody waits for. Only hosts write it, to the worker that sent the job.
    pub ending: Option<Ending>,
}

/// How a job was given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// The word for it that its dead letter has.
    pub reason: String,
    /// Where: `TYPE:*` or a worker id.
    pub stop: String,
    /// How often it was started there.
    pub attempts: u32,
}

/// The receiver of an error. SystemManager writes the worker, but a Node worker only hears an
/// error that carries its id as a text: read both, write the id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ErrorTarget {
    /// The id alone.
    Id(String),
    /// The sender of the job, as it was written there.
    Worker(Identity),
}

impl ErrorTarget {
    /// The id of the receiver.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Self::Id(id) => id,
            Self::Worker(identity) => &identity.id,
        }
    }
}

/// All bodies are read with an error for bytes of another encoding, other fields or other types:
/// [`CodecError::Malformed`] or [`CodecError::Unexpected`]. They are written with an error only
/// where `data` has to be transcoded and cannot be, as [`Payload::to`] says.
impl Encoding {
    /// Reads the body of `worker.next`. A missing `workers_list_id` is 0, missing `data` is null.
    ///
    /// # Errors
    /// When the body is not a job in this encoding.
    pub fn decode_job(self, body: &Bytes) -> Result<Job, CodecError> {
        codec::decode(self, body, |body| {
            self.job(&Object::of_body(self, body)?, body)
        })
    }

    /// Writes the body of `worker.next`.
    ///
    /// # Errors
    /// When `data` cannot be written in this encoding.
    pub fn encode_job(self, job: &Job) -> Result<Bytes, CodecError> {
        self.encode(&Value::object(job_fields(job)))
    }

    /// Reads the body of `worker.next.ack`.
    ///
    /// # Errors
    /// When the body is not an acknowledgement in this encoding.
    pub fn decode_ack(self, body: &Bytes) -> Result<Acknowledgement, CodecError> {
        codec::decode(self, body, |body| {
            let object = Object::of_body(self, body)?;
            Ok(Acknowledgement {
                job: self.job(&object, body)?,
                ignore_update: object.flag("ignoreUpdate")?,
            })
        })
    }

    /// Writes the body of `worker.next.ack`.
    ///
    /// # Errors
    /// When `data` cannot be written in this encoding.
    pub fn encode_ack(self, ack: &Acknowledgement) -> Result<Bytes, CodecError> {
        let mark = ack
            .ignore_update
            .then_some(("ignoreUpdate", Value::Bool(true)));
        self.encode(&Value::object(job_fields(&ack.job).into_iter().chain(mark)))
    }

    /// Reads the body of `error`. Missing `data` is null; a cause that this version does not know
    /// is left out.
    ///
    /// # Errors
    /// When the body is not an error in this encoding.
    pub fn decode_error(self, body: &Bytes) -> Result<JobError, CodecError> {
        codec::decode(self, body, |body| self.job_error(body))
    }

    /// Writes the body of `error`. The cause comes last, as `warren`, and then the ending, as
    /// `given_up`, each only where there is one.
    ///
    /// # Errors
    /// When `data` cannot be written in this encoding.
    pub fn encode_error(self, error: &JobError) -> Result<Bytes, CodecError> {
        let target = match &error.target {
            ErrorTarget::Id(id) => Value::text(id),
            ErrorTarget::Worker(identity) => identity.into(),
        };
        let cause = error.cause.as_ref().map(note).transpose()?;
        let ending = error.ending.as_ref().map(note).transpose()?;
        let fields = [
            ("target", target),
            ("error", Value::text(&error.error)),
            ("id", Value::text(&error.id)),
            ("data", Value::Payload(&error.data)),
        ];
        let cause = cause
            .as_ref()
            .map(|cause| ("warren", Value::Payload(cause)));
        let ending = ending
            .as_ref()
            .map(|ending| ("given_up", Value::Payload(ending)));
        self.encode(&Value::object(
            fields.into_iter().chain(cause).chain(ending),
        ))
    }

    /// Writes a whole body.
    pub(crate) fn encode(self, value: &Value<'_>) -> Result<Bytes, CodecError> {
        codec::write(self, value).map(|(_, bytes)| bytes.into())
    }

    fn job(self, object: &Object<'_>, body: &Bytes) -> Result<Job, CodecError> {
        let route = object.array("workers_list")?.into_iter();
        Ok(Job {
            route: route
                .map(|stop| stop.text("workers_list").map(Stop::new))
                .collect::<Result<_, _>>()?,
            position: object.index("workers_list_id")?,
            data: self.data(object, body),
            sender: object.object("sender")?.identity()?,
            id: object.text("id")?,
        })
    }

    fn job_error(self, body: &Bytes) -> Result<JobError, CodecError> {
        let object = Object::of_body(self, body)?;
        let target = match object.get("target") {
            Some(target) if target.kind() == Kind::Object => {
                ErrorTarget::Worker(target.object("target")?.identity()?)
            }
            _ => ErrorTarget::Id(object.text("target")?),
        };
        Ok(JobError {
            target,
            error: object.text("error")?,
            id: object.text("id")?,
            data: self.data(&object, body),
            cause: object.get("warren").and_then(read_note),
            ending: object.get("given_up").and_then(read_note),
        })
    }

    fn data(self, object: &Object<'_>, body: &Bytes) -> Payload {
        object
            .get("data")
            .map_or_else(|| Payload::null(self), |raw| Payload::within(body, raw))
    }
}

fn job_fields(job: &Job) -> [(&'static str, Value<'_>); 5] {
    let stops = job.route.iter().map(|stop| Value::text(stop.as_str()));
    [
        ("workers_list", Value::Array(stops.collect())),
        ("workers_list_id", Value::from(job.position as u64)),
        ("data", Value::Payload(&job.data)),
        ("sender", (&job.sender).into()),
        ("id", Value::text(&job.id)),
    ]
}

/// What hosts write for hosts. One that this version does not know is left out.
fn read_note<T: DeserializeOwned>(raw: Raw<'_>) -> Option<T> {
    let (_, json) = codec::write(Encoding::Json, &raw.value().ok()?).ok()?;
    serde_json::from_slice(&json).ok()
}

fn note<T: Serialize>(value: &T) -> Result<Payload, CodecError> {
    let json = serde_json::to_vec(value).map_err(|_| CodecError::Inexpressible {
        encoding: Encoding::Json,
        what: "the cause of this error".into(),
    })?;
    Payload::new(Encoding::Json, json.into())
}
