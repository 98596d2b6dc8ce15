//! Bounds in time on everything that is awaited from lapin.
//!
//! Some of its futures stay pending for ever when the connection ends in the wrong moment (lapin
//! issues 437, 468, 470; acknowledgements that race with a disconnect).

use std::{fmt, time::Duration};

use lapin::{
    ErrorKind,
    protocol::{AMQPErrorKind, AMQPSoftError},
};
use tokio::time::timeout;

/// Opening a connection: TCP, TLS and the handshake.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// One declare, bind or consume. A quorum queue takes its time on a busy disk.
pub(super) const STEP_TIMEOUT: Duration = Duration::from_secs(10);
/// One frame that needs no answer: it waits for the socket only.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// A clean end of everything.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a join waits to see its worker consuming.
pub(super) const JOIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a step with the broker did not work. Its text holds no password: lapin's errors do not.
#[derive(Debug, Clone)]
pub(super) enum Failure {
    /// No answer in time.
    Silence(&'static str, Duration),
    /// The broker, the socket or lapin said no.
    Refused(&'static str, lapin::Error),
    /// The other side has ended something that should have gone on.
    Ended(&'static str),
}

/// Waits for one answer of lapin, and not for ever. `step` names it in the error.
pub(super) async fn within<T>(
    limit: Duration,
    step: &'static str,
    answer: impl Future<Output = lapin::Result<T>>,
) -> Result<T, Failure> {
    match timeout(limit, answer).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Failure::Refused(step, error)),
        Err(_) => Err(Failure::Silence(step, limit)),
    }
}

impl Failure {
    /// The broker's reply code, where there is one.
    fn reply_code(&self) -> Option<u16> {
        match self {
            Self::Refused(_, error) => match error.kind() {
                ErrorKind::ProtocolError(refusal) => Some(refusal.get_id()),
                _ => None,
            },
            _ => None,
        }
    }

    /// The user, the password or a permission.
    pub(super) fn is_access_refused(&self) -> bool {
        self.reply_code() == Some(403)
    }

    /// Something exists with other properties.
    pub(super) fn is_mismatch(&self) -> bool {
        self.reply_code() == Some(406)
    }

    /// Another connection has it for itself.
    pub(super) fn is_locked(&self) -> bool {
        self.reply_code() == Some(405)
    }

    /// Something does not exist.
    pub(super) fn is_not_found(&self) -> bool {
        matches!(
            self,
            Self::Refused(_, error) if matches!(
                error.kind(),
                ErrorKind::ProtocolError(refusal)
                    if *refusal.kind() == AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND)
            )
        )
    }

    /// A queue does not exist on any node. The other 404 of a queue is that its node is down.
    pub(super) fn is_missing_queue(&self) -> bool {
        self.is_not_found() && self.to_string().contains("no queue")
    }

    /// The virtual host is not there or not for this user.
    pub(super) fn is_not_allowed(&self) -> bool {
        self.reply_code() == Some(530)
    }

    /// Nothing listens at the address.
    pub(super) fn is_connection_refused(&self) -> bool {
        matches!(
            self,
            Self::Refused(_, error) if matches!(
                error.kind(),
                ErrorKind::IOError(io) if io.kind() == std::io::ErrorKind::ConnectionRefused
            )
        )
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silence(step, limit) => {
                write!(f, "{step}: no answer in {} s", limit.as_secs())
            }
            Self::Refused(step, error) => match error.kind() {
                // The broker's own words are the clearest.
                ErrorKind::ProtocolError(refusal) => {
                    write!(f, "{step}: {}", refusal.get_message())
                }
                _ => write!(f, "{step}: {error}"),
            },
            Self::Ended(what) => f.write_str(what),
        }
    }
}
