//! The network of a cluster: a namespace for each node on a bridge of its own, so that links can
//! really be cut. Whoever may not make namespaces gets 127.0.0.1 for all, where nothing can be cut.
//!
//! Invariant: what is made here is undone by the guard, also when the process is killed.

use std::{net::Ipv4Addr, process::Command};

use anyhow::{Result, bail};

use crate::node::Guard;

/// How the nodes of a cluster reach each other, and clients them.
pub(crate) enum Network {
    /// A namespace for each node, reached from ours over a bridge.
    Apart {
        /// The second and third number of the subnet, and part of all names.
        id: (u8, u8),
    },
    /// All on 127.0.0.1, and why.
    Together { reason: String },
}

impl Network {
    pub(crate) fn new(guard: &Guard, n_nodes: u8) -> Result<Self> {
        // As good as drawn, and free after a few tries.
        let seed = std::process::id();
        for try_ in 0..64 {
            let [low, high, ..] = seed.wrapping_add(try_).to_le_bytes();
            let network = Self::Apart {
                id: (64 + high % 64, low),
            };
            match ip(&format!("link add {} type bridge", network.bridge())) {
                Ok(()) => {
                    network.build(guard, n_nodes)?;
                    return Ok(network);
                }
                Err(error) if error.to_string().contains("exists") => {}
                Err(error) => {
                    let reason = format!("{error:#}");
                    return Ok(Self::Together { reason });
                }
            }
        }
        bail!("all names for a bridge are taken: `ip link` shows them");
    }

    pub(crate) fn namespace(&self, node: u8) -> Option<String> {
        match self {
            Self::Apart { id: (a, b) } => Some(format!("warren-{a}-{b}-{node}")),
            Self::Together { .. } => None,
        }
    }

    pub(crate) fn address(&self, node: u8) -> Ipv4Addr {
        match self {
            Self::Apart { id: (a, b) } => Ipv4Addr::new(10, *a, *b, 11 + node),
            Self::Together { .. } => Ipv4Addr::LOCALHOST,
        }
    }

    /// Nothing goes from one node to the other any more. Everybody else still reaches both.
    pub(crate) fn cut(&self, from: u8, to: u8) -> Result<()> {
        let (Some(namespace), address) = (self.namespace(from), self.address(to)) else {
            return self.refuse();
        };
        ip(&format!("-n {namespace} route add blackhole {address}/32"))
    }

    /// Undoes [`Network::cut`].
    pub(crate) fn join(&self, from: u8, to: u8) -> Result<()> {
        let (Some(namespace), address) = (self.namespace(from), self.address(to)) else {
            return self.refuse();
        };
        ip(&format!("-n {namespace} route del blackhole {address}/32"))
    }

    /// Pulls the plug of a node, or puts it back. Nobody is told: packets just do not arrive.
    pub(crate) fn plug(&self, node: u8, is_in: bool) -> Result<()> {
        if let Self::Together { .. } = self {
            return self.refuse();
        }
        let state = if is_in { "up" } else { "down" };
        ip(&format!("link set {} {state}", self.port(node)))
    }

    fn refuse(&self) -> Result<()> {
        match self {
            Self::Together { reason } => bail!(
                "a link can only be cut between network namespaces, which cannot be made here \
                 ({reason}): run this test as root, with iproute2 installed"
            ),
            Self::Apart { .. } => Ok(()),
        }
    }

    fn build(&self, guard: &Guard, n_nodes: u8) -> Result<()> {
        let bridge = self.bridge();
        guard.undo(&format!("ip link del {bridge}"))?;
        let Self::Apart { id: (a, b) } = self else {
            return Ok(());
        };
        ip(&format!("addr add 10.{a}.{b}.1/24 dev {bridge}"))?;
        ip(&format!("link set {bridge} up"))?;
        for node in 0..n_nodes {
            let Some(namespace) = self.namespace(node) else {
                continue;
            };
            let (port, address) = (self.port(node), self.address(node));
            // A namespace lives on for as long as a connection in it is not given up.
            guard.undo(&format!("ip link del {port}; ip netns del {namespace}"))?;
            ip(&format!("netns add {namespace}"))?;
            ip(&format!(
                "link add {port} type veth peer name eth0 netns {namespace}"
            ))?;
            ip(&format!("link set {port} master {bridge} up"))?;
            ip(&format!("-n {namespace} addr add {address}/24 dev eth0"))?;
            ip(&format!("-n {namespace} link set eth0 up"))?;
            ip(&format!("-n {namespace} link set lo up"))?;
        }
        Ok(())
    }

    fn bridge(&self) -> String {
        match self {
            Self::Apart { id: (a, b) } => format!("wrn{a}-{b}"),
            Self::Together { .. } => String::new(),
        }
    }

    /// The end of a node's cable at the bridge.
    fn port(&self, node: u8) -> String {
        format!("{}-{node}", self.bridge())
    }
}

fn ip(arguments: &str) -> Result<()> {
    let output = Command::new("ip").args(arguments.split(' ')).output()?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        bail!("ip {arguments}: {}", error.trim());
    }
    Ok(())
}
