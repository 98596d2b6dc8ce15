use serde::{Deserialize, Serialize};

use crate::bindings::imports::warren::worker::types::Slip;
use crate::{Error, Job, OrReject, Outcome, Payload, Result};

const JSON: &str = "application/json";

/// What can travel in a job: a reference to anything that serde can write, which becomes JSON, or
/// a [`Payload`] that is passed on as it came.
pub trait IntoPayload {
    /// Makes the payload.
    ///
    /// # Errors
    /// The value cannot be written as JSON, such as a map whose keys are not strings.
    fn into_payload(self) -> Result<Payload, serde_json::Error>;
}

impl IntoPayload for Payload {
    fn into_payload(self) -> Result<Payload, serde_json::Error> {
        Ok(self)
    }
}

impl<T: Serialize + ?Sized> IntoPayload for &T {
    fn into_payload(self) -> Result<Payload, serde_json::Error> {
        Ok(Payload {
            content_type: JSON.to_owned(),
            body: serde_json::to_vec(self)?,
        })
    }
}

impl Payload {
    /// Reads the payload as JSON. `T` may borrow from it.
    ///
    /// # Errors
    /// Rejects a payload of another shape or encoding. The text says what and where.
    pub fn json<'a, T: Deserialize<'a>>(&'a self) -> Result<T> {
        if self.content_type != JSON {
            let content_type = &self.content_type;
            return Err(Error::reject(format!(
                "the data is {content_type}, not {JSON}"
            )));
        }
        serde_json::from_slice(&self.body).or_reject("unexpected data")
    }
}

impl Job {
    /// Reads what the job is about. `T` may borrow from the job.
    ///
    /// # Errors
    /// Rejects data of another shape. The text says what and where.
    pub fn json<'a, T: Deserialize<'a>>(&'a self) -> Result<T> {
        self.data.json()
    }
}

impl Outcome {
    /// Hands a value to the next stop of the job's own route. At the last stop of a call it is
    /// the reply.
    ///
    /// # Errors
    /// Rejects a value that cannot be written as JSON.
    pub fn forward(data: impl IntoPayload) -> Result<Self> {
        Ok(Self::Forward(data.into_payload()?))
    }

    /// Sends the work on along a new route, each stop `TYPE:*` or the id of a worker. If the
    /// work began with a call, the caller still gets the reply.
    ///
    /// ```
    /// # use warren_sdk::{Job, Outcome, Result};
    /// fn to_the_database_and_back(job: Job) -> Result<Outcome> {
    ///     Outcome::route(["WB:*", &job.sender], job.data)
    /// }
    /// ```
    ///
    /// # Errors
    /// Rejects a value that cannot be written as JSON.
    pub fn route<S: Into<String>>(
        stops: impl IntoIterator<Item = S>,
        data: impl IntoPayload,
    ) -> Result<Self> {
        Ok(Self::Route(slip(stops, data)?))
    }
}

pub(crate) fn slip<S: Into<String>>(
    stops: impl IntoIterator<Item = S>,
    data: impl IntoPayload,
) -> Result<Slip, serde_json::Error> {
    Ok(Slip {
        stops: stops.into_iter().map(Into::into).collect(),
        data: data.into_payload()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_passed_on_byte_for_byte() {
        let payload = Payload {
            content_type: JSON.to_owned(),
            body: b"{ \"a\" : 1.0 }".to_vec(),
        };
        let outcome = Outcome::forward(payload.clone());
        assert_eq!(outcome, Ok(Outcome::Forward(payload)));
    }

    #[test]
    fn a_value_becomes_json_and_reads_back() {
        let payload = (&("a", 1)).into_payload().unwrap();
        assert_eq!(payload.body, b"[\"a\",1]");
        assert_eq!(payload.json::<(&str, u8)>(), Ok(("a", 1)));
    }

    #[test]
    fn data_of_another_shape_is_rejected_with_its_place() {
        let payload = (&"text").into_payload().unwrap();
        let error = payload.json::<u8>().unwrap_err();
        assert!(!error.is_retryable());
        assert!(error.reason().ends_with("at line 1 column 6"), "{error}");
    }

    #[test]
    fn another_encoding_is_not_mistaken_for_json() {
        let payload = Payload {
            content_type: "application/bson".to_owned(),
            body: b"1".to_vec(),
        };
        assert!(payload.json::<u8>().is_err());
    }
}
