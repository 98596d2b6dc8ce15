//! Takes what customers want over HTTP, answers at once with an id, and hands it to the worker that
//! keeps the book. Both examples begin with it: the operator says by configuration what it takes in and
//! who keeps the book.

use serde_json::{Map, Value, json};
use uuid::Uuid;
use warren_sdk::http::{HttpWorker, Request, Response};
use warren_sdk::{Error, OrReject, Result, bus, config};

/// `POST` on its path takes something in, `GET` below it tells how that stands.
pub struct Front;

impl HttpWorker for Front {
    const TYPE: &'static str = "FRONT";
    const SUMMARY: &'static str = "Takes requests over HTTP and hands them on";
    const PATH: &'static str = "/front";

    fn handle(request: Request) -> Result<Response> {
        let what =
            config::get("what")?.or_reject("configure `what` it takes in, such as `order`")?;
        let book = config::get("book")?.or_reject("configure the `book`, such as `ORDERS:*`")?;
        let mut below = request.path.trim_matches('/').split('/').skip(1);
        match (request.method.as_str(), below.next(), below.next()) {
            ("POST", None, _) => take_in(&what, &book, &request.body),
            ("GET", Some(id), None) => tell(&what, &book, id),
            _ => Ok(Response::problem(
                404,
                format!("here is POST /{what} and GET /{what}/ID"),
            )),
        }
    }
}

/// What was sent is with the bus before the response begins, so an id that a client has is not lost.
fn take_in(what: &str, book: &str, body: &[u8]) -> Result<Response> {
    let wanted: Map<String, Value> = match serde_json::from_slice(body) {
        Ok(wanted) => wanted,
        Err(error) => {
            return Ok(Response::problem(
                400,
                format!("this is no {what}: {error}"),
            ));
        }
    };
    let id = Uuid::new_v4();
    bus::send(
        [book],
        &json!({ "event": "requested", "id": id, "wanted": wanted }),
    )?;
    let answer =
        json!({ "message": format!("your {what} is being processed"), format!("{what}Id"): id });
    let mut response = Response::json(&answer)?;
    response.status = 202;
    Ok(response.with_header("location", format!("/{what}/{id}")))
}

fn tell(what: &str, book: &str, id: &str) -> Result<Response> {
    let Ok(id) = id.parse::<Uuid>() else {
        return Ok(Response::problem(404, format!("`{id}` is no id")));
    };
    let reply = bus::call([book], &json!({ "event": "asked", "id": id })).map_err(Error::from)?;
    match reply.json()? {
        Value::Null => Ok(Response::problem(404, format!("there is no {what} {id}"))),
        found => Response::json(&found),
    }
}

warren_sdk::export_http_worker!(Front);
