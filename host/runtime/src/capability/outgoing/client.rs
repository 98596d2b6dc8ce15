//! One request on one connection, and the head of its response.

use std::{error::Error as _, io, sync::Arc, time::Instant};

use http::{Method, Request, Response, Uri};
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use tokio::time::timeout_at;
use wasmtime_wasi_http::{Error, WasiBody, io::TokioIo};

use super::{
    Timeouts, Usage,
    body::{Received, Sent},
    connect::Stream,
    connections::{Connection, Lease, keep},
};

/// hyper reads into no smaller buffer.
pub(super) const MIN_HEADER_BYTES: usize = 8 << 10;

/// Why there is no response.
pub(super) enum Failed {
    /// The server had closed the connection, which had waited since another request, before this
    /// one was there: it may go out again, as if nothing had been.
    Closed(Box<Request<Sent>>),
    /// Anything else.
    With(Error),
}

/// Begins to speak HTTP on a new connection.
pub(super) async fn open(stream: Stream, most_header_bytes: usize) -> Result<Connection, Error> {
    let mut client = http1::Builder::new();
    client.max_buf_size(most_header_bytes.max(MIN_HEADER_BYTES));
    let opened = client.handshake(TokioIo::new(stream)).await;
    let (sender, connection) = opened.map_err(|error| read_error(&error, most_header_bytes))?;
    // It ends with its handle, which the response keeps until it is read to its end: a guest that
    // drops the response before, or a run that ends, closes the connection.
    let driver = wasmtime_wasi::runtime::spawn(async move {
        let _ = connection.await;
    });
    Ok(Connection::new(sender, driver))
}

pub(super) async fn send(
    mut lease: Lease,
    request: Request<Sent>,
    timeouts: Timeouts,
    most_header_bytes: usize,
    usage: &Arc<Usage>,
) -> Result<Response<WasiBody>, Failed> {
    let connection = &mut lease.connection;
    let again = (connection.is_used && is_safe(&request)).then(|| request.clone());
    let latest = timeouts.until.min(Instant::now() + timeouts.first_byte);
    let sending = connection.sender.try_send_request(request);
    let response = timeout_at(latest.into(), sending)
        .await
        .map_err(|_| Failed::With(Error::HttpResponseTimeout))?;
    let response = response.map_err(|mut failure| {
        let unsent = failure.take_message().filter(|_| lease.connection.is_used);
        let error = failure.into_error();
        match unsent
            .or_else(|| again.filter(|again| is_hangup(&error) && !again.body().has_begun()))
        {
            Some(request) => Failed::Closed(Box::new(request)),
            None => Failed::With(read_error(&error, most_header_bytes)),
        }
    })?;
    lease.keep = keep(response.headers());
    Ok(response
        .map(|incoming| Received::new(incoming, timeouts, usage.clone(), lease).boxed_unsync()))
}

/// The request as it goes to the host itself: only a proxy is told scheme and authority.
pub(super) fn form(
    mut request: Request<WasiBody>,
    usage: &Arc<Usage>,
) -> Result<Request<Sent>, Error> {
    let path = request.uri().path_and_query();
    let path = path.map_or("/", |path| path.as_str()).to_owned();
    *request.uri_mut() = Uri::builder()
        .path_and_query(path)
        .build()
        .map_err(|_| Error::HttpRequestUriInvalid)?;
    Ok(request.map(|body| Sent::new(body, usage.clone())))
}

/// Whether a server that has perhaps seen a request may see it again (RFC 9110, 9.2.1).
fn is_safe(request: &Request<Sent>) -> bool {
    let safe = [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE];
    safe.contains(request.method())
}

/// Whether the other side has closed before it began to answer.
fn is_hangup(error: &hyper::Error) -> bool {
    let cause = error.source();
    error.is_incomplete_message()
        || error.is_closed()
        || error.is_canceled()
        || cause.is_some_and(|cause| cause.is::<io::Error>())
}

/// hyper's error, by what the guest does next.
pub(super) fn read_error(error: &hyper::Error, most_header_bytes: usize) -> Error {
    if error.is_parse_too_large() {
        return Error::HttpResponseHeaderSectionSize(u32::try_from(most_header_bytes).ok());
    }
    if let Some(Error::HttpRequestBodySize(size)) =
        error.source().and_then(|source| source.downcast_ref())
    {
        return Error::HttpRequestBodySize(*size);
    }
    if error.is_incomplete_message() {
        return Error::HttpResponseIncomplete;
    }
    if is_hangup(error) {
        return Error::ConnectionTerminated;
    }
    Error::HttpProtocolError
}
