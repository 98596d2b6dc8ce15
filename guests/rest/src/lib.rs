//! REST, the worker `WA` of the example trio: it turns HTTP requests for movies into jobs and
//! the replies into responses.
//!
//! The messages have the shapes of MicroServices.js, so that either end may be a Node process.

mod movie;
mod query;

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use uuid::Uuid;
use warren_sdk::http::{HttpWorker, Request, Response};
use warren_sdk::{Result, bus, config};

/// `GET` and `POST` on `/movies/`, and nothing else.
pub struct Rest;

/// What the Pilot is asked.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Question {
    method: &'static str,
    params: Value,
    res_id: Uuid,
    /// Milliseconds since 1970.
    time: u64,
}

/// What comes back, from whatever worker the Pilot chose. A Node worker's content may be any
/// JSON, so it is passed on unread.
#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    content: &'a RawValue,
}

impl HttpWorker for Rest {
    const TYPE: &'static str = "WA";
    const SUMMARY: &'static str = "Turns HTTP requests for movies into jobs";
    const PATH: &'static str = "/movies/";

    fn handle(request: Request) -> Result<Response> {
        match (request.method.as_str(), request.path.as_str()) {
            ("GET", Self::PATH) => ask("GET", query::as_object(request.query)),
            ("POST", Self::PATH) => match movie::checked(request.body) {
                Ok(text) => ask("POST", Value::String(text)),
                Err(detail) => Ok(Response::problem(400, detail)),
            },
            _ => Ok(Response::problem(
                404,
                "only GET and POST on /movies/ exist here",
            )),
        }
    }
}

fn ask(method: &'static str, params: Value) -> Result<Response> {
    let question = Question {
        method,
        params,
        res_id: Uuid::new_v4(),
        time: now_ms(),
    };
    let timeout = config::parse("call_timeout_ms")?.map(Duration::from_millis);
    let reply = bus::call_within(timeout, ["WD:*"], &question)?;
    let answer: Answer = reply.json()?;
    Response::json(answer.content)
}

fn now_ms() -> u64 {
    let since_1970 = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}

warren_sdk::export_http_worker!(Rest);

#[cfg(test)]
mod tests {
    use super::*;

    fn status_of(method: &str, path: &str, body: &str) -> u16 {
        let request = Request {
            method: method.to_owned(),
            path: path.to_owned(),
            body: body.as_bytes().to_vec(),
            ..Request::default()
        };
        Rest::handle(request).unwrap().status
    }

    #[test]
    fn only_get_and_post_on_the_exact_path_exist() {
        for method in ["PUT", "DELETE", "HEAD", "OPTIONS", "get"] {
            assert_eq!(status_of(method, "/movies/", ""), 404, "{method}");
        }
        for path in ["/movies", "/movies/1", "/", "/Movies/"] {
            assert_eq!(status_of("GET", path, ""), 404, "{path}");
        }
    }

    #[test]
    fn a_movie_that_is_not_one_is_the_clients_mistake() {
        assert_eq!(status_of("POST", "/movies/", "{"), 400);
    }

    #[test]
    fn the_question_has_the_shape_of_the_node_worker() {
        let question = Question {
            method: "GET",
            params: query::as_object(vec![]),
            res_id: Uuid::nil(),
            time: 1_795_220_941_865,
        };
        assert_eq!(
            serde_json::to_string(&question).unwrap(),
            r#"{"method":"GET","params":{},"resId":"00000000-0000-0000-0000-000000000000","time":1795220941865}"#
        );
    }

    #[test]
    fn any_content_is_passed_on_as_it_came() {
        for content in [r#""time: 1 {}""#, r#"[{"b":1.0,  "a":null}]"#, "null"] {
            let reply = format!(r#"{{"content":{content},"resId":"x","time":1}}"#);
            let answer: Answer = serde_json::from_str(&reply).unwrap();
            assert_eq!(
                Response::json(answer.content).unwrap().body,
                content.as_bytes()
            );
        }
    }
}
