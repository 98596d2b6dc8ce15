//! Outgoing HTTP: linked, because some toolchains import it unasked, and always refused: no
//! operator can grant it yet.

use wasmtime_wasi_http::{Error, RequestOptions, Result, WasiBody, WasiHttpHooks};

/// Refuses every request.
pub(crate) struct DenyOutgoing;

type Io = Box<dyn Future<Output = Result<(), Error>> + Send>;

impl WasiHttpHooks for DenyOutgoing {
    fn send_request(
        &mut self,
        _request: http::Request<WasiBody>,
        _options: Option<RequestOptions>,
        _processed: Io,
    ) -> Box<dyn Future<Output = Result<(http::Response<WasiBody>, Io)>> + Send> {
        Box::new(async { Err(Error::HttpRequestDenied) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_request_is_refused() {
        let request = http::Request::get("http://localhost:9091/metrics")
            .body(WasiBody::default())
            .unwrap();
        let processed = Box::new(async { Ok(()) });
        let answer = DenyOutgoing.send_request(request, None, processed);
        let answer = Box::into_pin(answer).await;
        assert!(matches!(answer, Err(Error::HttpRequestDenied)));
    }
}
