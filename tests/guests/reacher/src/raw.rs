//! `wasi:http/outgoing-handler`, as a guest uses it.

#[allow(
    unsafe_code,
    missing_docs,
    unreachable_pub,
    clippy::all,
    reason = "generated code that crosses the component boundary"
)]
mod bindings {
    wit_bindgen::generate!({
        path: "../../../wit",
        inline: "
            package test:reacher;
            world client { import wasi:http/outgoing-handler@0.2.12; }
        ",
        world: "test:reacher/client",
        generate_all,
    });
}

use bindings::wasi::http::{
    outgoing_handler,
    types::{
        Fields, IncomingBody, IncomingResponse, Method, OutgoingBody, OutgoingRequest,
        RequestOptions, Scheme, http_error_code,
    },
};
use bindings::wasi::io::streams::StreamError;
use serde_json::{Value, json};

use crate::Order;

/// Enough of a body to recognise it.
const SHOWN_BYTES: usize = 100;

/// Sends a request, reads all of its response and says what came of it.
pub(crate) fn exchange(order: &Order, url: &str, put: Option<usize>) -> Value {
    match send(order, url, put).and_then(read) {
        Ok(value) => value,
        Err(error) => json!({ "error": error }),
    }
}

/// Sends a request and waits for the head of its response.
pub(crate) fn send(
    order: &Order,
    url: &str,
    put: Option<usize>,
) -> Result<IncomingResponse, String> {
    let (scheme, rest) = url.split_once("://").ok_or("no scheme")?;
    let (authority, path) = match rest.find('/') {
        Some(slash) => rest.split_at(slash),
        None => (rest, "/"),
    };
    let scheme = match scheme {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        other => Scheme::Other(other.to_owned()),
    };
    let request = OutgoingRequest::new(Fields::new());
    let refused = |what: &'static str| move |()| what.to_owned();
    request
        .set_scheme(Some(&scheme))
        .map_err(refused("scheme"))?;
    request
        .set_authority(Some(authority))
        .map_err(refused("authority"))?;
    request
        .set_path_with_query(Some(path))
        .map_err(refused("path"))?;
    let method = if put.is_some() {
        Method::Put
    } else {
        Method::Get
    };
    request.set_method(&method).map_err(refused("method"))?;

    let options = RequestOptions::new();
    let nanoseconds = |ms: Option<u64>| ms.map(|ms| ms * 1_000_000);
    let _ = options.set_connect_timeout(nanoseconds(order.connect_ms));
    let _ = options.set_first_byte_timeout(nanoseconds(order.first_ms));
    let _ = options.set_between_bytes_timeout(nanoseconds(order.between_ms));

    let body = request.body().map_err(refused("body"))?;
    let future = outgoing_handler::handle(request, Some(options)).map_err(shown)?;
    let written = write(&body, put.unwrap_or(0));
    if written.is_ok() {
        OutgoingBody::finish(body, None).map_err(shown)?;
    }
    future.subscribe().block();
    let response = future.get().ok_or("no response")?;
    response.map_err(|()| "taken twice")?.map_err(shown)
}

fn write(body: &OutgoingBody, bytes: usize) -> Result<(), StreamError> {
    let Ok(stream) = body.write() else {
        return Ok(());
    };
    let piece = [b'x'; 4096];
    let mut left = bytes;
    while left > 0 {
        let n = left.min(piece.len());
        stream.blocking_write_and_flush(piece.get(..n).unwrap_or_default())?;
        left -= n;
    }
    Ok(())
}

fn read(response: IncomingResponse) -> Result<Value, String> {
    let location = response.headers().get("location");
    let location = location.first().map(|value| String::from_utf8_lossy(value));
    let location = location.map(|text| text.into_owned());
    let body = response.consume().map_err(|()| "no body")?;
    let mut bytes = 0_usize;
    let mut text = Vec::new();
    {
        let stream = body.stream().map_err(|()| "no stream")?;
        loop {
            match stream.blocking_read(64 << 10) {
                Ok(piece) => {
                    bytes += piece.len();
                    text.extend(piece.iter().take(SHOWN_BYTES - text.len().min(SHOWN_BYTES)));
                }
                Err(StreamError::Closed) => break,
                Err(StreamError::LastOperationFailed(error)) => {
                    let code = http_error_code(&error);
                    return Err(code.map_or_else(|| error.to_debug_string(), shown));
                }
            }
        }
    }
    drop(IncomingBody::finish(body));
    Ok(json!({
        "status": response.status(),
        "location": location,
        "bytes": bytes,
        "text": String::from_utf8_lossy(&text),
    }))
}

fn shown(code: bindings::wasi::http::types::ErrorCode) -> String {
    format!("{code:?}")
}
