//! DB, the worker `WB` of the example trio: it stores movies and reads them back.
//!
//! The messages have the shapes of MicroServices.js, so that either neighbour may be a Node
//! process.

mod movies;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use warren_sdk::{Error, Job, Outcome, Result, Worker};

/// Answers `GET` with the movies that match and `POST` with the movie that it has stored.
pub struct Db;

/// `resId` and `time` are by what the worker that asked knows its question again: they go back
/// as they came.
#[derive(Deserialize)]
struct Request<'a> {
    method: String,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
    #[serde(borrow, rename = "resId")]
    res_id: Option<&'a RawValue>,
    #[serde(borrow)]
    time: Option<&'a RawValue>,
}

#[derive(Serialize)]
struct Reply<'a, T> {
    content: T,
    #[serde(rename = "resId", skip_serializing_if = "Option::is_none")]
    res_id: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<&'a RawValue>,
}

impl Worker for Db {
    const TYPE: &'static str = "WB";
    const SUMMARY: &'static str = "Stores movies and reads them back";

    fn handle(job: Job) -> Result<Outcome> {
        let request: Request = job.json()?;
        let params = request.params.map_or("null", RawValue::get);
        movies::create_table()?;
        match request.method.as_str() {
            "GET" => request.answer(movies::find(&movies::filter(params)?)?),
            "POST" => request.answer(movies::store(&movies::posted(params)?, &job.id)?),
            other => Err(Error::reject(format!(
                "the database does not know the method {other}"
            ))),
        }
    }
}

impl Request<'_> {
    fn answer(&self, content: impl Serialize) -> Result<Outcome> {
        Outcome::forward(&Reply {
            content,
            res_id: self.res_id,
            time: self.time,
        })
    }
}

warren_sdk::export_worker!(Db);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_identifies_the_question_goes_back_as_it_came() {
        let request: Request = serde_json::from_str(
            r#"{"method":"GET","params":{},"resId":"r-1","time":1.0,"pilot":"next"}"#,
        )
        .unwrap();
        let Ok(Outcome::Forward(payload)) = request.answer([7]) else {
            panic!("the answer is forwarded");
        };
        assert_eq!(payload.body, br#"{"content":[7],"resId":"r-1","time":1.0}"#);
    }

    #[test]
    fn a_question_without_an_identity_gets_none_back() {
        let request: Request = serde_json::from_str(r#"{"method":"GET"}"#).unwrap();
        let Ok(Outcome::Forward(payload)) = request.answer("x") else {
            panic!("the answer is forwarded");
        };
        assert_eq!(payload.body, br#"{"content":"x"}"#);
    }
}
