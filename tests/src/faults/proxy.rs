//! A TCP proxy before a broker that understands AMQP: it can reset, silence and slow down the
//! connections of one role, and stop the traffic at one exact frame.
//!
//! Invariant: what passes, passes unchanged and, within a channel, in order. Its connections end
//! with it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
};

use super::{
    frame::{Direction, Method},
    rules::{At, Deed, Flow, Point, Rules, Who},
};

mod pump;

/// A proxy on a free port of 127.0.0.1.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    upstream: u16,
    rules: Arc<Rules>,
    door: watch::Sender<Door>,
    connections: Mutex<Vec<Arc<Link>>>,
    counts: Mutex<Counts>,
}

/// What happens to who comes new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    Open,
    /// Nobody listens: the connection is refused.
    Closed,
    /// The connection is accepted, and nothing is ever said.
    Mute,
}

/// One connection of a client.
struct Link {
    role: Mutex<Option<String>>,
    cut: watch::Sender<bool>,
}

#[derive(Default)]
struct Counts {
    n_accepted: usize,
    frames: HashMap<(Direction, Method, Option<String>), usize>,
}

impl Proxy {
    /// Starts a proxy before this port of 127.0.0.1.
    ///
    /// # Errors
    /// When no port can be taken.
    pub async fn start(upstream: u16) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.context("taking a port for the proxy")?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared {
            upstream,
            rules: Arc::new(Rules::new()),
            door: watch::Sender::new(Door::Open),
            connections: Mutex::default(),
            counts: Mutex::default(),
        });
        let task = tokio::spawn(keep_the_door(port, listener, shared.clone()));
        Ok(Self { port, shared, task })
    }

    /// Where a client connects to, as `guest`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}", self.port)
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Everything passes again, also new connections. What a hold holds stays held.
    pub fn pass(&self, who: impl Into<Who>) {
        self.shared.rules.set_flow(who.into(), Flow::Pass);
        self.shared.door.send_replace(Door::Open);
    }

    /// Forwards nothing, either way, and ends nothing. What is sent comes through after
    /// [`Proxy::pass`], as after a cable that was pulled.
    pub fn blackhole(&self, who: impl Into<Who>) {
        self.shared.rules.set_flow(who.into(), Flow::Blackhole);
    }

    /// Each frame takes this long, each way.
    pub fn delay(&self, who: impl Into<Who>, latency: Duration) {
        self.shared.rules.set_flow(who.into(), Flow::Delay(latency));
    }

    /// Resets the connections that are there (RST, both sides), and says how many.
    pub fn rst(&self, who: impl Into<Who>) -> usize {
        let who = who.into();
        let links = lock(&self.shared.connections);
        let meant = links
            .iter()
            .filter(|link| who.means(lock(&link.role).as_deref()));
        let mut n = 0;
        for link in meant {
            link.cut.send_replace(true);
            n += 1;
        }
        n
    }

    /// Refuses new connections; those that are there go on.
    pub fn refuse(&self) {
        self.shared.door.send_replace(Door::Closed);
    }

    /// Accepts new connections and never says a word on them.
    pub fn mute(&self) {
        self.shared.door.send_replace(Door::Mute);
    }

    /// From this frame on, those of its method wait, each with what follows on its channel, until
    /// the [`Point`] is released. Other channels and heartbeats pass.
    #[must_use]
    pub fn hold(&self, at: At) -> Point {
        self.shared.rules.add(at, Deed::Hold)
    }

    /// Resets the connection instead of forwarding this frame.
    #[must_use]
    pub fn cut_before(&self, at: At) -> Point {
        self.shared.rules.add(at, Deed::CutBefore)
    }

    /// Ends the connection once this frame is forwarded.
    #[must_use]
    pub fn cut_after(&self, at: At) -> Point {
        self.shared.rules.add(at, Deed::CutAfter)
    }

    /// The connections that are there now.
    #[must_use]
    pub fn n_connections(&self, who: impl Into<Who>) -> usize {
        let who = who.into();
        let links = lock(&self.shared.connections);
        let meant = links
            .iter()
            .filter(|link| who.means(lock(&link.role).as_deref()));
        meant.count()
    }

    /// How often a client has connected, successfully or not.
    #[must_use]
    pub fn n_accepted(&self) -> usize {
        lock(&self.shared.counts).n_accepted
    }

    /// How many frames of a method have come to the proxy.
    #[must_use]
    pub fn n_frames(&self, direction: Direction, method: Method, who: impl Into<Who>) -> usize {
        let who = who.into();
        let counts = lock(&self.shared.counts);
        let frames = counts.frames.iter();
        let meant = frames.filter(|((way, what, role), _)| {
            *way == direction && *what == method && who.means(role.as_deref())
        });
        meant.map(|(_, n)| n).sum()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn count(&self, direction: Direction, method: Method, role: Option<String>) {
        let mut counts = lock(&self.counts);
        *counts.frames.entry((direction, method, role)).or_default() += 1;
    }
}

/// Accepts while the door is open. A closed one has no listener: the system refuses.
async fn keep_the_door(port: u16, listener: TcpListener, shared: Arc<Shared>) {
    let mut door = shared.door.subscribe();
    let mut listener = Some(listener);
    let mut links = JoinSet::new();
    let mut silent = Vec::new();
    loop {
        let state = *door.borrow_and_update();
        if state == Door::Closed {
            listener = None;
        } else if listener.is_none() {
            listener = TcpListener::bind(("127.0.0.1", port)).await.ok();
        }
        if state == Door::Open {
            silent.clear();
        }
        let accepted = tokio::select! {
            changed = door.changed() => {
                if changed.is_err() {
                    return;
                }
                continue;
            }
            accepted = accept(listener.as_ref()) => accepted,
        };
        lock(&shared.counts).n_accepted += 1;
        if state == Door::Mute {
            silent.push(accepted);
            continue;
        }
        links.spawn(serve(shared.clone(), accepted));
        while links.try_join_next().is_some() {}
    }
}

async fn accept(listener: Option<&TcpListener>) -> TcpStream {
    loop {
        match listener {
            None => std::future::pending().await,
            Some(listener) => {
                if let Ok((stream, _)) = listener.accept().await {
                    return stream;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

/// One connection, from its beginning to its end.
async fn serve(shared: Arc<Shared>, client: TcpStream) {
    // Without an upstream the client sees what it would see without the proxy.
    let Ok(server) = TcpStream::connect(("127.0.0.1", shared.upstream)).await else {
        let _ = client.set_zero_linger();
        return;
    };
    let link = Arc::new(Link {
        role: Mutex::default(),
        cut: watch::Sender::new(false),
    });
    lock(&shared.connections).push(link.clone());
    pump::run(&shared, &link, client, server).await;
    lock(&shared.connections).retain(|other| !Arc::ptr_eq(other, &link));
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
