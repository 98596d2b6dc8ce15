//! Requests to other hosts. Nothing is granted by default: a plugin that uses this is loaded only
//! where the operator's `outgoing_http` names hosts for its type.
//!
//! ```no_run
//! use warren_sdk::http::client;
//!
//! # #[derive(serde::Deserialize)]
//! # struct Rates { eur: f64 }
//! # fn handle() -> warren_sdk::Result<()> {
//! let rates: Rates = client::get("https://rates.example/today")?.success()?.json()?;
//! # Ok(())
//! # }
//! ```
//!
//! The host keeps connections for a few seconds, for the worker's next request to the same place. A redirect comes back as what it is, since its target is another
//! host perhaps; nothing is retried here.

use std::fmt::{self, Display};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::bindings::outgoing_handler::wasi::http::{
    outgoing_handler,
    types::{
        ErrorCode, Fields, IncomingBody, IncomingResponse, Method, OutgoingBody, OutgoingRequest,
        RequestOptions, Scheme, http_error_code,
    },
};
use crate::bindings::outgoing_handler::wasi::io::streams::StreamError;
use crate::{OrReject, Result};

/// How much of a response is read unless the request says otherwise.
const MAX_BODY_BYTES: usize = 1024 * 1024;
/// What `blocking-write-and-flush` takes at the most, and a read asks for.
const WRITE_BYTES: usize = 4096;
const READ_BYTES: u64 = 64 * 1024;

/// A request to another host.
///
/// ```no_run
/// use warren_sdk::http::client::Request;
///
/// # fn handle(token: &str) -> warren_sdk::Result<()> {
/// let order = serde_json::json!({ "title": "Alien", "n": 2 });
/// let reply = Request::new("POST", "https://shop.example/orders")
///     .with_header("authorization", format!("Bearer {token}"))
///     .with_json(&order)?
///     .send()?;
/// assert_eq!(reply.success()?.status, 201);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// In capitals: `GET`, `POST`.
    pub method: String,
    /// With its scheme: `https://shop.example/orders?n=1`.
    pub url: String,
    /// Names and values.
    pub headers: Vec<(String, String)>,
    /// The whole body; empty for none.
    pub body: Vec<u8>,
    /// How long to wait for a connection, for the response to begin, and between two pieces of it;
    /// none for the host's own limits. The run's deadline is above all of them.
    pub timeout: Option<Duration>,
    /// The largest response body that is read, 1 MiB by default; a larger one is
    /// [`Error::TooLarge`].
    pub max_body_bytes: usize,
}

/// What another host has answered, read to its end.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// From 100 to 599.
    pub status: u16,
    /// Names in lower case, in the order of arrival.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The whole body.
    pub body: Vec<u8>,
}

/// Why there is no reply. The text is for the log.
#[derive(Clone, Debug, PartialEq)]
pub enum Error {
    /// The operator does not let this worker go there.
    Denied(String),
    /// The URL, the method or a header is malformed or too long. A bug.
    Invalid(String),
    /// The response is larger than the request allows.
    TooLarge(String),
    /// No answer came in time. The request may have taken effect.
    Timeout(String),
    /// The host cannot be found or reached, or broke off. Before the first byte of a response, it may
    /// have taken effect all the same.
    Unavailable(String),
}

/// Asks for a URL, with the defaults of [`Request`].
///
/// # Errors
/// The [`Error`] says why there is no reply. With `?` it becomes an [`Error`](crate::Error) of the
/// SDK, which is retried when trying again may help.
pub fn get(url: &str) -> Result<Reply, Error> {
    Request::new("GET", url).send()
}

impl Request {
    /// A request without headers and body.
    pub fn new(method: impl Into<String>, url: impl Into<String>) -> Self {
        Self {
            method: method.into(),
            url: url.into(),
            headers: Vec::new(),
            body: Vec::new(),
            timeout: None,
            max_body_bytes: MAX_BODY_BYTES,
        }
    }

    /// Adds a header.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Makes a value the body, as JSON, and says so in a header.
    ///
    /// # Errors
    /// Rejects a value that cannot be written as JSON.
    pub fn with_json<T: Serialize + ?Sized>(mut self, value: &T) -> Result<Self> {
        self.body = serde_json::to_vec(value)?;
        Ok(self.with_header("content-type", "application/json"))
    }

    /// Waits no longer than this at any one point.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sends the request and reads all of the response, whatever its status.
    ///
    /// # Errors
    /// As [`get`].
    pub fn send(&self) -> Result<Reply, Error> {
        let head = self.head()?;
        // A request whose body is never taken has none, which the host then knows when it sends it.
        let body = match self.body.is_empty() {
            true => None,
            false => Some(head.body().map_err(|()| invalid("the body"))?),
        };
        let response = outgoing_handler::handle(head, Some(self.options()))?;
        if let Some(body) = body
            && self.write(&body).is_ok()
        {
            OutgoingBody::finish(body, None)?;
        }
        // Where writing failed, the response says why.
        response.subscribe().block();
        let response = match response.get() {
            Some(Ok(response)) => response?,
            _ => return Err(Error::Unavailable("there is no response".to_owned())),
        };
        self.read(&response)
    }

    fn head(&self) -> Result<OutgoingRequest, Error> {
        let (scheme, authority, path) = parts(&self.url)?;
        let headers: Vec<(String, Vec<u8>)> = self
            .headers
            .iter()
            .map(|(name, value)| (name.clone(), value.clone().into_bytes()))
            .collect();
        let headers = Fields::from_list(&headers)
            .map_err(|error| Error::Invalid(format!("a header of the request: {error}")))?;
        let head = OutgoingRequest::new(headers);
        head.set_method(&method(&self.method))
            .map_err(|()| invalid(&self.method))?;
        head.set_scheme(Some(&scheme))
            .and_then(|()| head.set_authority(Some(authority)))
            .and_then(|()| head.set_path_with_query(Some(&path)))
            .map_err(|()| invalid(&self.url))?;
        Ok(head)
    }

    fn options(&self) -> RequestOptions {
        let options = RequestOptions::new();
        if let Some(timeout) = self.timeout {
            let nanoseconds = Some(u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX));
            // A host may not offer one of them; the run's deadline is there anyway.
            let _ = options.set_connect_timeout(nanoseconds);
            let _ = options.set_first_byte_timeout(nanoseconds);
            let _ = options.set_between_bytes_timeout(nanoseconds);
        }
        options
    }

    fn write(&self, body: &OutgoingBody) -> Result<(), StreamError> {
        let Ok(stream) = body.write() else {
            return Ok(());
        };
        self.body
            .chunks(WRITE_BYTES)
            .try_for_each(|piece| stream.blocking_write_and_flush(piece))
    }

    fn read(&self, response: &IncomingResponse) -> Result<Reply, Error> {
        let gone = |()| Error::Unavailable("the response has no body".to_owned());
        let headers = response.headers().entries().into_iter();
        let headers = headers
            .map(|(name, value)| (name.to_ascii_lowercase(), value))
            .collect();
        let incoming: IncomingBody = response.consume().map_err(gone)?;
        let stream = incoming.stream().map_err(gone)?;
        let mut body = Vec::new();
        loop {
            match stream.blocking_read(READ_BYTES) {
                Ok(piece) if body.len() + piece.len() > self.max_body_bytes => {
                    return Err(Error::TooLarge(format!(
                        "the response is larger than {} bytes",
                        self.max_body_bytes
                    )));
                }
                Ok(piece) => body.extend_from_slice(&piece),
                Err(StreamError::Closed) => break,
                Err(StreamError::LastOperationFailed(error)) => {
                    return Err(match http_error_code(&error) {
                        Some(code) => code.into(),
                        None => Error::Unavailable(error.to_debug_string()),
                    });
                }
            }
        }
        Ok(Reply {
            status: response.status(),
            headers,
            body,
        })
    }
}

impl Reply {
    /// The reply, if its status says success (200 to 299).
    ///
    /// # Errors
    /// Any other status: retried where asking again may help (408, 425, 429 and from 500 on, but for
    /// 501 and 505), rejected otherwise.
    pub fn success(self) -> Result<Self> {
        let status = self.status;
        let reason = format!("the other host has answered with status {status}");
        match status {
            200..=299 => Ok(self),
            501 | 505 => Err(crate::Error::reject(reason)),
            408 | 425 | 429 | 500.. => Err(crate::Error::retry(reason)),
            _ => Err(crate::Error::reject(reason)),
        }
    }

    /// Reads the body as JSON, whatever its media type. `T` may borrow from it.
    ///
    /// # Errors
    /// Rejects a body of another shape. The text says what and where.
    pub fn json<'a, T: Deserialize<'a>>(&'a self) -> Result<T> {
        serde_json::from_slice(&self.body).or_reject("unexpected data from another host")
    }

    /// The first header of that name (in lower case) that is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .filter(|(key, _)| key == name)
            .find_map(|(_, value)| std::str::from_utf8(value).ok())
    }
}

impl Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, text) = match self {
            Self::Denied(text) => ("the request is not allowed", text),
            Self::Invalid(text) => ("the request is not valid", text),
            Self::TooLarge(text) => return formatter.write_str(text),
            Self::Timeout(text) => ("the other host has not answered in time", text),
            Self::Unavailable(text) => ("the other host is unavailable", text),
        };
        write!(formatter, "{what}: {text}")
    }
}

impl std::error::Error for Error {}

impl From<Error> for crate::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Denied(_) | Error::Invalid(_) | Error::TooLarge(_) => {
                Self::reject(error.to_string())
            }
            Error::Timeout(_) | Error::Unavailable(_) => Self::retry(error.to_string()),
        }
    }
}

impl From<ErrorCode> for Error {
    fn from(code: ErrorCode) -> Self {
        let text = code.to_string();
        match code {
            ErrorCode::HttpRequestDenied | ErrorCode::DestinationIpProhibited => Self::Denied(text),
            ErrorCode::HttpRequestLengthRequired
            | ErrorCode::HttpRequestBodySize(_)
            | ErrorCode::HttpRequestMethodInvalid
            | ErrorCode::HttpRequestUriInvalid
            | ErrorCode::HttpRequestUriTooLong
            | ErrorCode::HttpRequestHeaderSectionSize(_)
            | ErrorCode::HttpRequestHeaderSize(_)
            | ErrorCode::HttpRequestTrailerSectionSize(_)
            | ErrorCode::HttpRequestTrailerSize(_) => Self::Invalid(text),
            ErrorCode::DnsTimeout
            | ErrorCode::ConnectionTimeout
            | ErrorCode::ConnectionReadTimeout
            | ErrorCode::ConnectionWriteTimeout
            | ErrorCode::HttpResponseTimeout => Self::Timeout(text),
            _ => Self::Unavailable(text),
        }
    }
}

fn invalid(what: &str) -> Error {
    Error::Invalid(what.to_owned())
}

fn method(name: &str) -> Method {
    match name {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "DELETE" => Method::Delete,
        "OPTIONS" => Method::Options,
        "PATCH" => Method::Patch,
        other => Method::Other(other.to_owned()),
    }
}

/// The scheme, the authority, and the path with the query. What comes after a `#` is the client's.
fn parts(url: &str) -> Result<(Scheme, &str, String), Error> {
    let (scheme, rest) = url
        .split_once("://")
        .ok_or_else(|| Error::Invalid(format!("`{url}` has no scheme, such as https://")))?;
    let scheme = match scheme {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        other => Scheme::Other(other.to_owned()),
    };
    let rest = rest.split_once('#').map_or(rest, |(rest, _)| rest);
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let slash = if path.starts_with('/') { "" } else { "/" };
    Ok((scheme, authority, format!("{slash}{path}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        let check = |url: &str, authority: &str, path: &str| {
            let (_, found, rest) = parts(url).unwrap();
            assert_eq!((found, rest.as_str()), (authority, path), "{url}");
        };
        check("https://a.example", "a.example", "/");
        check(
            "https://a.example:8443/b/c?d=e/f",
            "a.example:8443",
            "/b/c?d=e/f",
        );
        check("http://[::1]:80/#there", "[::1]:80", "/");
        check("http://a.example?b", "a.example", "/?b");
        assert!(matches!(parts("a.example/b"), Err(Error::Invalid(_))));
    }

    #[test]
    fn a_status_says_whether_asking_again_may_help() {
        let check = |status: u16, expected: Option<bool>| {
            let reply = Reply {
                status,
                headers: Vec::new(),
                body: Vec::new(),
            };
            let is_retried = reply.success().err().map(|error| error.is_retryable());
            assert_eq!(is_retried, expected, "{status}");
        };
        check(200, None);
        check(204, None);
        check(302, Some(false));
        check(404, Some(false));
        check(429, Some(true));
        check(501, Some(false));
        check(503, Some(true));
    }

    #[test]
    fn what_may_go_away_is_retried_and_a_mistake_is_not() {
        let is_retried = |code: ErrorCode| crate::Error::from(Error::from(code)).is_retryable();
        assert!(is_retried(ErrorCode::ConnectionRefused));
        assert!(is_retried(ErrorCode::HttpResponseTimeout));
        assert!(!is_retried(ErrorCode::HttpRequestDenied));
        assert!(!is_retried(ErrorCode::DestinationIpProhibited));
        assert!(!is_retried(ErrorCode::HttpRequestUriInvalid));
    }
}
