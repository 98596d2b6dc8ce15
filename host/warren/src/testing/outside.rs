//! The hosts that a worker makes requests to: a real server on the loopback interface, to which all
//! its requests are led, whatever host they name. It answers what the case says.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use axum::{Router, body::Body, extract::State as Shared, response::Response as Answered};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use tokio::{net::TcpListener, task::JoinHandle};
use warren_runtime::Detour;

use super::case::{Exchange, Response};

/// The largest request that is looked at, in bytes.
const MAX_BODY_BYTES: usize = 64 << 20;

/// The servers of one case. They end with it.
pub(super) struct Outside {
    /// Where they are.
    pub(super) detour: Detour,
    seen: Arc<Mutex<Vec<Got>>>,
    servers: Vec<JoinHandle<()>>,
}

/// A request of the worker.
#[derive(Clone, Debug)]
pub(super) struct Got {
    pub(super) method: String,
    pub(super) url: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

#[derive(Clone)]
struct Server {
    scheme: &'static str,
    plan: Arc<[Exchange]>,
    seen: Arc<Mutex<Vec<Got>>>,
}

impl Outside {
    pub(super) async fn open(plan: &[Exchange]) -> anyhow::Result<Self> {
        let seen = Arc::default();
        let plan: Arc<[Exchange]> = plan.into();
        let mut servers = Vec::new();
        let mut serve = async |scheme| {
            let listener = TcpListener::bind(("127.0.0.1", 0)).await;
            let listener = listener.context("listening on the loopback interface")?;
            let address = listener.local_addr()?;
            let server = Server {
                scheme,
                plan: plan.clone(),
                seen: Arc::clone(&seen),
            };
            let router = Router::new().fallback(answer).with_state(server);
            servers.push(tokio::spawn(async move {
                // It ends with the case.
                let _ = axum::serve(listener, router).await;
            }));
            anyhow::Ok(address)
        };
        let detour = Detour {
            http: serve("http").await?,
            https: serve("https").await?,
        };
        Ok(Self {
            detour,
            seen,
            servers,
        })
    }

    /// The requests, in order.
    pub(super) fn seen(&self) -> Vec<Got> {
        lock(&self.seen).clone()
    }

    /// Forgets them: the answers begin with the first one again.
    pub(super) fn forget(&self) {
        lock(&self.seen).clear();
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        for server in &self.servers {
            server.abort();
        }
    }
}

async fn answer(Shared(server): Shared<Server>, request: Request<Body>) -> Answered {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, MAX_BODY_BYTES).collect().await;
    let host = head.headers.get(header::HOST);
    let host = host.and_then(|host| host.to_str().ok()).unwrap_or_default();
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let got = Got {
        method: head.method.to_string(),
        url: format!("{}://{host}{path}", server.scheme),
        headers: head.headers.clone(),
        body: body.map(|body| body.to_bytes()).unwrap_or_default(),
    };
    let planned = {
        let mut seen = lock(&server.seen);
        seen.push(got);
        server.plan.get(seen.len() - 1)
    };
    let Some(planned) = planned else {
        let mut response = Answered::new(Body::from("the case expects no further request"));
        *response.status_mut() = StatusCode::NOT_IMPLEMENTED;
        return response;
    };
    tokio::time::sleep(planned.answer.delay).await;
    respond(&planned.answer)
}

fn respond(answer: &Response) -> Answered {
    let body = if answer.is_cut {
        let half = answer.body.slice(..answer.body.len() / 2);
        let cut = std::io::Error::other("cut");
        Body::from_stream(stream::iter([Ok(half), Err(cut)]))
    } else {
        Body::from(answer.body.clone())
    };
    let mut response = Answered::new(body);
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or_default();
    *response.headers_mut() = answer.headers.clone();
    response
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
