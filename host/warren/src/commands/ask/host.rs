//! Sending and calling on the bus inside a host, through its admin port.

use std::{io, net::SocketAddr, time::Duration};

use anyhow::Context;
use bytes::Bytes;
use http::{StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::{
    Request,
    client::conn::http1::{SendRequest, handshake},
};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;
use warren_protocol::{CallError, Encoding, Payload, Slip, Stop};

use crate::calls::request::millis;

/// What a host that is well needs beyond the time of a call.
pub(in crate::commands) const SLACK: Duration = Duration::from_secs(5);
/// For taking a job.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);

/// A host's admin port. One connection, opened when it is needed.
pub(in crate::commands) struct Host {
    address: SocketAddr,
    sender: Option<SendRequest<Full<Bytes>>>,
}

/// A problem document.
#[derive(Deserialize)]
struct Problem {
    detail: String,
    error: Option<CallError>,
}

impl Host {
    pub(in crate::commands) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            sender: None,
        }
    }

    pub(in crate::commands) async fn send(
        &mut self,
        id: &str,
        slip: Slip,
    ) -> Result<(), CallError> {
        let path = format!("/jobs?to={}&id={}", route(&slip.stops), escaped(id));
        self.post(&path, slip.data, SEND_TIMEOUT).await.map(drop)
    }

    pub(in crate::commands) async fn call(
        &mut self,
        id: &str,
        slip: Slip,
        timeout: Duration,
    ) -> Result<Payload, CallError> {
        let path = format!(
            "/calls?to={}&id={}&timeout_ms={}",
            route(&slip.stops),
            escaped(id),
            millis(timeout)
        );
        let reply = self.post(&path, slip.data, timeout + SLACK).await?;
        Payload::new(Encoding::Json, reply).map_err(|error| self.odd(&error.to_string()))
    }

    async fn post(
        &mut self,
        path: &str,
        data: Payload,
        limit: Duration,
    ) -> Result<Bytes, CallError> {
        let data = data.to_bytes().map_err(|error| CallError::Invalid {
            reason: error.to_string(),
        })?;
        let answered = tokio::time::timeout(limit, self.ask(path, data)).await;
        let (status, body) = match answered {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(self.silent(&format!("{error:#}"))),
            Err(_) => return Err(self.silent("it does not answer in time")),
        };
        if status.is_success() {
            return Ok(body);
        }
        match serde_json::from_slice(&body) {
            Ok(Problem {
                error: Some(error), ..
            }) => Err(error),
            Ok(Problem { detail, .. }) => Err(CallError::Invalid { reason: detail }),
            Err(_) => Err(self.odd(&String::from_utf8_lossy(&body))),
        }
        .map_err(|error| match status {
            StatusCode::METHOD_NOT_ALLOWED => self.odd("it takes no jobs"),
            _ => error,
        })
    }

    async fn ask(&mut self, path: &str, data: Bytes) -> anyhow::Result<(StatusCode, Bytes)> {
        let mut sender = match self.sender.take() {
            Some(sender) if sender.is_ready() => sender,
            _ => self.connect().await?,
        };
        let request = Request::post(path)
            .header(header::HOST, self.address.to_string())
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(data))?;
        let answer = sender.send_request(request).await;
        let answer = answer.context("it ended before it had answered")?;
        let status = answer.status();
        let body = answer.into_body().collect().await;
        let body = body.context("it ended before it had answered")?.to_bytes();
        // Ready for the next request when the last byte of this answer has been read.
        sender.ready().await.ok();
        self.sender = Some(sender);
        Ok((status, body))
    }

    async fn connect(&self) -> anyhow::Result<SendRequest<Full<Bytes>>> {
        let stream = TcpStream::connect(self.address).await;
        let stream = stream.map_err(|error| match error.kind() {
            io::ErrorKind::ConnectionRefused => anyhow::anyhow!("nothing listens there"),
            _ => error.into(),
        })?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // Ends with the sender.
        tokio::spawn(connection);
        Ok(sender)
    }

    /// No answer.
    fn silent(&self, why: &str) -> CallError {
        CallError::Unavailable {
            reason: format!(
                "no broker is configured, and the host at {} is out of reach ({why}): start one \
                 (`warren dev`, `warren run`), say where its admin port is (--admin), or name a \
                 broker (--broker)",
                self.address
            ),
        }
    }

    /// An answer that no host of this version gives.
    fn odd(&self, what: &str) -> CallError {
        CallError::Invalid {
            reason: format!(
                "what answers at {} is no host of this version: {what}",
                self.address
            ),
        }
    }
}

fn route(stops: &[Stop]) -> String {
    // Stops have no character that a query could misread.
    let stops: Vec<_> = stops.iter().map(Stop::as_str).collect();
    stops.join(",")
}

/// A text as part of a query.
fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b if b.is_ascii_alphanumeric() || b"-_.~:".contains(&b) => char::from(b).to_string(),
        b => format!("%{b:02X}"),
    };
    text.bytes().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_any_characters_fits_into_a_query() {
        assert_eq!(escaped("order-1&id=2 +%"), "order-1%26id%3D2%20%2B%25");
    }
}
