//! The codecs of MicroServices.js in a Node process. It ends with the value that stands for it.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use bytes::Bytes;
use serde_json::{Value, json};
use warren_protocol::Encoding;

use crate::entry::Entry;

/// The process, and the lines that it reads and writes.
pub(crate) struct Codecs {
    child: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Codecs {
    pub(crate) fn start() -> Self {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
        let packages = tests.with_file_name("examples/migrate/node/node_modules");
        assert!(
            packages.join("bson").exists() && packages.join("msgpack5").exists(),
            "js-bson and msgpack5 are missing: run `npm ci --prefix examples/migrate/node`"
        );
        let mut child = Command::new("node")
            .arg(tests.join("peer/values/values.mjs"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Node.js is missing: install version 20");
        Self {
            requests: child.stdin.take(),
            answers: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }

    pub(crate) fn ask(&mut self, request: &Value) -> Value {
        let mut requests = self.requests.as_ref().unwrap();
        writeln!(requests, "{request}").expect("the Node process has ended");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        let answer: Value = serde_json::from_str(&answer).expect("the Node process has ended");
        assert!(answer["error"].is_null(), "{}", answer["error"]);
        answer
    }

    pub(crate) fn entries(&mut self, request: &Value) -> Vec<Entry> {
        let answer = self.ask(request);
        answer.as_array().unwrap().iter().map(Entry::read).collect()
    }

    /// What the libraries see in bytes, or why they do not.
    pub(crate) fn see(&mut self, bodies: &[(Encoding, Bytes)]) -> Vec<Result<String, String>> {
        let bodies: Vec<_> = bodies
            .iter()
            .map(|(encoding, body)| json!([name(*encoding), to_hex(body)]))
            .collect();
        let seen = self.ask(&json!({"decode": bodies}));
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let seen = seen.as_array().unwrap().iter();
        seen.map(|seen| text(&seen["sees"]).ok_or_else(|| text(&seen["error"]).unwrap()))
            .collect()
    }
}

impl Drop for Codecs {
    /// The end of its input is the end of the process.
    fn drop(&mut self) {
        drop(self.requests.take());
        drop(self.child.wait());
    }
}

/// As the script calls it, which is as a configuration does.
pub(crate) fn name(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::Json => "json",
        Encoding::Bson => "bson",
        Encoding::MessagePack => "msgpack",
    }
}

pub(crate) fn encoding(name: &Value) -> Encoding {
    name.as_str().unwrap().parse().unwrap()
}

pub(crate) fn hex(digits: &Value) -> Bytes {
    let digits = digits.as_str().unwrap().as_bytes();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn to_hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
    let digit = |digit: u8| char::from_digit(digit.into(), 16);
    digits.filter_map(digit).collect()
}
