//! Workers that answer HTTP requests. The host owns the port and routes by path. Requests of any
//! worker to other hosts are in [`client`].
//!
//! ```
//! use warren_sdk::Result;
//! use warren_sdk::http::{HttpWorker, Request, Response};
//!
//! /// Greets by name: `GET /hello/?name=Ripley`.
//! pub struct Hello;
//!
//! impl HttpWorker for Hello {
//!     const TYPE: &'static str = "HELLO";
//!     const SUMMARY: &'static str = "Greets by name";
//!     const PATH: &'static str = "/hello/";
//!
//!     fn handle(request: Request) -> Result<Response> {
//!         match request.query("name") {
//!             Some(name) => Response::json(&format!("Hello, {name}!")),
//!             None => Ok(Response::problem(400, "who are you? Add ?name=…")),
//!         }
//!     }
//! }
//!
//! warren_sdk::export_http_worker!(Hello);
//! ```

pub mod client;
mod request;
mod response;

use crate::Result;
use crate::bindings::descriptor::exports::warren::worker::descriptor::Description;
use crate::bindings::incoming_handler::exports::wasi::http::incoming_handler;
use crate::bindings::incoming_handler::wasi::http::types::{IncomingRequest, ResponseOutparam};

pub use request::Request;
pub use response::Response;

/// A worker that answers HTTP requests. It is on the bus like any other, so it can send and
/// call. Export it with [`export_http_worker!`](crate::export_http_worker).
pub trait HttpWorker {
    /// The type under which it works on the bus: a letter, then up to 63 letters, digits, `_`,
    /// `-` or `.`.
    const TYPE: &'static str;

    /// One line for the operator.
    const SUMMARY: &'static str;

    /// The path prefix under which it wishes to serve, such as `/movies/`. The operator's
    /// configuration decides.
    const PATH: &'static str;

    /// The largest request body that is read; a larger one is answered with status 413.
    const MAX_BODY_BYTES: usize = 1024 * 1024;

    /// Answers one request.
    ///
    /// # Errors
    /// An [`Error`](crate::Error) becomes status 500 and a problem document (RFC 9457) that says
    /// the reason. Nothing is retried: that is for who asked.
    fn handle(request: Request) -> Result<Response>;
}

/// Makes an [`HttpWorker`](crate::http::HttpWorker) the plugin of this crate. The plugin's
/// version is the crate's.
#[macro_export]
macro_rules! export_http_worker {
    ($worker:ident) => {
        impl $crate::bindings::descriptor::exports::warren::worker::descriptor::Guest for $worker {
            fn describe()
            -> $crate::bindings::descriptor::exports::warren::worker::descriptor::Description {
                $crate::http::describe::<$worker>(env!("CARGO_PKG_VERSION"))
            }
        }

        #[cfg(target_family = "wasm")]
        mod export_http_worker {
            use super::*;
            $crate::bindings::descriptor::export_descriptor!(
                $worker with_types_in $crate::bindings::descriptor
            );
            $crate::bindings::incoming_handler::export_incoming_handler!(
                $worker with_types_in $crate::bindings::incoming_handler
            );
        }
    };
}

#[doc(hidden)]
pub fn describe<W: HttpWorker>(version: &str) -> Description {
    Description {
        worker_type: W::TYPE.to_owned(),
        version: version.to_owned(),
        summary: W::SUMMARY.to_owned(),
        accepts: Vec::new(),
        annotations: vec![("http.path".to_owned(), W::PATH.to_owned())],
    }
}

impl<W: HttpWorker> incoming_handler::Guest for W {
    fn handle(request: IncomingRequest, response_out: ResponseOutparam) {
        let response = match Request::read(&request, W::MAX_BODY_BYTES) {
            Ok(request) => {
                W::handle(request).unwrap_or_else(|error| Response::problem(500, error.reason()))
            }
            Err(refusal) => refusal,
        };
        response.write(response_out);
    }
}
