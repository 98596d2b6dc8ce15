//! One request on one connection, and the head of its response.

use std::{error::Error as _, sync::Arc, time::Instant};

use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use tokio::time::timeout_at;
use wasmtime_wasi_http::{Error, WasiBody, io::TokioIo};

use super::{
    Slot, Timeouts, Usage,
    body::{Received, Sent},
    connect::Stream,
};

/// hyper reads into no smaller buffer.
pub(super) const MIN_HEADER_BYTES: usize = 8 << 10;

pub(super) async fn send(
    stream: Stream,
    request: Request<WasiBody>,
    timeouts: Timeouts,
    most_header_bytes: usize,
    usage: &Arc<Usage>,
    slot: Slot,
) -> Result<Response<WasiBody>, Error> {
    let mut client = http1::Builder::new();
    client.max_buf_size(most_header_bytes.max(MIN_HEADER_BYTES));
    let opened = client.handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = opened.map_err(|error| read_error(&error, most_header_bytes))?;
    // It ends with its handle, which the response keeps: a guest that drops the response, or a run
    // that ends, closes the connection.
    let driver = wasmtime_wasi::runtime::spawn(async move {
        let _ = connection.await;
    });
    let latest = timeouts.until.min(Instant::now() + timeouts.first_byte);
    let response = timeout_at(latest.into(), sender.send_request(form(request, usage)?));
    let response = response
        .await
        .map_err(|_| Error::HttpResponseTimeout)?
        .map_err(|error| read_error(&error, most_header_bytes))?;
    Ok(response.map(|incoming| {
        let body = Received::new(incoming, timeouts, usage.clone(), (driver, slot));
        body.boxed_unsync()
    }))
}

/// The request as it goes to the host itself: only a proxy is told scheme and authority.
fn form(mut request: Request<WasiBody>, usage: &Arc<Usage>) -> Result<Request<Sent>, Error> {
    let path = request.uri().path_and_query();
    let path = path.map_or("/", |path| path.as_str()).to_owned();
    *request.uri_mut() = Uri::builder()
        .path_and_query(path)
        .build()
        .map_err(|_| Error::HttpRequestUriInvalid)?;
    // The connection is not used again, and a server that knows closes it at once.
    let close = HeaderValue::from_static("close");
    request.headers_mut().insert(header::CONNECTION, close);
    Ok(request.map(|body| Sent::new(body, usage.clone())))
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
    if error.is_closed() || error.is_canceled() {
        return Error::ConnectionTerminated;
    }
    Error::HttpProtocolError
}
