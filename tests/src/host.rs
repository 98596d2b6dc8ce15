//! The built `warren`, seen from outside: started in a folder of its own, on free ports, with the
//! plugins that a test names.
//!
//! Invariant: a host never outlives its [`Host`], and a test that fails shows what it logged.

#![allow(
    clippy::panic,
    clippy::print_stderr,
    reason = "a test whose host does not start has failed, and shows the log"
)]

use std::{
    env,
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use hyper::Method;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    LIMIT, Site, eventually, eventually_within,
    http::{Client, Response},
    tools,
};

/// What is shown of the log of a host whose test has failed: a flood must not hide which test that was.
const SHOWN_LINES: usize = 60;
const SHOWN_BYTES: usize = 600;

/// How a host is to be started. It runs with what [`Setup::new`] says unless told otherwise.
pub struct Setup {
    folder: TempDir,
    arguments: Vec<String>,
    command: Vec<String>,
    environment: Vec<(String, String)>,
}

/// A running host.
pub struct Host {
    process: Process,
    /// Its plugins folder.
    pub plugins: PathBuf,
    /// Where HTTP workers are reached.
    pub http: SocketAddr,
    /// Where metrics and health are.
    pub admin: SocketAddr,
    _folder: TempDir,
}

/// What an ended host leaves.
#[derive(Debug)]
pub struct End {
    /// The exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// From the request to end to the end.
    pub took: Duration,
    /// All that it wrote to standard error.
    pub log: String,
}

impl Setup {
    /// A host on this bus, with no plugins, in an empty folder, with the default configuration.
    ///
    /// # Panics
    /// When a folder cannot be made.
    #[must_use]
    pub fn new(site: &Site) -> Self {
        let folder = tempfile::Builder::new().prefix("warren-host-").tempdir();
        let folder = must("making a folder", folder);
        must(
            "making a folder",
            fs::create_dir(folder.path().join("plugins")),
        );
        let broker = site.url().unwrap_or("embedded").to_owned();
        Self {
            folder,
            command: vec!["run".to_owned()],
            arguments: Vec::new(),
            // Not on the command line, as an operator would do it.
            environment: vec![("WARREN_BROKER".to_owned(), broker)],
        }
    }

    /// The example: REST, Pilot and DB.
    #[must_use]
    pub fn with_movies(self) -> Self {
        self.with_plugins(["rest", "pilot", "db"])
    }

    /// Puts built plugins into the folder, each under its own name.
    ///
    /// # Panics
    /// When one is not built; the text says how to.
    #[must_use]
    pub fn with_plugins<const N: usize>(self, names: [&str; N]) -> Self {
        names.into_iter().fold(self, |setup, name| {
            setup.with_file(&format!("plugins/{name}.wasm"), plugin(name))
        })
    }

    /// Puts a file into the host's folder.
    ///
    /// # Panics
    /// When it cannot be written.
    #[must_use]
    pub fn with_file(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        let place = self.folder.path().join(name);
        if let Some(parent) = place.parent() {
            must("making a folder", fs::create_dir_all(parent));
        }
        must("writing a file", fs::write(place, content));
        self
    }

    /// Writes `config/warren.toml`.
    #[must_use]
    pub fn with_config(self, toml: &str) -> Self {
        self.with_file("config/warren.toml", toml)
    }

    /// Adds an option and its value. The last one counts.
    #[must_use]
    pub fn with_option(mut self, option: &str, value: impl AsRef<OsStr>) -> Self {
        let value = value.as_ref().to_string_lossy().into_owned();
        self.arguments.extend([option.to_owned(), value]);
        self
    }

    /// Joins these nodes instead of the bus that was given: one URL, or several with commas.
    #[must_use]
    pub fn with_broker(self, urls: &str) -> Self {
        self.with_variable("WARREN_BROKER", urls)
    }

    /// Sets an environment variable. The last one counts.
    #[must_use]
    pub fn with_variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Runs `warren dev` on this folder instead of `warren run`.
    #[must_use]
    pub fn with_dev(mut self, guests: &Path) -> Self {
        self.command = vec!["dev".to_owned(), guests.to_string_lossy().into_owned()];
        self.with_variable("WARREN_TOOLS", &tools().to_string_lossy())
    }

    /// A further folder for `warren dev`.
    #[must_use]
    pub fn with_folder(mut self, folder: &Path) -> Self {
        self.command.push(folder.to_string_lossy().into_owned());
        self
    }

    /// Starts it, and returns when it is ready.
    ///
    /// # Panics
    /// When it does not become ready.
    pub async fn start(self) -> Host {
        let host = self.start_unready().await;
        host.ready().await;
        host
    }

    /// A manager without workers instead of a host.
    #[must_use]
    pub fn with_manager(mut self) -> Self {
        self.command = vec!["manager".to_owned()];
        self
    }

    fn is_manager(&self) -> bool {
        self.command.first().is_some_and(|word| word == "manager")
    }

    /// Starts it, and returns when it listens.
    ///
    /// # Panics
    /// When it ends instead.
    pub async fn start_unready(mut self) -> Host {
        let addresses = ["--admin=127.0.0.1:0", "--http=127.0.0.1:0"];
        // A manager has no HTTP workers.
        let n_addresses = if self.is_manager() { 1 } else { 2 };
        let mut addresses = addresses.into_iter().take(n_addresses).collect::<Vec<_>>();
        // An option is given once.
        addresses.retain(|address| {
            let given = |argument: &String| address.starts_with(&format!("{argument}="));
            !self.arguments.iter().any(given)
        });
        let mut process = self.spawn(&addresses);
        let line = eventually("the host listens", async || {
            if let Some(code) = process.ended() {
                panic!("the host ended with {code:?} instead of listening");
            }
            process.find("listening")
        })
        .await;
        let address = |name: &str| -> SocketAddr {
            let text = line.get(name).or(line.get("admin"));
            let text = text.and_then(Value::as_str).unwrap_or_default();
            must("reading an address", text.parse())
        };
        let plugins = line.get("plugins").and_then(Value::as_str);
        Host {
            http: address("http"),
            admin: address("admin"),
            plugins: self.folder.path().join(plugins.unwrap_or_default()),
            process,
            _folder: self.folder,
        }
    }

    /// Starts it, and returns when it has ended by itself. What it binds is as configured.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn run_to_its_end(mut self) -> End {
        self.spawn(&[]).end().await
    }

    fn spawn(&mut self, addresses: &[&str]) -> Process {
        let mut command = Command::new(binary());
        command
            .args(&self.command)
            .arg("--log-format=json")
            .args(addresses)
            .args(&self.arguments)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        for (name, _) in env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("WARREN_") || text == "BROKER_URL" {
                command.env_remove(&name);
            }
        }
        command.envs(self.environment.iter().cloned());
        Process::spawn(command)
    }
}

impl Host {
    /// Returns when `/readyz` says so.
    ///
    /// # Panics
    /// When it does not.
    pub async fn ready(&self) {
        self.ready_within(LIMIT).await;
    }

    /// As [`Host::ready`], where what is built or compiled first takes long.
    ///
    /// # Panics
    /// When it is not ready after `limit`.
    pub async fn ready_within(&self, limit: Duration) {
        let mut last = String::new();
        eventually_within(limit, "the host is ready", async || {
            let response = self.admin("/readyz").await;
            if response.text() != last {
                last = response.text();
                eprintln!("{last}");
            }
            response.status.is_success().then_some(())
        })
        .await;
    }

    /// A connection to the HTTP workers.
    ///
    /// # Panics
    /// When there is none.
    pub async fn client(&self) -> Client {
        must("connecting", Client::connect(self.http).await)
    }

    /// `GET`s from the HTTP workers, on a connection of its own.
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn get(&self, path: &str) -> Response {
        self.send(Method::GET, path, "").await
    }

    /// `POST`s to the HTTP workers, on a connection of its own.
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn post(&self, path: &str, body: impl Into<Vec<u8>>) -> Response {
        self.send(Method::POST, path, body).await
    }

    /// Sends a request to the HTTP workers, on a connection of its own.
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn send(&self, method: Method, path: &str, body: impl Into<Vec<u8>>) -> Response {
        let answer = self.client().await.send(method, path, body.into()).await;
        must("asking the host", answer)
    }

    /// `GET`s from the operator's port.
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn admin(&self, path: &str) -> Response {
        let mut client = must("connecting", Client::connect(self.admin).await);
        must("asking the host", client.get(path).await)
    }

    /// What the operator's port says, as JSON.
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn admin_json(&self, path: &str) -> Value {
        self.admin(path).await.json()
    }

    /// The entry of a worker type in `/workers`.
    pub async fn worker(&self, worker_type: &str) -> Option<Value> {
        find(self.admin_json("/workers").await, "type", worker_type)
    }

    /// The entry of a file in `/plugins`.
    pub async fn file(&self, name: &str) -> Option<Value> {
        find(self.admin_json("/plugins").await, "file", name)
    }

    /// Copies a file into the plugins folder the way `cp` does: into the file that is there.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn drop_in(&self, name: &str, bytes: impl AsRef<[u8]>) {
        must(
            "writing a plugin",
            fs::write(self.plugins.join(name), bytes),
        );
    }

    /// Deletes a file from the plugins folder.
    ///
    /// # Panics
    /// When it is not there.
    pub fn take_out(&self, name: &str) {
        must(
            "deleting a plugin",
            fs::remove_file(self.plugins.join(name)),
        );
    }

    /// Whether a line of the log has this text.
    #[must_use]
    pub fn log_contains(&self, text: &str) -> bool {
        self.process.lines().iter().any(|line| line.contains(text))
    }

    /// The last line of the log with this message, and all these texts anywhere in it.
    ///
    /// # Panics
    /// When there is none.
    pub async fn logged<const N: usize>(&self, message: &str, texts: [&str; N]) -> Value {
        let what = format!("the log says {message:?} with {texts:?}");
        eventually(&what, async || {
            let lines = self.log();
            let mut lines = lines.lines().rev();
            let line = lines.find(|line| {
                is_message(line, message) && texts.iter().all(|text| line.contains(text))
            })?;
            serde_json::from_str(line).ok()
        })
        .await
    }

    /// All that it wrote to standard error.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.lines().join("\n")
    }

    /// Ends it the way an orchestrator does, with SIGTERM.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn stop(self) -> End {
        self.signal("TERM");
        self.end().await
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.child.id()
    }

    /// Sends a signal, such as `INT`.
    pub fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn end(mut self) -> End {
        self.process.end().await
    }

    /// Kills it (`kill -9`).
    ///
    /// # Panics
    /// When it does not end.
    pub async fn kill(self) {
        self.signal("KILL");
        self.end().await;
    }
}

/// A built plugin: the file `guests/target/wasm32-wasip2/release/<name>.wasm`.
///
/// # Panics
/// When it is not built; the text says how to.
#[must_use]
pub fn plugin(name: &str) -> Vec<u8> {
    match fs::read(plugin_file(name)) {
        Ok(bytes) => bytes,
        Err(error) => panic!(
            "the plugin {name} is not built ({error}): run `cargo build --release --workspace` in \
             guests/"
        ),
    }
}

/// Where a built plugin is.
#[must_use]
pub fn plugin_file(name: &str) -> PathBuf {
    let built = repository().join("guests/target/wasm32-wasip2/release");
    built.join(format!("{name}.wasm"))
}

/// The root of the checkout.
///
/// # Panics
/// Never: this crate lies in it.
#[must_use]
pub fn repository() -> &'static Path {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests)
}

/// The `warren` beside the running test: `<target>/release/deps/<test>` is next to
/// `<target>/release/warren`.
///
/// # Panics
/// When it is not built; the text says how to.
#[must_use]
pub fn binary() -> PathBuf {
    let test = must("finding the test's own file", env::current_exe());
    // A benchmark is beside it.
    let folders = test.ancestors().skip(1).take(2);
    let mut binaries = folders.map(|folder| folder.join("warren"));
    let binary = binaries.find(|binary| binary.is_file());
    match binary {
        Some(binary) => binary,
        _ => panic!(
            "there is no `warren` beside {}: run `cargo build --release`",
            test.display()
        ),
    }
}

/// A process and what it has written to standard error.
struct Process {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<thread::JoinHandle<()>>,
}

impl Process {
    fn spawn(mut command: Command) -> Self {
        let mut child = must("starting warren", command.spawn());
        let lines = Arc::new(Mutex::new(Vec::new()));
        let reader = child.stderr.take().map(|stderr| {
            let lines = lines.clone();
            thread::spawn(move || read(stderr, &lines))
        });
        Self {
            child,
            lines,
            reader,
        }
    }

    fn lines(&self) -> MutexGuard<'_, Vec<String>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first line of the log with this message.
    fn find(&self, message: &str) -> Option<Value> {
        let lines = self.lines();
        let line = lines.iter().find(|line| is_message(line, message))?;
        serde_json::from_str(line).ok()
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill")
            .args([&format!("-{name}"), &pid])
            .status();
        must("sending a signal", sent);
    }

    /// Its exit code, once it has ended.
    fn ended(&mut self) -> Option<Option<i32>> {
        let status = must("waiting for warren", self.child.try_wait());
        status.map(|status| status.code())
    }

    async fn end(&mut self) -> End {
        let asked = Instant::now();
        let code = eventually("the host ends", async || self.ended()).await;
        let took = asked.elapsed();
        // Nothing is read before the last line has been.
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        End {
            code,
            took,
            log: self.lines().join("\n"),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let lines = self.lines();
            let n_left_out = lines.len().saturating_sub(SHOWN_LINES);
            eprintln!(
                "--- what the host {} wrote, {n_left_out} earlier lines left out:",
                self.child.id()
            );
            for line in lines.iter().skip(n_left_out) {
                let end = line.floor_char_boundary(SHOWN_BYTES);
                eprintln!("{}", line.get(..end).unwrap_or_default());
            }
        }
    }
}

fn read(stderr: ChildStderr, lines: &Mutex<Vec<String>>) {
    for line in BufReader::new(stderr).lines() {
        let Ok(line) = line else { return };
        lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(line);
    }
}

fn is_message(line: &str, message: &str) -> bool {
    // Cheaper than reading each line as JSON.
    line.contains(&format!(r#""message":"{message}""#))
}

/// The entry of a list whose member `key` is `value`.
fn find(list: Value, key: &str, value: &str) -> Option<Value> {
    let Value::Array(entries) = list else {
        return None;
    };
    let mut entries = entries.into_iter();
    entries.find(|entry| entry.get(key).and_then(Value::as_str) == Some(value))
}

#[track_caller]
fn must<T, E: std::fmt::Debug>(what: &str, result: Result<T, E>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{what}: {error:?}"),
    }
}
