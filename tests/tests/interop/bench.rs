//! What the tests share: a virtual host with a host of Warren on it, and requests in numbers.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use hyper::Method;
use serde_json::Value;
use warren_protocol::Encoding;
use warren_tests::{Host, NodePeer, Setup, Site, VirtualHost, eventually, http::Client};

/// A virtual host of a test's own, and how its bus is spoken on.
pub(crate) struct Bench {
    pub(crate) encoding: Encoding,
    pub(crate) site: Site,
    /// Dropped last.
    pub(crate) vhost: VirtualHost,
}

impl Bench {
    pub(crate) async fn new(encoding: Encoding) -> Self {
        let vhost = VirtualHost::new().await;
        Self {
            encoding,
            site: Site::within(&vhost),
            vhost,
        }
    }

    /// A host to be started, in this encoding.
    pub(crate) fn setup(&self) -> Setup {
        let encoding = self.encoding.to_string().to_ascii_lowercase();
        let encoding = encoding.replace("messagepack", "msgpack");
        Setup::new(&self.site).with_variable("WARREN_ENCODING", &encoding)
    }

    /// A host with these plugins that is the gateway.
    pub(crate) async fn host<const N: usize>(&self, plugins: [&str; N]) -> Host {
        let host = self.setup().with_plugins(plugins).start().await;
        is_gateway(&host).await;
        host
    }

    /// A Node peer on the same bus.
    pub(crate) async fn peer(&self, role: &str) -> NodePeer {
        NodePeer::start(self.vhost.url(), self.encoding, role).await
    }
}

/// Waits until a host is the gateway.
pub(crate) async fn is_gateway(host: &Host) {
    eventually("the host is the gateway", async || {
        (host.admin_json("/peers").await["gateway"] == true).then_some(())
    })
    .await;
}

/// Waits until the gateway knows a worker.
pub(crate) async fn knows(host: &Host, id: &str) {
    eventually(&format!("the gateway knows {id}"), async || {
        let peers = host.admin_json("/peers").await;
        let workers = peers["workers"].as_array().cloned().unwrap_or_default();
        let known = workers.iter().any(|worker| worker["id"] == id);
        known.then_some(())
    })
    .await;
}

/// A figure of a host's metrics; 0 where it is not there.
pub(crate) async fn figure(host: &Host, name: &str) -> f64 {
    let text = host.admin("/metrics").await.text();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.map_or(0.0, |value| value.trim().parse().unwrap())
}

/// What came of many requests.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    /// How many had each status; 0 is a connection that broke.
    pub(crate) by_status: BTreeMap<u16, usize>,
    pub(crate) longest: Duration,
}

impl Answers {
    pub(crate) fn all_good(&self, n: usize) -> bool {
        self.by_status == BTreeMap::from([(200, n)])
    }
}

/// Sends `n` requests, `at_once` of them at the same time.
pub(crate) async fn ask(port: u16, n: usize, at_once: usize) -> Answers {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut clients = Vec::new();
    for client in 0..at_once {
        let share = n / at_once + usize::from(client < n % at_once);
        clients.push(tokio::spawn(ask_in_turn(address, share)));
    }
    let mut answers = Answers::default();
    for client in clients {
        let (by_status, longest) = client.await.unwrap();
        for status in by_status {
            *answers.by_status.entry(status).or_default() += 1;
        }
        answers.longest = answers.longest.max(longest);
    }
    answers
}

async fn ask_in_turn(address: SocketAddr, n: usize) -> (Vec<u16>, Duration) {
    let (mut statuses, mut longest) = (Vec::new(), Duration::ZERO);
    let mut client = None;
    for _ in 0..n {
        let begun = Instant::now();
        let connected = match client.take() {
            Some(client) => Ok(client),
            None => Client::connect(address).await,
        };
        let status = match connected {
            Ok(mut open) => match open.send(Method::GET, "/movies/", Vec::new()).await {
                Ok(response) => {
                    client = Some(open);
                    response.status.as_u16()
                }
                Err(_) => 0,
            },
            Err(_) => 0,
        };
        statuses.push(status);
        longest = longest.max(begun.elapsed());
    }
    (statuses, longest)
}

/// The jobs that a peer has run: the requests that they belong to.
pub(crate) fn requests_run(peer: &NodePeer) -> Vec<String> {
    let events = peer.events();
    let taken = events.iter().filter(|event| event["event"] == "taken");
    taken.map(|event| text(&event["data"]["resId"])).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
