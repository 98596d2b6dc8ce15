//! What is around a worker: other workers, other hosts, its database and buckets, and what goes wrong.

use std::time::Duration;

use serde_json::Value as Json;

use super::{Reader, members};
use crate::testing::{
    case::{Answer, Call, Exchange, Fault, Query, Response, Send, Sql},
    document::{Node, Value},
    fields::{Fields, duration, text, texts, truth, whole, word},
    matching::Mode,
    pattern::Pattern,
};

/// The words for why a call has no reply.
const FAILURES: [&str; 6] = [
    "timeout",
    "unknown-type",
    "no-live-worker",
    "queue-full",
    "unavailable",
    "failed",
];

impl Reader<'_> {
    pub(super) fn call(&mut self, node: &Node, mode: Mode) -> Option<Call> {
        let mut fields = Fields::of(node, &mut self.mistakes)?;
        let stops = self.required(&mut fields, "to", "to = \"WB:*\"");
        let stops = stops.map(|node| self.expected_stops(node));
        let data = fields.take("data");
        let data = data.map(|node| self.data.expected(node, &mut self.mistakes));
        let mode = self.mode(&mut fields, mode);
        let delay = fields.take("delay");
        let delay = delay.map_or(Duration::ZERO, |node| duration(node, &mut self.mistakes));
        let reason = fields.take("reason");
        let reason = reason.and_then(|node| text(node, &mut self.mistakes));
        let answer = match (fields.take("reply"), fields.take("fails")) {
            (Some(node), None) => Some(Answer::Reply(self.data.given(node, &mut self.mistakes))),
            (None, Some(node)) => {
                let failure = word(node, &FAILURES, &mut self.mistakes);
                failure.map(|failure| answer(failure, reason))
            }
            _ => {
                let remedy = "write reply = {…}, or fails = \"timeout\"";
                self.note(fields.place, "a call has one answer", remedy);
                None
            }
        };
        fields.finish(&mut self.mistakes);
        Some(Call {
            place: node.place.clone(),
            stops: stops?,
            data,
            mode,
            answer: answer?,
            delay,
        })
    }

    pub(super) fn send(&mut self, node: &Node, mode: Mode) -> Option<Send> {
        let mut fields = Fields::of(node, &mut self.mistakes)?;
        let stops = self.required(&mut fields, "to", "to = \"WB:*\"");
        let stops = stops.map(|node| self.expected_stops(node));
        let data = fields.take("data");
        let data = data.map(|node| self.data.expected(node, &mut self.mistakes));
        let mode = self.mode(&mut fields, mode);
        fields.finish(&mut self.mistakes);
        Some(Send {
            stops: stops?,
            data,
            mode,
        })
    }

    pub(super) fn exchange(&mut self, node: &Node, mode: Mode) -> Option<Exchange> {
        let mut fields = Fields::of(node, &mut self.mistakes)?;
        let method = fields.take("method");
        let method = method.map_or_else(
            || Pattern::Exactly(Json::from("GET")),
            |node| self.data.expected(node, &mut self.mistakes),
        );
        let url = self.required(&mut fields, "url", "url = \"https://api.example.com/v1\"");
        let url = url.map(|node| self.data.expected(node, &mut self.mistakes));
        let headers = self.expected_headers(&mut fields);
        let body = self.expected_body(&mut fields);
        let mode = self.mode(&mut fields, mode);
        let answer = self.required(&mut fields, "answer", "answer = { status = 200 }");
        let answer = answer.and_then(|node| self.response(node));
        fields.finish(&mut self.mistakes);
        Some(Exchange {
            method,
            url: url?,
            headers,
            body,
            mode,
            answer: answer?,
        })
    }

    fn response(&mut self, node: &Node) -> Option<Response> {
        let mut fields = Fields::of(node, &mut self.mistakes)?;
        let status = fields.take("status");
        let status = status.map_or(200, |node| whole(node, 200, 599, &mut self.mistakes));
        let mut headers = self.headers(&mut fields);
        let body = self.given_body(&mut fields, &mut headers);
        let delay = fields.take("delay");
        let delay = delay.map_or(Duration::ZERO, |node| duration(node, &mut self.mistakes));
        let is_cut = fields.take("cut");
        let is_cut = is_cut.is_some_and(|node| truth(node, &mut self.mistakes));
        fields.finish(&mut self.mistakes);
        Some(Response {
            status: u16::try_from(status).unwrap_or_default(),
            headers,
            body,
            delay,
            is_cut,
        })
    }

    pub(super) fn sql(&mut self, node: &Node) -> Sql {
        let Some(mut fields) = Fields::of(node, &mut self.mistakes) else {
            return Sql::default();
        };
        let before = fields.take("before");
        let before = before
            .map(|node| texts(node, &mut self.mistakes))
            .unwrap_or_default();
        let mut after = Vec::new();
        for node in fields.tables("after") {
            let Some(mut fields) = Fields::of(node, &mut self.mistakes) else {
                continue;
            };
            let query = self.required(&mut fields, "query", "query = \"SELECT …\"");
            let query = query.and_then(|node| text(node, &mut self.mistakes));
            let rows = self.required(&mut fields, "rows", "rows = [{ id = 1 }]");
            let rows = rows.map(|node| self.data.expected(node, &mut self.mistakes));
            fields.finish(&mut self.mistakes);
            if let (Some(statement), Some(rows)) = (query, rows) {
                after.push(Query { statement, rows });
            }
        }
        fields.finish(&mut self.mistakes);
        Sql { before, after }
    }

    #[allow(clippy::type_complexity, reason = "two lists, taken apart at once")]
    pub(super) fn keyvalue(
        &mut self,
        node: &Node,
    ) -> (Vec<(String, String, Vec<u8>)>, Vec<(String, Pattern)>) {
        let Some(mut fields) = Fields::of(node, &mut self.mistakes) else {
            return Default::default();
        };
        let (before, after) = (fields.take("before"), fields.take("after"));
        fields.finish(&mut self.mistakes);
        let mut entries = Vec::new();
        let before = before.map(|node| members(node, &mut self.mistakes));
        for bucket in before.unwrap_or_default() {
            for entry in members(&bucket.node, &mut self.mistakes) {
                let value = match self.data.given(&entry.node, &mut self.mistakes) {
                    Json::String(text) => text,
                    value => value.to_string(),
                };
                entries.push((bucket.key.clone(), entry.key.clone(), value.into_bytes()));
            }
        }
        let after = after.map(|node| members(node, &mut self.mistakes));
        let after = after.unwrap_or_default().iter().map(|bucket| {
            let expected = self.data.expected(&bucket.node, &mut self.mistakes);
            (bucket.key.clone(), expected)
        });
        (entries, after.collect())
    }

    pub(super) fn metrics(&mut self, node: &Node) -> Vec<(String, f64)> {
        let mut metrics = Vec::new();
        for entry in members(node, &mut self.mistakes) {
            match &entry.node.value {
                Value::Integer(number) => metrics.push((entry.key.clone(), *number as f64)),
                Value::Float(number) => metrics.push((entry.key.clone(), *number)),
                other => {
                    let message = format!("a number is expected, this is {}", other.kind());
                    let remedy = "write the sum over all labels; of a histogram, how many";
                    self.mistakes.push(entry.node.mistake(message, remedy));
                }
            }
        }
        metrics
    }

    pub(super) fn fault(&mut self, node: &Node, is_request: bool) -> Fault {
        if is_request {
            let remedy = "use a limit of [worker], or a failing call, as the fault";
            self.note(&node.place, "these faults are of jobs", remedy);
            return Fault::None;
        }
        match &node.value {
            Value::Text(_) => match word(node, &["duplicate", "crash"], &mut self.mistakes) {
                Some("duplicate") => Fault::Duplicate,
                Some(_) => Fault::Crash,
                None => Fault::None,
            },
            _ => {
                let Some(mut fields) = Fields::of(node, &mut self.mistakes) else {
                    return Fault::None;
                };
                let number = self.required(&mut fields, "crash_at_call", "fault = \"crash\"");
                fields.finish(&mut self.mistakes);
                number.map_or(Fault::None, |node| {
                    Fault::CrashAtCall(whole(node, 1, 1_000_000, &mut self.mistakes))
                })
            }
        }
    }
}

fn answer(failure: &str, reason: Option<String>) -> Answer {
    match failure {
        "timeout" => Answer::Timeout,
        "unknown-type" => Answer::UnknownType,
        "no-live-worker" => Answer::NoLiveWorker,
        "queue-full" => Answer::QueueFull,
        "unavailable" => Answer::Unavailable,
        _ => Answer::Failed(reason.unwrap_or_else(|| "the case says so".to_owned())),
    }
}
