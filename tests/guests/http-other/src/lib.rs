//! Another worker on the path of `http-faulty`, for the tests of a build that has changed its type.

use warren_sdk::Result;
use warren_sdk::http::{HttpWorker, Request, Response};

/// An HTTP worker that always says the same.
pub struct HttpOther;

impl HttpWorker for HttpOther {
    const TYPE: &'static str = "FI";
    const SUMMARY: &'static str = "Answers every request with its name, for tests";
    const PATH: &'static str = "/faulty/";

    fn handle(_: Request) -> Result<Response> {
        Ok(Response::new(200, "text/plain", "another worker"))
    }
}

warren_sdk::export_http_worker!(HttpOther);
