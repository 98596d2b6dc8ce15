//! A Node process that speaks MicroServices.js (`tests/peer/peer.mjs`), seen from outside: what
//! happens to it, and what it is told to do.
//!
//! Invariant: a process never outlives its [`NodePeer`], and a test that fails shows what it did.

#![allow(
    clippy::panic,
    clippy::print_stderr,
    reason = "a test whose peer does not start has failed, and shows what the peer wrote"
)]

mod process;

use std::{
    collections::HashMap,
    fmt::Debug,
    net::{Ipv4Addr, SocketAddr},
    process::Command,
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use hyper::Method;
use serde_json::{Value, json};
use warren_protocol::Encoding;

use crate::{
    eventually,
    host::repository,
    http::{Client, Response},
};
use process::Process;

const REMEDY: &str = "run tests/install, which gets Node and the packages of examples/migrate/node";

/// The last number that an id was made of: two peers never share one, as they would when they were
/// started within one millisecond.
static LAST_NUMBER: AtomicU64 = AtomicU64::new(0);

/// A running peer.
pub struct NodePeer {
    process: Process,
    id: String,
    port: u16,
    /// How many events of each kind [`NodePeer::next`] has given out.
    n_taken: HashMap<String, usize>,
}

/// Manager, REST, Pilot and DB: the example of MicroServices.js.
pub struct NodeTrio {
    /// The worker `WA`.
    pub rest: NodePeer,
    /// The worker `WD`.
    pub pilot: NodePeer,
    /// The worker `WB`.
    pub db: NodePeer,
    /// Who asks who is there.
    pub manager: NodePeer,
}

impl NodePeer {
    /// Starts one and returns when it is on the bus. `role`: its role and further options of
    /// `peer.mjs`, separated by spaces, such as `worker --type TX --on-job reply`.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start(url: &str, encoding: Encoding, role: &str) -> Self {
        let mut peer = Self::spawn(url, encoding, role);
        let ready = eventually("the Node peer is ready", async || {
            assert!(peer.is_alive(), "a Node peer does not start: {REMEDY}");
            peer.find(|event| is(event, "ready"))
        });
        let ready = ready.await;
        let text = |name: &str| ready.get(name).and_then(Value::as_str);
        peer.id = text("id").unwrap_or_default().to_owned();
        let port = ready.get("port").and_then(Value::as_u64);
        peer.port = port.and_then(|port| port.try_into().ok()).unwrap_or(0);
        peer
    }

    fn spawn(url: &str, encoding: Encoding, role: &str) -> Self {
        let mut words = role.split_whitespace();
        let name = words.next().unwrap_or_default();
        let options: Vec<&str> = words.collect();
        let mut command = Command::new("node");
        command
            .arg(repository().join("tests/peer/peer.mjs"))
            .args(["--broker", url, "--role", name, "--http", "0"])
            .args(["--encoding", encoding_name(encoding)])
            .args(&options);
        if let Some(worker_type) = worker_type(name, &options) {
            command.args(["--id", &format!("{worker_type}:{}", new_number())]);
        }
        let process = match Process::spawn(role, &mut command) {
            Ok(process) => process,
            Err(error) => panic!("Node cannot be started ({error}): {REMEDY}"),
        };
        Self {
            process,
            id: String::new(),
            port: 0,
            n_taken: HashMap::new(),
        }
    }

    /// Its id on the bus, such as `WB:1795220940610`.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Where a `rest` answers HTTP; 0 for any other role.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A connection to a `rest`.
    ///
    /// # Panics
    /// When there is none.
    pub async fn client(&self) -> Client {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        must("connecting", Client::connect(address).await)
    }

    /// `GET`s from a `rest`, on a connection of its own.
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn get(&self, path: &str) -> Response {
        must("asking the peer", self.client().await.get(path).await)
    }

    /// `POST`s to a `rest`, on a connection of its own.
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn post(&self, path: &str, body: &str) -> Response {
        let mut client = self.client().await;
        let answer = client.send(Method::POST, path, body.to_owned()).await;
        must("asking the peer", answer)
    }

    /// Tells it to do something, as `peer.mjs` has it, and returns the event that says that it is
    /// done.
    ///
    /// # Panics
    /// When it is not, or when the peer refuses.
    pub async fn command(&mut self, command: &Value, done: &str) -> Value {
        let n_before = self.count(done);
        let n_refused = self.count("refused");
        must("telling the peer", self.process.tell(&command.to_string()));
        let what = format!("the peer does {command}");
        eventually(&what, async || {
            let refused = self.nth("refused", n_refused);
            assert!(refused.is_none(), "{} {refused:?}", self.id);
            self.nth(done, n_before)
        })
        .await
    }

    /// Has it send a job, and returns the job's id.
    ///
    /// # Panics
    /// When it cannot.
    pub async fn send<const N: usize>(&mut self, stops: [&str; N], data: &Value) -> String {
        let stops = stops.to_vec();
        let command = json!({"do": "send", "stops": stops, "data": data});
        let sent = self.command(&command, "sent").await;
        let id = sent.get("id").and_then(Value::as_str);
        id.unwrap_or_default().to_owned()
    }

    /// Has it publish bytes under a routing key of `notifications`.
    ///
    /// # Panics
    /// When it cannot.
    pub async fn publish(&mut self, key: &str, body: &[u8]) {
        let command = json!({"do": "publish", "key": key, "hex": hex(body)});
        self.command(&command, "published").await;
    }

    /// From now on it takes no job.
    ///
    /// # Panics
    /// When it cannot be told.
    pub async fn hold(&mut self) {
        self.command(&json!({"do": "hold"}), "held").await;
    }

    /// It takes jobs again.
    ///
    /// # Panics
    /// When it cannot be told.
    pub async fn go(&mut self) {
        self.command(&json!({"do": "go"}), "going").await;
    }

    /// What it believes of the pool of its type: `workers` (as in `worker.list`) and `isMyTurn`;
    /// of a manager, the `workers` that it knows.
    ///
    /// # Panics
    /// When it cannot be told.
    pub async fn list(&mut self) -> Value {
        self.command(&json!({"do": "list"}), "list").await
    }

    /// Returns when its list has so many workers, and what [`NodePeer::list`] says then.
    ///
    /// # Panics
    /// When it never has.
    pub async fn wait_for_list(&mut self, n_workers: usize) -> Value {
        let what = format!("{} knows {n_workers} workers", self.id);
        eventually(&what, async || {
            let list = self.list().await;
            let workers = list.get("workers").and_then(Value::as_array);
            (workers.map(Vec::len) == Some(n_workers)).then_some(list)
        })
        .await
    }

    /// Whether it would take the next job for anyone of its type.
    ///
    /// # Panics
    /// When it cannot be told.
    pub async fn is_next(&mut self) -> bool {
        let list = self.list().await;
        list.get("isMyTurn") == Some(&Value::Bool(true))
    }

    /// Has an `observer` ask for the list of workers, and returns the correlation id; what comes
    /// back is an `answer`.
    ///
    /// # Panics
    /// When it cannot.
    pub async fn poll(&mut self) -> String {
        let polled = self.command(&json!({"do": "poll"}), "polled").await;
        let id = polled.get("id").and_then(Value::as_str);
        id.unwrap_or_default().to_owned()
    }

    /// The next event of a kind that this has not returned yet.
    ///
    /// # Panics
    /// When there is none.
    pub async fn next(&mut self, kind: &str) -> Value {
        let n_taken = self.n_taken.get(kind).copied().unwrap_or(0);
        let what = format!("{} has another event {kind}", self.id);
        let event = eventually(&what, async || self.nth(kind, n_taken)).await;
        self.n_taken.insert(kind.to_owned(), n_taken + 1);
        event
    }

    /// The first event like this, of those so far and those to come.
    ///
    /// # Panics
    /// When there is none.
    pub async fn wait_for(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        eventually(what, async || self.find(&is_it)).await
    }

    /// All events so far.
    #[must_use]
    pub fn events(&self) -> Vec<Value> {
        self.process.events().clone()
    }

    /// How many events of a kind there were so far.
    #[must_use]
    pub fn count(&self, kind: &str) -> usize {
        let events = self.process.events();
        events.iter().filter(|event| is(event, kind)).count()
    }

    /// Whether its process runs.
    pub fn is_alive(&mut self) -> bool {
        self.process.is_alive()
    }

    /// Whether its process runs and has not lost its connection.
    pub fn is_well(&mut self) -> bool {
        self.is_alive() && self.count("closed") == 0
    }

    /// Sends its process a signal, such as `STOP`.
    ///
    /// # Panics
    /// When it cannot be sent.
    pub fn signal(&self, name: &str) {
        let pid = self.process.id().to_string();
        let sent = Command::new("kill")
            .args([&format!("-{name}"), &pid])
            .status();
        must("sending a signal", sent);
    }

    /// Ends it the way its user does, with Ctrl-C: it says goodbye.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn leave(self) {
        self.signal("INT");
        self.end().await;
    }

    /// Ends it with SIGTERM, which it does not know: it is gone without a word.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn stop(self) {
        self.signal("TERM");
        self.end().await;
    }

    /// Kills it (`kill -9`).
    ///
    /// # Panics
    /// When it does not end.
    pub async fn kill(self) {
        self.signal("KILL");
        self.end().await;
    }

    /// Closes its input, as the end of a test does, and waits for its end.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn hang_up(mut self) {
        self.process.close_input();
        self.end().await;
    }

    /// Waits for its end, and returns all its events.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn end(mut self) -> Vec<Value> {
        eventually("the Node peer ends", async || {
            (!self.is_alive()).then_some(())
        })
        .await;
        self.process.read_to_the_end();
        self.events()
    }

    fn find(&self, is_it: impl Fn(&Value) -> bool) -> Option<Value> {
        let events = self.process.events();
        events.iter().find(|event| is_it(event)).cloned()
    }

    /// The event of this kind that has `n` before it.
    fn nth(&self, kind: &str, n: usize) -> Option<Value> {
        let events = self.process.events();
        let mut events = events.iter().filter(|event| is(event, kind));
        events.nth(n).cloned()
    }
}

impl NodeTrio {
    /// Starts the four side by side.
    ///
    /// # Panics
    /// When one does not start.
    pub async fn start(url: &str, encoding: Encoding) -> Self {
        let start = |role| NodePeer::start(url, encoding, role);
        let (rest, pilot, db, manager) =
            tokio::join!(start("rest"), start("pilot"), start("db"), start("manager"));
        Self {
            rest,
            pilot,
            db,
            manager,
        }
    }
}

/// The name of an encoding on the command line of a peer.
fn encoding_name(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::Json => "json",
        Encoding::Bson => "bson",
        Encoding::MessagePack => "msgpack",
    }
}

/// The type of a worker with this role; `None` for who is none, and where the test gives the id.
fn worker_type<'a>(role: &str, options: &[&'a str]) -> Option<&'a str> {
    let option = |name: &str| {
        let mut words = options.iter().skip_while(|word| **word != name);
        words.nth(1).copied()
    };
    if option("--id").is_some() {
        return None;
    }
    match role {
        "rest" => Some("WA"),
        "pilot" => Some("WD"),
        "db" => Some("WB"),
        "worker" => Some(option("--type").unwrap_or("TX")),
        _ => None,
    }
}

/// The time in milliseconds, or the next number that is still free.
fn new_number() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now_ms = u64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(0);
    let number = |last: u64| now_ms.max(last + 1);
    let last = LAST_NUMBER.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| {
        Some(number(last))
    });
    number(last.unwrap_or_default())
}

fn is(event: &Value, kind: &str) -> bool {
    event.get("event").and_then(Value::as_str) == Some(kind)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[track_caller]
fn must<T, E: Debug>(what: &str, result: Result<T, E>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{what}: {error:?}"),
    }
}
