//! A small HTTP client that hides nothing: one connection per [`Client`], no pool, and never a
//! second try, so that a test sees every failed request.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, StatusCode,
    body::Bytes,
    client::conn::http1::{self, SendRequest},
    header,
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status.
    pub status: StatusCode,
    /// The media type, empty where there is none.
    pub content_type: String,
    /// The whole body.
    pub body: Bytes,
}

/// One connection, kept open between requests.
pub struct Client {
    requests: SendRequest<Full<Bytes>>,
    host: String,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens there.
    pub async fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)
            .await
            .with_context(|| format!("connecting to {address}"))?;
        let (requests, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // It ends with the client; what went wrong shows in the request.
        tokio::spawn(connection);
        Ok(Self {
            requests,
            host: address.to_string(),
        })
    }

    /// `GET`s a path with its query.
    ///
    /// # Errors
    /// When the connection ends before the answer does.
    pub async fn get(&mut self, path: &str) -> Result<Response> {
        self.send(Method::GET, path, Bytes::new()).await
    }

    /// Sends one request and reads the whole answer.
    ///
    /// # Errors
    /// When the connection ends before the answer does.
    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: impl Into<Bytes>,
    ) -> Result<Response> {
        let request = Request::builder()
            .method(&method)
            .uri(path)
            .header(header::HOST, &self.host)
            .body(Full::new(body.into()))?;
        let asking = || format!("{method} {path}");
        self.requests.ready().await.with_context(asking)?;
        let response = self
            .requests
            .send_request(request)
            .await
            .with_context(asking)?;
        let (head, body) = response.into_parts();
        let content_type = head.headers.get(header::CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok());
        Ok(Response {
            status: head.status,
            content_type: content_type.unwrap_or_default().to_owned(),
            body: body.collect().await.with_context(asking)?.to_bytes(),
        })
    }
}

impl Response {
    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; `null` when it is not.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}
