//! Reads a file of cases. Every mistake of it is found, each with its place and remedy.

mod around;
mod expect;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, path::Path, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::Value as Json;
use warren_protocol::{Address, Stop, WorkerId, WorkerType};
use warren_runtime::Secret;

use super::{
    case::{Case, Input, JobIn},
    document::{self, Node, Value},
    fields::{Fields, duration, text, texts, truth, whole, word},
    matching::Mode,
    pattern::{Data, Pattern},
};
use crate::config::{Apart, Config, Mistake, Place, SecretSource, Step};

/// Who has sent a job that does not say.
pub(super) const SENDER: &str = "CASE:2000000000000";
/// The id of a job that does not say.
const JOB_ID: &str = "job-1";
/// How soon a job runs again: as a production host decides, in a thousandth of the time.
const RETRY: Duration = Duration::from_millis(1);
/// Reads the cases of a file for a worker. `base` is what a case does not say.
///
/// # Errors
/// All mistakes of the file.
pub(super) fn read(
    path: &Path,
    content: &str,
    worker_type: &WorkerType,
    base: &Config,
) -> Result<Vec<Case>, Vec<Mistake>> {
    let root = document::parse(path, content)?;
    let apart = Apart::parse(path, content)?;
    let mut reader = Reader {
        path,
        worker_type,
        apart,
        data: Data {
            folder: path.parent().unwrap_or(Path::new("")),
        },
        mistakes: Vec::new(),
    };
    let cases = reader.file(&root, base);
    match reader.mistakes {
        mistakes if mistakes.is_empty() => Ok(cases),
        mistakes => Err(mistakes),
    }
}

struct Reader<'a> {
    path: &'a Path,
    worker_type: &'a WorkerType,
    /// The same file, for the tables of the worker.
    apart: Apart,
    data: Data<'a>,
    mistakes: Vec<Mistake>,
}

impl Reader<'_> {
    fn file(&mut self, root: &Node, base: &Config) -> Vec<Case> {
        let Some(mut fields) = Fields::of(root, &mut self.mistakes) else {
            return Vec::new();
        };
        let mut config = base.clone();
        // What a host's configuration names is the work of others: a case begins with empty ones.
        for own in config.workers.values_mut() {
            own.database = None;
            own.redis = None;
        }
        for limits in [&mut config.limits]
            .into_iter()
            .chain(config.workers.values_mut().map(|own| &mut own.limits))
        {
            (limits.retry_base, limits.retry_cap) = (RETRY, RETRY);
        }
        self.environment(&mut fields, &[], &mut config);
        let mode = self.mode(&mut fields, Mode::Exact);
        let nodes = fields.tables("case");
        fields.finish(&mut self.mistakes);
        if nodes.is_empty() {
            self.note(&root.place, "there is no case", "begin one with [[case]]");
        }
        let mut names = BTreeSet::new();
        let mut cases = Vec::new();
        for (index, node) in nodes.iter().enumerate() {
            let Some(case) = self.case(node, index, config.clone(), mode) else {
                continue;
            };
            if !names.insert(case.name.clone()) {
                let message = format!("there is another case `{}` in this file", case.name);
                self.note(&node.place, &message, "give each a name of its own");
            }
            cases.push(case);
        }
        cases
    }

    /// The keys that a file and each of its cases may have: what the host of a case is like.
    fn environment(&mut self, fields: &mut Fields<'_>, steps: &[Step<'_>], config: &mut Config) {
        // Read from the other tree; here it must only be known.
        let has_table = fields.take("worker").is_some();
        let steps: Vec<_> = steps.iter().copied().chain([Step::Key("worker")]).collect();
        if has_table {
            let mistakes = self.apart.read(&steps, self.worker_type, config);
            self.mistakes.extend(mistakes);
        }
        if let Some(node) = fields.take("encoding") {
            let words = ["json", "bson", "msgpack"];
            let encoding = word(node, &words, &mut self.mistakes);
            if let Some(encoding) = encoding.and_then(|word| word.parse().ok()) {
                config.encoding = encoding;
            }
        }
        if let Some(node) = fields.take("call_timeout") {
            config.call_timeout = duration(node, &mut self.mistakes);
        }
        let Some(secrets) = fields.take("secrets") else {
            return;
        };
        let limits = config.limits.clone();
        let worker = config.workers.entry(self.worker_type.clone());
        let worker = worker.or_insert_with(|| crate::config::WorkerConfig {
            limits,
            ..Default::default()
        });
        for entry in members(secrets, &mut self.mistakes) {
            let Some(value) = text(&entry.node, &mut self.mistakes) else {
                continue;
            };
            let source = SecretSource::Variable {
                name: entry.key.clone(),
                value: Some(Secret::new(value)),
            };
            worker.secrets.insert(entry.key.clone(), source);
        }
    }

    fn mode(&mut self, fields: &mut Fields<'_>, otherwise: Mode) -> Mode {
        let node = fields.take("match");
        let written = node.and_then(|node| word(node, &["exact", "subset"], &mut self.mistakes));
        match written {
            Some("subset") => Mode::Subset,
            Some(_) => Mode::Exact,
            None => otherwise,
        }
    }

    fn case(&mut self, node: &Node, index: usize, mut config: Config, mode: Mode) -> Option<Case> {
        let mut fields = Fields::of(node, &mut self.mistakes)?;
        let name = self.required(&mut fields, "name", "name = \"a name is greeted\"");
        let name = name.and_then(|node| text(node, &mut self.mistakes));
        let steps = [Step::Key("case"), Step::Item(index)];
        self.environment(&mut fields, &steps, &mut config);
        let mode = self.mode(&mut fields, mode);
        let input = self.input(&mut fields);
        let is_request = matches!(input, Some(Input::Request { .. }));
        let expect = match fields.take("expect") {
            Some(node) => self.expect(node, is_request),
            None => {
                let remedy =
                    "write expect.forward = {…}, expect.reject = \"…\" or expect.status = 200";
                self.note(fields.place, "the case expects nothing", remedy);
                None
            }
        };
        let calls = fields.tables("call").iter();
        let calls = calls.filter_map(|node| self.call(node, mode)).collect();
        let sends = fields.tables("send").iter();
        let sends = sends.filter_map(|node| self.send(node, mode)).collect();
        let requests = fields.tables("http").iter();
        let requests = requests
            .filter_map(|node| self.exchange(node, mode))
            .collect();
        let sql = fields
            .take("sql")
            .map(|node| self.sql(node))
            .unwrap_or_default();
        let keyvalue = fields.take("keyvalue");
        let (entries, entries_after) = keyvalue.map(|node| self.keyvalue(node)).unwrap_or_default();
        let log = fields.take("log");
        let log = log
            .map(|node| texts(node, &mut self.mistakes))
            .unwrap_or_default();
        let metrics = fields.take("metrics");
        let metrics = metrics.map(|node| self.metrics(node)).unwrap_or_default();
        let fault = fields
            .take("fault")
            .map(|node| self.fault(node, is_request));
        fields.finish(&mut self.mistakes);
        Some(Case {
            name: name?,
            file: self.path.to_owned(),
            config,
            input: input?,
            expect: expect?,
            calls,
            sends,
            sql,
            entries,
            entries_after,
            requests,
            log,
            metrics,
            fault: fault.unwrap_or_default(),
            mode,
        })
    }

    fn input(&mut self, fields: &mut Fields<'_>) -> Option<Input> {
        match (fields.take("job"), fields.take("request")) {
            (Some(node), None) => self.job(node),
            (None, Some(node)) => self.request(node),
            (Some(_), Some(node)) => {
                let message = "a case gives a job or a request, not both";
                self.note(&node.place, message, "make two cases of it");
                None
            }
            (None, None) => {
                let remedy =
                    "write job.data = {…}, or request = { method = \"GET\", path = \"/\" }";
                self.note(fields.place, "the case gives the worker nothing", remedy);
                None
            }
        }
    }

    fn job(&mut self, node: &Node) -> Option<Input> {
        let mut fields = Fields::of(node, &mut self.mistakes)?;
        let data = self.required(&mut fields, "data", "job.data = { name = \"Ripley\" }");
        let data = data.map(|node| self.data.given(node, &mut self.mistakes));
        let id = fields.take("id");
        let id = id.and_then(|node| text(node, &mut self.mistakes));
        let sender = match fields.take("sender") {
            Some(node) => self.worker_id(node),
            None => Some(SENDER.to_owned()),
        };
        let route = fields.take("route");
        let route = route.map(|node| self.stops(node)).unwrap_or_default();
        let position = fields.take("position");
        let position = position.map_or(0, |node| whole(node, 0, 1000, &mut self.mistakes));
        let attempt = fields.take("attempt");
        let attempt = attempt.map_or(1, |node| whole(node, 1, 1000, &mut self.mistakes));
        let trace_parent = fields.take("trace_parent");
        let trace_parent = trace_parent.and_then(|node| text(node, &mut self.mistakes));
        let is_call = fields.take("call");
        let is_call = is_call.is_some_and(|node| truth(node, &mut self.mistakes));
        fields.finish(&mut self.mistakes);
        Some(Input::Job(JobIn {
            data: data?,
            id: id.unwrap_or_else(|| JOB_ID.to_owned()),
            sender: sender?,
            route,
            position: position as usize,
            attempt,
            trace_parent,
            is_call,
        }))
    }

    fn request(&mut self, node: &Node) -> Option<Input> {
        let mut fields = Fields::of(node, &mut self.mistakes)?;
        let method = match fields.take("method") {
            None => Some(Method::GET),
            Some(node) => text(node, &mut self.mistakes).and_then(|method| {
                let read = method.parse().ok();
                if read.is_none() {
                    let mistake = node.mistake("this is not an HTTP method", "write \"POST\"");
                    self.mistakes.push(mistake);
                }
                read
            }),
        };
        let path = self.required(&mut fields, "path", "path = \"/movies/\"");
        let path = path.and_then(|node| {
            let path = text(node, &mut self.mistakes)?;
            if path.starts_with('/') && path.parse::<http::Uri>().is_ok() {
                return Some(path);
            }
            let remedy = "begin it with /, and encode what a URL cannot hold: %20";
            let mistake = node.mistake("this is not a path", remedy);
            self.mistakes.push(mistake);
            None
        });
        let mut headers = self.headers(&mut fields);
        let body = self.given_body(&mut fields, &mut headers);
        fields.finish(&mut self.mistakes);
        Some(Input::Request {
            method: method?,
            path: path?,
            headers,
            body,
        })
    }

    fn headers(&mut self, fields: &mut Fields<'_>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let Some(node) = fields.take("headers") else {
            return headers;
        };
        let Value::Table(entries) = &node.value else {
            let mistake = node.mistake(
                "a table is expected",
                "headers = { accept = \"text/html\" }",
            );
            self.mistakes.push(mistake);
            return headers;
        };
        for entry in entries {
            let values = texts(&entry.node, &mut self.mistakes);
            for value in values {
                let name = HeaderName::try_from(entry.key.as_str());
                match (name, HeaderValue::try_from(value)) {
                    (Ok(name), Ok(value)) => drop(headers.append(name, value)),
                    _ => {
                        let message = format!("`{}` cannot be a header", entry.key);
                        self.note(&entry.place, &message, "use a name and a value of HTTP");
                    }
                }
            }
        }
        headers
    }

    /// `json` or `body`; JSON has its content type, unless another one is said.
    fn given_body(&mut self, fields: &mut Fields<'_>, headers: &mut HeaderMap) -> Bytes {
        let (json, body) = (fields.take("json"), fields.take("body"));
        if let Some(node) = json {
            let value = self.data.given(node, &mut self.mistakes);
            let json = HeaderValue::from_static("application/json");
            headers.entry(http::header::CONTENT_TYPE).or_insert(json);
            return value.to_string().into();
        }
        let body = body.and_then(|node| text(node, &mut self.mistakes));
        body.unwrap_or_default().into()
    }

    fn required<'n>(
        &mut self,
        fields: &mut Fields<'n>,
        name: &'static str,
        form: &str,
    ) -> Option<&'n Node> {
        let node = fields.take(name);
        if node.is_none() {
            let message = format!("there is no `{name}`");
            self.note(fields.place, &message, &format!("write {form}"));
        }
        node
    }

    fn stops(&mut self, node: &Node) -> Vec<String> {
        let stops = texts(node, &mut self.mistakes);
        for stop in &stops {
            if let Err(error) = Stop::new(stop.as_str()).address() {
                self.mistakes
                    .push(node.mistake(error.to_string(), "write \"WB:*\""));
            }
        }
        stops
    }

    /// Where something goes: one stop as a text, several as a list, or a pattern for the list.
    fn expected_stops(&mut self, node: &Node) -> Pattern {
        match self.data.expected(node, &mut self.mistakes) {
            Pattern::Exactly(stop) => Pattern::Array(vec![Pattern::Exactly(shown_stop(stop))]),
            Pattern::Array(stops) => Pattern::Array(
                stops
                    .into_iter()
                    .map(|stop| match stop {
                        Pattern::Exactly(stop) => Pattern::Exactly(shown_stop(stop)),
                        other => other,
                    })
                    .collect(),
            ),
            other => other,
        }
    }

    fn worker_id(&mut self, node: &Node) -> Option<String> {
        let id = text(node, &mut self.mistakes)?;
        match id.parse::<WorkerId>() {
            Ok(_) => Some(id),
            Err(error) => {
                let remedy = format!("write the id of a worker: \"{SENDER}\"");
                self.mistakes.push(node.mistake(error.to_string(), remedy));
                None
            }
        }
    }

    fn note(&mut self, place: &Place, message: &str, remedy: &str) {
        self.mistakes.push(Mistake {
            place: place.clone(),
            message: message.to_owned(),
            remedy: remedy.to_owned(),
        });
    }
}

/// A bare type means any worker of it, as it does on the bus.
fn shown_stop(stop: Json) -> Json {
    let address = stop.as_str().map(str::parse::<Address>);
    match address {
        Some(Ok(address)) => Json::from(address.to_string()),
        _ => stop,
    }
}

/// The entries of what should be a table.
fn members<'n>(node: &'n Node, mistakes: &mut Vec<Mistake>) -> &'n [document::Entry] {
    match &node.value {
        Value::Table(entries) => entries,
        other => {
            let message = format!("a table is expected, this is {}", other.kind());
            mistakes.push(node.mistake(message, "write its keys in braces: { name = value }"));
            &[]
        }
    }
}
