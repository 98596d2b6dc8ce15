//! One way of serving a port, for workers and for the operator: a bounded number of connections,
//! none of which may be silent for long. axum's own server has no such bounds, and a client that
//! opens sockets and says nothing would leave the host without file descriptors.

use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long a connection may take to send the head of a request, and stay open without one.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// After the system has refused a connection: there may be a file descriptor again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers requests until `stop`, then finishes those that have begun. At most `n_connections` are
/// open; further ones wait in the system's queue.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    n_connections: usize,
    stop: CancellationToken,
) {
    let room = std::sync::Arc::new(Semaphore::new(n_connections));
    let connections = TaskTracker::new();
    let mut refused = false;
    while let Some(Ok(place)) = stop.run_until_cancelled(room.clone().acquire_owned()).await {
        let stream = match stop.run_until_cancelled(listener.accept()).await {
            None => break,
            Some(Ok((stream, _))) => stream,
            Some(Err(error)) => {
                if !std::mem::replace(&mut refused, true) {
                    tracing::error!(
                        %error,
                        "connections cannot be accepted; raise the limit of open files (ulimit -n) \
                         if it is that"
                    );
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        refused = false;
        let (router, stop) = (router.clone(), stop.clone());
        connections.spawn(async move {
            let _place = place;
            converse(stream, router, stop).await;
        });
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// One connection, from its first request to its last.
async fn converse(stream: TcpStream, router: Router, stop: CancellationToken) {
    // A small response must not wait for the client's acknowledgement of the one before.
    let _ = stream.set_nodelay(true);
    let service = TowerToHyperService::new(router);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// How many connections the port for workers may hold: half of what the process may open, so that
/// the broker, databases and the operator find room.
pub(crate) fn room_for_workers() -> usize {
    const FALLBACK: usize = 1024;
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let open_files = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<usize>().ok());
    open_files.map_or(FALLBACK, |files| (files / 2).clamp(16, 10_000))
}
