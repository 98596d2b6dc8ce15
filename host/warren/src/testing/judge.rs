//! Compares what a worker did with what its case expects. Pure: everything that happened is handed in.

use http::HeaderMap;
use serde_json::{Value as Json, json};
use warren_protocol::{Encoding, Outcome, Payload, Slip};

use super::{
    bench::{Asked, stops},
    case::{Body, Call, Case, End, Exchange, Expect, Send},
    finding::Finding,
    matching::Mode,
    outside::Got,
    pattern::Pattern,
};
use crate::{config::Place, witness::Seen};

/// A response of the worker's host.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

/// The data of a payload as JSON; what JSON cannot say is relaxed Extended JSON.
pub(super) fn json(payload: &Payload) -> Json {
    let bytes = payload.to(Encoding::Json).and_then(|data| data.to_bytes());
    let read = bytes.map(|bytes| serde_json::from_slice(&bytes));
    match read {
        Ok(Ok(value)) => value,
        _ => Json::from("(cannot be read)"),
    }
}

/// The last run of a job.
pub(super) fn outcome(expect: &Expect, seen: &Seen, mode: Mode) -> Vec<Finding> {
    const WHAT: &str = "the outcome";
    let of = |what: &str, expected: &Pattern, actual: &Json| {
        Vec::from_iter(Finding::of(what, expected, actual, mode))
    };
    let exactly =
        |what: &str, expected: &Pattern, actual: &str| of(what, expected, &Json::from(actual));
    match (&expect.end, &seen.verdict) {
        (End::Done, Ok(Outcome::Done)) => Vec::new(),
        (End::Forward(expected), Ok(Outcome::Forward(data))) => {
            of("the data of `forward`", expected, &json(data))
        }
        (
            End::Route {
                stops: way,
                data: expected,
            },
            Ok(Outcome::Route(Slip { stops: went, data })),
        ) => {
            let mut found = of("the stops of `route`", way, &Json::from(stops(went)));
            found.extend(of("the data of `route`", expected, &json(data)));
            found
        }
        (End::Reject(expected), Ok(Outcome::Reject { reason })) => {
            exactly("the reason of `reject`", expected, reason)
        }
        (
            End::Retry {
                reason: expected,
                after: wait,
            },
            Ok(Outcome::Retry { after, reason }),
        ) => {
            let mut found = exactly("the reason of `retry`", expected, reason);
            if wait.is_some() && wait != after {
                let message = format!("is {after:?}, and {wait:?} was expected");
                found.push(Finding::new("the wait of `retry`", message));
            }
            found
        }
        (End::Fault { kind, text }, Err(fault)) if fault.reason() == kind => {
            let text = text.as_ref();
            text.map(|expected| exactly("the text of the fault", expected, &fault.to_string()))
                .unwrap_or_default()
        }
        (expected, actual) => {
            let message = format!(
                "is {}, and {} was expected",
                verdict(actual),
                expected_verdict(expected)
            );
            vec![Finding::new(WHAT, message)]
        }
    }
}

fn verdict(verdict: &Result<Outcome, warren_runtime::Fault>) -> String {
    match verdict {
        Ok(Outcome::Done) => "`done`".to_owned(),
        Ok(Outcome::Forward(data)) => format!("`forward` with {}", json(data)),
        Ok(Outcome::Route(slip)) => format!("`route` to {}", stops(&slip.stops).join(", ")),
        Ok(Outcome::Retry { reason, .. }) => format!("`retry` ({reason})"),
        Ok(Outcome::Reject { reason }) => format!("`reject` ({reason})"),
        Err(fault) => format!("the fault `{}` ({fault})", fault.reason()),
    }
}

fn expected_verdict(end: &End) -> String {
    match end {
        End::Done => "`done`".to_owned(),
        End::Forward(data) => format!("`forward` with {}", data.shown()),
        End::Route { stops, .. } => format!("`route` to {}", stops.shown()),
        End::Reject(reason) => format!("`reject` ({})", reason.shown()),
        End::Retry { reason, .. } => format!("`retry` ({})", reason.shown()),
        End::Fault { kind, .. } => format!("the fault `{kind}`"),
        End::NotLoaded(_) => "that the worker is not loaded".to_owned(),
        End::Response { status, .. } => format!("a response {status}"),
    }
}

/// The response to a request.
pub(super) fn response(case: &Case, answer: &Answer) -> Vec<Finding> {
    let End::Response {
        status,
        headers,
        body,
    } = &case.expect.end
    else {
        return Vec::new();
    };
    let mut found = Vec::new();
    if *status != answer.status {
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        let message = format!(
            "is {}, and {status} was expected; its body: {text}",
            answer.status
        );
        found.push(Finding::new("the status", message));
    }
    found.extend(of_headers("the response", headers, &answer.headers));
    if let Some(body) = body {
        found.extend(of_body(
            "the body of the response",
            body,
            &answer.body,
            case.mode,
        ));
    }
    found
}

fn of_headers(what: &str, expected: &[(String, Pattern)], actual: &HeaderMap) -> Vec<Finding> {
    let of = |(name, pattern): &(String, Pattern)| {
        let values = actual.get_all(name.as_str()).iter();
        let values: Vec<_> = values
            .map(|value| String::from_utf8_lossy(value.as_bytes()))
            .collect();
        let what = format!("the header `{name}` of {what}");
        match values.is_empty() {
            // Compared as a member that is not there.
            true => {
                let object = Pattern::Object(vec![(name.clone(), pattern.clone())]);
                Finding::of(&what, &object, &json!({}), Mode::Subset)
            }
            false => Finding::of(&what, pattern, &Json::from(values.join(", ")), Mode::Exact),
        }
    };
    expected.iter().filter_map(of).collect()
}

fn of_body(what: &str, expected: &Body, actual: &[u8], mode: Mode) -> Option<Finding> {
    let text = String::from_utf8_lossy(actual).into_owned();
    match expected {
        Body::Text(pattern) => Finding::of(what, pattern, &Json::from(text), mode),
        Body::Json(pattern) => match serde_json::from_slice(actual) {
            Ok(value) => Finding::of(what, pattern, &value, mode),
            Err(error) => Some(Finding::new(what, format!("is not JSON ({error}): {text}"))),
        },
    }
}

/// The calls, one by one.
pub(super) fn calls(expected: &[Call], seen: &[Asked]) -> Vec<Finding> {
    let mut found = Vec::new();
    for index in 0..expected.len().max(seen.len()) {
        let what = format!("call {}", index + 1);
        match (expected.get(index), seen.get(index)) {
            (Some(call), Some(asked)) => {
                let what = format!("{what} ({})", line(&call.place));
                let stops = Json::from(asked.stops.clone());
                found.extend(Finding::of(
                    &format!("the stops of {what}"),
                    &call.stops,
                    &stops,
                    Mode::Exact,
                ));
                if let Some(data) = &call.data {
                    let what = format!("the data of {what}");
                    found.extend(Finding::of(&what, data, &json(&asked.data), call.mode));
                }
            }
            (Some(call), None) => {
                let what = format!("{what} ({})", line(&call.place));
                let message = format!("to {} was not made", call.stops.shown());
                found.push(Finding::new(what, message));
            }
            (None, Some(asked)) => {
                let message = format!(
                    "to {} was not expected; its data: {}",
                    asked.stops.join(", "),
                    json(&asked.data)
                );
                found.push(Finding::new(what, message));
            }
            (None, None) => {}
        }
    }
    found
}

/// The jobs that were sent, one by one.
pub(super) fn sends(expected: &[Send], seen: &[Slip]) -> Vec<Finding> {
    let mut found = Vec::new();
    for index in 0..expected.len().max(seen.len()) {
        let what = format!("send {}", index + 1);
        match (expected.get(index), seen.get(index)) {
            (Some(send), Some(slip)) => {
                let way = Json::from(stops(&slip.stops));
                found.extend(Finding::of(
                    &format!("the stops of {what}"),
                    &send.stops,
                    &way,
                    Mode::Exact,
                ));
                if let Some(data) = &send.data {
                    let what = format!("the data of {what}");
                    found.extend(Finding::of(&what, data, &json(&slip.data), send.mode));
                }
            }
            (Some(send), None) => {
                let message = format!("to {} was not made", send.stops.shown());
                found.push(Finding::new(what, message));
            }
            (None, Some(slip)) => {
                let message = format!(
                    "to {} was not expected; its data: {}",
                    stops(&slip.stops).join(", "),
                    json(&slip.data)
                );
                found.push(Finding::new(what, message));
            }
            (None, None) => {}
        }
    }
    found
}

/// The requests to other hosts, one by one.
pub(super) fn requests(expected: &[Exchange], seen: &[Got]) -> Vec<Finding> {
    let mut found = Vec::new();
    for index in 0..expected.len().max(seen.len()) {
        let what = format!("request {}", index + 1);
        match (expected.get(index), seen.get(index)) {
            (Some(exchange), Some(got)) => {
                let line = Pattern::Array(vec![exchange.method.clone(), exchange.url.clone()]);
                let actual = json!([got.method, got.url]);
                found.extend(Finding::of(&what, &line, &actual, Mode::Exact));
                found.extend(of_headers(&what, &exchange.headers, &got.headers));
                if let Some(body) = &exchange.body {
                    let what = format!("the body of {what}");
                    found.extend(of_body(&what, body, &got.body, exchange.mode));
                }
            }
            (Some(exchange), None) => {
                let message = format!("to {} was not made", exchange.url.shown());
                found.push(Finding::new(what, message));
            }
            (None, Some(got)) => {
                let message = format!("({} {}) was not expected", got.method, got.url);
                found.push(Finding::new(what, message));
            }
            (None, None) => {}
        }
    }
    found
}

/// How often the job was run, and what became of it then.
pub(super) fn attempts(case: &Case, n_attempts: u32, buried: Option<&str>) -> Vec<Finding> {
    let mut found = Vec::new();
    if n_attempts != case.expect.attempts {
        let message = format!(
            "are {n_attempts}, and {} were expected",
            case.expect.attempts
        );
        found.push(Finding::new("the attempts", message));
    }
    if let Some(expected) = &case.expect.dead_letter
        && buried != Some(expected)
    {
        let actual = buried.map_or("there is none".to_owned(), |word| format!("is `{word}`"));
        let message = format!("{actual}, and `{expected}` was expected");
        found.push(Finding::new("the dead letter", message));
    }
    found
}

/// Where in its file something is.
fn line(place: &Place) -> String {
    match place {
        Place::Line { line, .. } => format!("line {line}"),
        other => other.to_string(),
    }
}
