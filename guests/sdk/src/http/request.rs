use super::Response;
use crate::bindings::incoming_handler::wasi::http::types::{IncomingBody, IncomingRequest, Method};
use crate::bindings::incoming_handler::wasi::io::streams::StreamError;

/// How much is asked of the host at once.
const CHUNK_BYTES: u64 = 64 * 1024;

/// An HTTP request, read to its end.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    /// In capitals: `GET`, `POST`.
    pub method: String,
    /// From the first slash, without the query, not decoded.
    pub path: String,
    /// The parameters after the `?`, decoded, in their order. A name may occur more than once.
    pub query: Vec<(String, String)>,
    /// Names in lower case, in the order of arrival.
    pub headers: Vec<(String, Vec<u8>)>,
    /// At most [`HttpWorker::MAX_BODY_BYTES`](super::HttpWorker::MAX_BODY_BYTES) bytes.
    pub body: Vec<u8>,
}

impl Request {
    /// The first query parameter of that name.
    pub fn query(&self, name: &str) -> Option<&str> {
        self.query
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// The first header of that name (in lower case) that is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .filter(|(key, _)| key == name)
            .find_map(|(_, value)| std::str::from_utf8(value).ok())
    }

    /// Reads a request, or says what to answer instead.
    pub(super) fn read(request: &IncomingRequest, max_body_bytes: usize) -> Result<Self, Response> {
        let target = request.path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        Ok(Self {
            method: method_name(request.method()),
            path: path.to_owned(),
            query: form_urlencoded::parse(query.as_bytes())
                .into_owned()
                .collect(),
            headers: request
                .headers()
                .entries()
                .into_iter()
                .map(|(name, value)| (name.to_ascii_lowercase(), value))
                .collect(),
            body: read_body(request, max_body_bytes)?,
        })
    }
}

fn method_name(method: Method) -> String {
    let name = match method {
        Method::Get => "GET",
        Method::Head => "HEAD",
        Method::Post => "POST",
        Method::Put => "PUT",
        Method::Delete => "DELETE",
        Method::Connect => "CONNECT",
        Method::Options => "OPTIONS",
        Method::Trace => "TRACE",
        Method::Patch => "PATCH",
        Method::Other(name) => return name,
    };
    name.to_owned()
}

fn read_body(request: &IncomingRequest, max_bytes: usize) -> Result<Vec<u8>, Response> {
    let unreadable = || Response::problem(400, "the request body could not be read to its end");
    let body: IncomingBody = request.consume().map_err(|()| unreadable())?;
    let stream = body.stream().map_err(|()| unreadable())?;
    let mut bytes = Vec::new();
    loop {
        match stream.blocking_read(CHUNK_BYTES) {
            Ok(chunk) if bytes.len() + chunk.len() > max_bytes => {
                let detail = format!("the request body is larger than {max_bytes} bytes");
                return Err(Response::problem(413, detail));
            }
            Ok(chunk) => bytes.extend_from_slice(&chunk),
            Err(StreamError::Closed) => return Ok(bytes),
            Err(StreamError::LastOperationFailed(_)) => return Err(unreadable()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_several_parameters_is_found_by_name() {
        let request = Request {
            query: form_urlencoded::parse(b"title=Alien+3&title=%C3%89t%C3%A9&x")
                .into_owned()
                .collect(),
            ..Request::default()
        };
        assert_eq!(request.query("title"), Some("Alien 3"));
        assert_eq!(request.query("x"), Some(""));
        assert_eq!(request.query("y"), None);
    }

    #[test]
    fn a_header_that_is_not_text_is_passed_over() {
        let request = Request {
            headers: vec![
                ("x-name".to_owned(), vec![0xff]),
                ("x-name".to_owned(), b"Ripley".to_vec()),
            ],
            ..Request::default()
        };
        assert_eq!(request.header("x-name"), Some("Ripley"));
    }
}
