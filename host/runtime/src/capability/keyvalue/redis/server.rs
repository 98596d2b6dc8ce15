//! The connection to one server, which all workers share that use it: made when it is needed, and
//! again when it has been lost. Commands of several runs are on their way at the same time.
//!
//! Invariant: a server that cannot be reached costs a run no more than [`ANSWER`] for each command, and
//! there is one attempt to reach it at a time, however many wait for it.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, RedisError, Value,
    aio::{ConnectionLike, MultiplexedConnection},
    io::tcp::TcpSettings,
};
use tokio::{sync::Mutex, time::timeout};

use super::{Failure, read_refusal};
use crate::capability::keyvalue::RedisUrl;

/// How long the server may take for one command, its connection included.
const ANSWER: Duration = Duration::from_secs(5);
/// How long one attempt to connect may take.
const CONNECT: Duration = Duration::from_secs(3);
/// For so long after an attempt that failed there is no other one.
const PAUSE: Duration = Duration::from_millis(200);
/// Commands on their way at the same time; further ones wait.
const MAX_IN_FLIGHT: usize = 256;

/// One server.
pub(in super::super) struct Server {
    url: RedisUrl,
    link: Mutex<Link>,
}

#[derive(Default)]
struct Link {
    connection: Option<Connection>,
    /// When the last attempt failed, and why. The operator has been told.
    failed: Option<(Instant, String)>,
}

/// Which connection it is: whoever has lost it must not take a newer one away.
#[derive(Clone)]
struct Connection {
    stream: MultiplexedConnection,
    mark: Arc<()>,
}

impl Server {
    pub(in super::super) fn new(url: RedisUrl) -> Self {
        Self {
            url,
            link: Mutex::default(),
        }
    }

    /// Has the server carry out a command.
    ///
    /// # Cancel safety
    /// A command that is on its way is carried out.
    pub(super) async fn ask(&self, command: &Cmd) -> Result<Value, Failure> {
        let deadline = Instant::now() + ANSWER;
        let connecting = tokio::time::timeout_at(deadline.into(), self.connection());
        let mut connection = connecting.await.map_err(|_| silent())??;
        let answered = connection.stream.req_packed_command(command);
        match tokio::time::timeout_at(deadline.into(), answered).await {
            Ok(answer) => match answer.and_then(Value::extract_error) {
                Ok(value) => Ok(value),
                Err(error) => Err(self.read(&connection, &error).await),
            },
            Err(_) => {
                self.lose(&connection, "it does not answer").await;
                Err(silent())
            }
        }
    }

    async fn read(&self, connection: &Connection, error: &RedisError) -> Failure {
        // A server that only reads has been replaced by another one under its name.
        let is_replaced = error.code() == Some("READONLY");
        if !error.is_unrecoverable_error() && !is_replaced {
            return read_refusal(error);
        }
        let reason = shown(error);
        self.lose(connection, &reason).await;
        unreachable(&reason)
    }

    async fn connection(&self) -> Result<Connection, Failure> {
        let mut link = self.link.lock().await;
        if let Some(connection) = &link.connection {
            return Ok(connection.clone());
        }
        if let Some((when, reason)) = &link.failed
            && when.elapsed() < PAUSE
        {
            return Err(unreachable(reason));
        }
        match connect(&self.url).await {
            Ok(stream) => {
                if link.failed.take().is_some() {
                    tracing::info!(server = %self.url, "the key-value server is reached again");
                }
                let mark = Arc::new(());
                let connection = Connection { stream, mark };
                link.connection = Some(connection.clone());
                Ok(connection)
            }
            Err(reason) => {
                link.fail(&self.url, &reason);
                Err(unreachable(&reason))
            }
        }
    }

    /// The next command connects anew.
    async fn lose(&self, lost: &Connection, reason: &str) {
        let mut link = self.link.lock().await;
        let is_lost = |now: &Connection| Arc::ptr_eq(&now.mark, &lost.mark);
        if link.connection.as_ref().is_some_and(is_lost) {
            link.connection = None;
            tracing::debug!(server = %self.url, reason, "connection to the key-value server lost");
        }
    }
}

impl Link {
    /// Tells the operator once, until it works again.
    fn fail(&mut self, url: &RedisUrl, reason: &str) {
        if self.failed.is_none() {
            tracing::warn!(
                server = %url, reason,
                "the key-value server cannot be reached, so its workers are told to try later"
            );
        }
        self.failed = Some((Instant::now(), reason.to_owned()));
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server({})", self.url)
    }
}

/// The text of an error names no address and no password.
async fn connect(url: &RedisUrl) -> Result<MultiplexedConnection, String> {
    let settings = until_given_up(TcpSettings::default().set_nodelay(true));
    let info = url.connection_info().map_err(|error| shown(&error))?;
    let client = Client::open(info.set_tcp_settings(settings)).map_err(|error| shown(&error))?;
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(None)
        // A command has its time from us, its connection included.
        .set_response_timeout(None)
        .set_concurrency_limit(MAX_IN_FLIGHT);
    let connecting = client.get_multiplexed_async_connection_with_config(&config);
    match timeout(CONNECT, connecting).await {
        Ok(connected) => connected.map_err(|error| shown(&error)),
        Err(_) => Err(format!("no connection within {CONNECT:?}")),
    }
}

/// A server that has gone without a word is known to be gone after that.
#[cfg(target_os = "linux")]
fn until_given_up(settings: TcpSettings) -> TcpSettings {
    settings.set_user_timeout(ANSWER)
}

#[cfg(not(target_os = "linux"))]
fn until_given_up(settings: TcpSettings) -> TcpSettings {
    settings
}

fn unreachable(reason: &str) -> Failure {
    Failure::Unavailable(format!("the server cannot be reached: {reason}"))
}

fn silent() -> Failure {
    Failure::Unavailable(format!("the server has not answered within {ANSWER:?}"))
}

fn shown(error: &RedisError) -> String {
    match error.kind() {
        ErrorKind::AuthenticationFailed => {
            "it does not take the user and the password of the URL".to_owned()
        }
        _ => error.to_string(),
    }
}
