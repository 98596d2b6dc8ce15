//! What a case expects: the outcome of a job, or the response to a request.

use super::Reader;
use crate::testing::{
    case::{Body, End, Expect},
    document::{Node, Value},
    fields::{Fields, duration, text, truth, whole, word},
    pattern::Pattern,
};

/// The words for how a run ends without a verdict.
const FAULTS: [&str; 11] = [
    "trap",
    "oom",
    "tables",
    "stack",
    "timeout",
    "cpu",
    "host_calls",
    "resources",
    "decode",
    "denied",
    "busy",
];

impl Reader<'_> {
    pub(super) fn expected_body(&mut self, fields: &mut Fields<'_>) -> Option<Body> {
        let (json, body) = (fields.take("json"), fields.take("body"));
        let json = json.map(|node| Body::Json(self.data.expected(node, &mut self.mistakes)));
        let body = body.map(|node| Body::Text(self.data.expected(node, &mut self.mistakes)));
        json.or(body)
    }

    pub(super) fn expected_headers(&mut self, fields: &mut Fields<'_>) -> Vec<(String, Pattern)> {
        let Some(node) = fields.take("headers") else {
            return Vec::new();
        };
        match self.data.expected(node, &mut self.mistakes) {
            Pattern::Object(members) => members,
            _ => {
                let mistake =
                    node.mistake("a table is expected", "headers = { etag = \"#present\" }");
                self.mistakes.push(mistake);
                Vec::new()
            }
        }
    }

    pub(super) fn expect(&mut self, node: &Node, is_request: bool) -> Option<Expect> {
        let mut fields = Fields::of(node, &mut self.mistakes)?;
        let attempts = fields.take("attempts");
        let attempts = attempts.map_or(1, |node| whole(node, 1, 1000, &mut self.mistakes));
        let dead_letter = fields.take("dead_letter");
        let dead_letter = dead_letter.and_then(|node| text(node, &mut self.mistakes));
        let mut ends = Vec::new();
        if let Some(node) = fields.take("not_loaded") {
            let reason = self.data.expected(node, &mut self.mistakes);
            ends.push(End::NotLoaded(reason));
        }
        if is_request {
            if let Some(node) = fields.take("status") {
                let status = whole(node, 100, 599, &mut self.mistakes);
                ends.push(End::Response {
                    status: u16::try_from(status).unwrap_or_default(),
                    headers: self.expected_headers(&mut fields),
                    body: self.expected_body(&mut fields),
                });
            }
        } else {
            self.verdicts(&mut fields, &mut ends);
        }
        let place = fields.place.clone();
        fields.finish(&mut self.mistakes);
        let n_ends = ends.len();
        match ends.pop() {
            Some(end) if n_ends == 1 => Some(Expect {
                end,
                attempts,
                dead_letter,
            }),
            _ => {
                let message = format!("one outcome is expected, here are {n_ends}");
                let remedy = if is_request {
                    "write status = 200"
                } else {
                    "write one of done, forward, route, reject, retry, fault, not_loaded"
                };
                self.note(&place, &message, remedy);
                None
            }
        }
    }

    fn verdicts(&mut self, fields: &mut Fields<'_>, ends: &mut Vec<End>) {
        if let Some(node) = fields.take("done")
            && truth(node, &mut self.mistakes)
        {
            ends.push(End::Done);
        }
        if let Some(node) = fields.take("forward") {
            ends.push(End::Forward(self.data.expected(node, &mut self.mistakes)));
        }
        if let Some(node) = fields.take("route")
            && let Some(mut fields) = Fields::of(node, &mut self.mistakes)
        {
            let stops = self.required(&mut fields, "stops", "stops = [\"WB:*\"]");
            let stops = stops.map(|node| self.expected_stops(node));
            let data = self.required(&mut fields, "data", "data = \"#present\"");
            let data = data.map(|node| self.data.expected(node, &mut self.mistakes));
            fields.finish(&mut self.mistakes);
            if let (Some(stops), Some(data)) = (stops, data) {
                ends.push(End::Route { stops, data });
            }
        }
        if let Some(node) = fields.take("reject") {
            ends.push(End::Reject(self.data.expected(node, &mut self.mistakes)));
        }
        if let Some(node) = fields.take("retry") {
            let mut after = None;
            let reason = match &node.value {
                Value::Table(_) => Fields::of(node, &mut self.mistakes).and_then(|mut fields| {
                    let written = fields.take("after");
                    after = written.map(|node| duration(node, &mut self.mistakes));
                    let reason = self.required(&mut fields, "reason", "reason = \"#string\"");
                    fields.finish(&mut self.mistakes);
                    reason
                }),
                _ => Some(node),
            };
            if let Some(node) = reason {
                let reason = self.data.expected(node, &mut self.mistakes);
                ends.push(End::Retry { reason, after });
            }
        }
        if let Some(node) = fields.take("fault") {
            let mut said = None;
            let kind = match &node.value {
                Value::Table(_) => Fields::of(node, &mut self.mistakes).and_then(|mut fields| {
                    said = fields.take("text");
                    let kind = self.required(&mut fields, "kind", "kind = \"trap\"");
                    fields.finish(&mut self.mistakes);
                    kind
                }),
                _ => Some(node),
            };
            let kind = kind.and_then(|node| word(node, &FAULTS, &mut self.mistakes));
            if let Some(kind) = kind {
                ends.push(End::Fault {
                    kind: kind.to_owned(),
                    text: said.map(|node| self.data.expected(node, &mut self.mistakes)),
                });
            }
        }
    }
}
