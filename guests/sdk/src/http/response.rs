use serde::Serialize;

use crate::Result;
use crate::bindings::incoming_handler::wasi::http::types::{
    Fields, OutgoingBody, OutgoingResponse, ResponseOutparam,
};
use crate::bindings::incoming_handler::wasi::io::streams::{OutputStream, StreamError};

/// An HTTP response. Its length is up to the worker: it is handed over in pieces, as the client
/// takes them.
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    /// From 200 to 599.
    pub status: u16,
    /// The media type of the body.
    pub content_type: String,
    /// Further headers.
    pub headers: Vec<(String, String)>,
    /// The whole body.
    pub body: Vec<u8>,
}

/// RFC 9457. The member names are the standard's.
#[derive(Serialize)]
struct Problem<'a> {
    r#type: &'a str,
    title: &'a str,
    status: u16,
    detail: &'a str,
}

impl Response {
    /// A response with a body of any type.
    pub fn new(status: u16, content_type: impl Into<String>, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            content_type: content_type.into(),
            headers: Vec::new(),
            body: body.into(),
        }
    }

    /// Status 200 and a value as JSON.
    ///
    /// # Errors
    /// The value cannot be written as JSON, such as a map whose keys are not strings.
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<Self> {
        Ok(Self::new(
            200,
            "application/json",
            serde_json::to_vec(value)?,
        ))
    }

    /// A problem document (RFC 9457) of the type `about:blank`, whose detail says what is wrong
    /// this time.
    ///
    /// ```
    /// # use warren_sdk::http::Response;
    /// let response = Response::problem(404, "no such movie");
    /// assert_eq!(
    ///     response.body,
    ///     br#"{"type":"about:blank","title":"Not Found","status":404,"detail":"no such movie"}"#
    /// );
    /// ```
    pub fn problem(status: u16, detail: impl AsRef<str>) -> Self {
        let problem = Problem {
            r#type: "about:blank",
            title: title(status),
            status,
            detail: detail.as_ref(),
        };
        // Strings and a number can always be written.
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        Self::new(status, "application/problem+json", body)
    }

    /// Adds a header.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sends the response. When the client goes away meanwhile, the rest is nobody's loss.
    pub(super) fn write(self, response_out: ResponseOutparam) {
        let (head, body) = match self.head() {
            Ok(head) => (head, self.body),
            Err(reason) => {
                let fallback = Self::problem(500, reason);
                let Ok(head) = fallback.head() else { return };
                (head, fallback.body)
            }
        };
        // Neither was taken before, so both are there.
        let Ok(outgoing) = head.body() else { return };
        let Ok(stream) = outgoing.write() else { return };
        ResponseOutparam::set(response_out, Ok(head));
        if write_all(&stream, &body).is_ok() {
            // The stream is the body's child and must be gone first.
            drop(stream);
            let _ = OutgoingBody::finish(outgoing, None);
        }
    }

    fn head(&self) -> Result<OutgoingResponse, String> {
        let mut fields = vec![("content-type".to_owned(), self.content_type.clone().into())];
        for (name, value) in &self.headers {
            fields.push((name.clone(), value.clone().into_bytes()));
        }
        let fields = Fields::from_list(&fields)
            .map_err(|error| format!("the worker set a header that is not valid: {error}"))?;
        let head = OutgoingResponse::new(fields);
        head.set_status_code(self.status)
            .map_err(|()| format!("the worker set the status {}", self.status))?;
        Ok(head)
    }
}

fn write_all(stream: &OutputStream, mut bytes: &[u8]) -> Result<(), StreamError> {
    let writable = stream.subscribe();
    while !bytes.is_empty() {
        writable.block();
        let permitted = usize::try_from(stream.check_write()?).unwrap_or(usize::MAX);
        let (now, later) = bytes.split_at(permitted.min(bytes.len()));
        stream.write(now)?;
        bytes = later;
    }
    stream.blocking_flush()
}

/// The reason phrase of the status: what RFC 9457 asks for where the type is `about:blank`.
fn title(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        422 => "Unprocessable Content",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ if status < 500 => "Client Error",
        _ => "Server Error",
    }
}
