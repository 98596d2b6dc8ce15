//! Asks the admin port of a host.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, client::conn::http1::handshake};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// A host that is well answers at once.
const TIMEOUT: Duration = Duration::from_secs(3);
/// More than any list of workers has.
const MAX_BYTES: usize = 16 << 20;

/// The JSON at a path.
pub(super) async fn get(address: SocketAddr, path: &str) -> anyhow::Result<Value> {
    tokio::time::timeout(TIMEOUT, ask(address, path))
        .await
        .context("no answer in time")?
}

async fn ask(address: SocketAddr, path: &str) -> anyhow::Result<Value> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = Request::get(path)
        .header("host", address.to_string())
        .body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    ensure!(response.status().is_success(), "{}", response.status());
    let body = Limited::new(response.into_body(), MAX_BYTES)
        .collect()
        .await;
    connection.abort();
    let body = body.map_err(anyhow::Error::from_boxed)?.to_bytes();
    Ok(serde_json::from_slice(&body)?)
}
