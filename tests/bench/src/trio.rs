//! REST → Pilot → DB over HTTP: three hops and their replies for each request, by three means.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use hdrhistogram::Histogram;
use http_body_util::{BodyExt, Full};
use hyper::{
    Request, StatusCode,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::{net::TcpStream, task::JoinSet, time::sleep};
use warren_tests::{Broker, Setup, Site, host};

use crate::{
    hop::Percentiles,
    processes::{Ready, usage},
};

/// Clients, each with one connection and one request at a time.
const N_CLIENTS: usize = 64;
const PATH: &str = "/movies/?title=Alien";
const MOVIE: &str = r#"{"title":"Alien","year":1979}"#;

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trio {
    /// Four Node processes on RabbitMQ, with noDelay.
    Node,
    /// One host on RabbitMQ.
    RabbitMq,
    /// One host on the embedded bus.
    Embedded,
}

/// What one round has shown of one trio.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Requests {
    /// Answers in a second.
    pub(crate) rate: f64,
    pub(crate) latency: Percentiles,
    /// Time on a processor for each request, in microseconds.
    pub(crate) cpu: f64,
    /// The broker's for each request.
    pub(crate) broker_cpu: f64,
    /// Resident memory before the first request and after the last, in bytes.
    pub(crate) memory: (u64, u64),
}

impl Trio {
    pub(crate) const ALL: [Self; 3] = [Self::Node, Self::RabbitMq, Self::Embedded];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Node => "Node trio, noDelay, RabbitMQ",
            Self::RabbitMq => "Warren trio, RabbitMQ",
            Self::Embedded => "Warren trio, embedded bus",
        }
    }

    pub(crate) async fn measure(self, broker: &Broker, seconds: f64) -> Result<Requests> {
        let url = &broker.url();
        match self {
            Self::Node => {
                let (held, address) = node(url)?;
                let pids: Vec<u32> = held.iter().map(Ready::pid).collect();
                measure(address, &pids, broker, seconds).await
            }
            Self::RabbitMq | Self::Embedded => {
                let setup = Setup::new(&Site::embedded()).with_movies();
                let setup = match self {
                    Self::RabbitMq => setup.with_broker(url),
                    _ => setup,
                };
                let host = setup.start().await;
                measure(host.http, &[host.pid()], broker, seconds).await
            }
        }
    }
}

/// The example of `examples/migrate/node`, and where it answers.
fn node(url: &str) -> Result<(Vec<Ready>, SocketAddr)> {
    const START: Duration = Duration::from_secs(30);
    let folder = host::repository().join("examples/migrate/node");
    let free = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = free.local_addr()?.port();
    drop(free);
    let start = |role: &str, options: &[&str]| {
        let mut command = std::process::Command::new("node");
        command
            .arg(folder.join(format!("{role}.js")))
            .args(["--broker", url, "--encoding", "json", "--no-delay"])
            .args(options);
        // Its greeting, when it is on the bus.
        Ready::start(command, "", START)
    };
    let port_text = port.to_string();
    let trio = vec![
        start("manager", &[])?,
        start("db", &[])?,
        start("pilot", &[])?,
        start("rest", &["--http", &port_text, "--post-to", "WD:*"])?,
    ];
    Ok((trio, SocketAddr::from((Ipv4Addr::LOCALHOST, port))))
}

async fn measure(
    address: SocketAddr,
    pids: &[u32],
    broker: &Broker,
    seconds: f64,
) -> Result<Requests> {
    let memory = usage(pids).memory;
    // One movie to find.
    let patience = Instant::now() + Duration::from_secs(20);
    loop {
        let posted = async {
            let mut client = connect(address).await?;
            let request = Request::post("/movies/").header("host", "bench");
            let body = Full::new(Bytes::from(MOVIE));
            answer(&mut client, request.body(body)?).await
        };
        match posted.await {
            Ok(status) if status.is_success() => break,
            other if Instant::now() > patience => bail!("the trio does not answer: {other:?}"),
            _ => sleep(Duration::from_millis(100)).await,
        }
    }
    ask(address, seconds / 4.0).await?;
    let broker: Vec<u32> = broker.pid().into_iter().collect();
    let look = || (usage(pids), usage(&broker));
    let (begun, before) = (Instant::now(), look());
    let latency = ask(address, seconds).await?;
    let (took, after) = (begun.elapsed().as_secs_f64(), look());
    let n = latency.len() as f64;
    Ok(Requests {
        rate: n / took,
        latency: Percentiles::from(&latency),
        cpu: (after.0.cpu - before.0.cpu) / n * 1e6,
        broker_cpu: (after.1.cpu - before.1.cpu) / n * 1e6,
        memory: (memory, after.0.memory),
    })
}

/// All clients ask for so long, each its next request as soon as it has its answer.
async fn ask(address: SocketAddr, seconds: f64) -> Result<Histogram<u64>> {
    let until = Instant::now() + Duration::from_secs_f64(seconds);
    let mut clients = JoinSet::new();
    for _ in 0..N_CLIENTS {
        clients.spawn(async move {
            let mut latency = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3)?;
            let mut client = connect(address).await?;
            while Instant::now() < until {
                let asked = Instant::now();
                let request = Request::get(PATH).header("host", "bench");
                let status = answer(&mut client, request.body(Full::default())?).await?;
                if status != StatusCode::OK {
                    bail!("answered {status}");
                }
                let micros = u64::try_from(asked.elapsed().as_micros()).unwrap_or(u64::MAX);
                latency.saturating_record(micros.max(1));
            }
            Ok(latency)
        });
    }
    let mut all = Histogram::new_with_bounds(1, 60_000_000, 3)?;
    while let Some(client) = clients.join_next().await {
        all.add(client.context("a client")??)?;
    }
    Ok(all)
}

type Client = SendRequest<Full<Bytes>>;

async fn connect(address: SocketAddr) -> Result<Client> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (client, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn answer(client: &mut Client, request: Request<Full<Bytes>>) -> Result<StatusCode> {
    client.ready().await?;
    let response = client.send_request(request).await?;
    let status = response.status();
    response.into_body().collect().await?;
    Ok(status)
}
