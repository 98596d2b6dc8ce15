//! Three private RabbitMQ nodes in one cluster, set up as RabbitMQ's own Jepsen tests do
//! (`pause_minority`, a short `net_ticktime`), with networks that can be cut (RELIABILITY "Fault-test
//! matrix").
//!
//! Invariant: nothing outlives the process that started it (see `node::guard`).

#![allow(clippy::panic, reason = "a test without its cluster has failed")]

mod network;

use std::{iter::zip, time::Duration};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use tokio::time::timeout;

use crate::{
    eventually,
    node::{Epmd, Guard, Node, REMEDY, Settings, free_ports},
};
use network::Network;

const N_NODES: u8 = 3;
/// A node without its cluster answers its tools never.
const TOOL_LIMIT: Duration = Duration::from_secs(30);
/// How long without a sign of life until a node counts as gone: `net_ticktime` is about that, and
/// `aten` watches the leaders of quorum queues.
const MACHINE: &str = "-kernel net_ticktime 15 -aten poll_interval 1000 \
                       -rabbit dead_letter_worker_publisher_confirm_timeout 15000";

/// A cluster of three, whose nodes are counted from 0. Dropping it kills them and removes their
/// data.
pub struct Cluster {
    /// Dropped first: it kills the others, so that none is waited for long.
    guard: Guard,
    nodes: Vec<Node>,
    _epmds: Vec<Epmd>,
    network: Network,
}

/// Which links of a cluster are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The node and the two others do not reach each other. Clients reach all three.
    Halves(usize),
    /// Nobody reaches the node, and nobody is told: half-open connections everywhere.
    Unplugged(usize),
    /// Two nodes do not reach each other; both reach the third.
    Pair(usize, usize),
    /// Of each pair of nodes, one does not reach the other: each still hears from a majority.
    Ring,
}

impl Cluster {
    /// Starts three nodes and returns when they are one cluster.
    ///
    /// # Panics
    /// When it cannot be started; the text says what to do.
    pub async fn start() -> Self {
        match Self::try_start().await {
            Ok(cluster) => cluster,
            Err(error) => panic!("no RabbitMQ cluster for this test: {error:#}; {REMEDY}"),
        }
    }

    async fn try_start() -> Result<Self> {
        let guard = Guard::new("warren-cluster-")?;
        let network = Network::new(&guard, N_NODES)?;
        let ports: [u16; 7] = free_ports()?;
        let [epmd_port, ports @ ..] = ports;
        let (ports, distribution_ports) = ports.split_at(usize::from(N_NODES));
        let name = |node: u8| match &network {
            Network::Apart { .. } => format!("c{}@{}", node + 1, network.address(node)),
            Network::Together { .. } => format!("c{}@localhost", node + 1),
        };
        let lines: String = (0..N_NODES)
            .map(|node| {
                format!(
                    "cluster_formation.classic_config.nodes.{node} = {}\n",
                    name(node)
                )
            })
            .collect();
        let lines = format!(
            "cluster_partition_handling = pause_minority\n\
             loopback_users = none\n\
             cluster_formation.peer_discovery_backend = classic_config\n\
             {lines}"
        );
        let mut epmds = Vec::new();
        let mut nodes = Vec::new();
        for (node, (port, distribution_port)) in zip(0.., zip(ports, distribution_ports)) {
            let (namespace, address) = (network.namespace(node), network.address(node));
            // On 127.0.0.1 they share one.
            if namespace.is_some() || epmds.is_empty() {
                let epmd = Epmd::start(&guard, namespace.as_deref(), address, epmd_port)?;
                epmds.push(epmd);
            }
            nodes.push(Node::new(Settings {
                name: name(node),
                folder: guard.folder().join(format!("c{}", node + 1)),
                address,
                namespace,
                port: *port,
                distribution_port: *distribution_port,
                epmd_port,
                lines: lines.clone(),
                plugins: String::new(),
                machine: MACHINE.to_owned(),
            })?);
        }
        // The first makes the cluster; who comes later finds it.
        for node in &mut nodes {
            node.spawn(&guard)?;
            node.wait().await?;
        }
        let cluster = Self {
            guard,
            nodes,
            _epmds: epmds,
            network,
        };
        let n_running = cluster.n_running(0).await;
        ensure!(n_running == 3, "{n_running} of 3 nodes are in the cluster");
        Ok(cluster)
    }

    /// Where clients connect to.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(Node::url).collect()
    }

    /// Where clients of one node connect to.
    #[must_use]
    pub fn url(&self, node: usize) -> String {
        self.node(node).url()
    }

    /// Stops a node the way an operator does, and waits for its end. Its data stay.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn stop(&mut self, node: usize) {
        let guard = &self.guard;
        if let Some(node) = self.nodes.get_mut(node) {
            node.end(guard, "-TERM").await;
        }
    }

    /// Kills a node with all its processes. Its data stay.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn kill(&mut self, node: usize) {
        let guard = &self.guard;
        if let Some(node) = self.nodes.get_mut(node) {
            node.end(guard, "-KILL").await;
        }
    }

    /// Starts all nodes that do not run, at the same time: a node may wait for the others. Returns
    /// when they accept connections.
    ///
    /// # Panics
    /// When one does not come up.
    pub async fn start_again(&mut self) {
        let guard = &self.guard;
        let down = self.nodes.iter_mut().filter(|node| !node.is_running());
        let started = down.map(async |node| {
            node.spawn(guard)?;
            node.wait().await.with_context(|| node.name().to_owned())
        });
        if let Err(error) = try_join_all(started).await {
            panic!("a node of the cluster does not start again: {error:#}");
        }
    }

    /// Cuts links. Needs the right to make network namespaces.
    ///
    /// # Panics
    /// When they cannot be cut; the text says what to do.
    pub fn cut(&self, cut: Cut) {
        self.must("cutting a link", self.change(cut, true));
    }

    /// Undoes [`Cluster::cut`].
    ///
    /// # Panics
    /// When the links cannot be mended.
    pub fn heal(&self, cut: Cut) {
        self.must("mending a link", self.change(cut, false));
    }

    /// The node that leads a quorum queue or a stream, or has a classic queue.
    ///
    /// # Panics
    /// When there is none.
    pub async fn leader_of(&self, queue: &str) -> usize {
        eventually(&format!("{queue} has a leader"), async || {
            let listed = self.list(&["list_queues", "name", "leader", "pid"]).await?;
            let line = listed
                .into_iter()
                .find(|line| line.first().is_some_and(|name| name == queue))?;
            // `leader` is only told of quorum queues; a pid begins with the name of its node.
            self.nodes.iter().position(|node| {
                let is_home = |text: &String| text.trim_start_matches('<').starts_with(node.name());
                line.iter().skip(1).any(is_home)
            })
        })
        .await
    }

    /// How many nodes a node sees running, itself included. 0 when it does not even answer.
    pub async fn n_running(&self, node: usize) -> usize {
        let arguments = ["eval", "length(rabbit_nodes:all_running())."];
        let answer = timeout(TOOL_LIMIT, self.node(node).tool("rabbitmqctl", &arguments));
        match answer.await {
            Ok(Ok(printed)) => printed.trim().parse().unwrap_or_default(),
            _ => 0,
        }
    }

    /// Runs `rabbitmqctl` for a node and returns what it printed.
    ///
    /// # Panics
    /// When it fails.
    pub async fn ctl(&self, node: usize, arguments: &[&str]) -> String {
        let run = timeout(TOOL_LIMIT, self.node(node).tool("rabbitmqctl", arguments));
        match run.await {
            Ok(Ok(printed)) => printed,
            failed => panic!("rabbitmqctl {arguments:?}: {failed:?}"),
        }
    }

    /// What a node has logged.
    #[must_use]
    pub fn log(&self, node: usize) -> String {
        self.node(node).log()
    }

    /// The table that `rabbitmqctl` prints for the first node that answers.
    pub async fn list(&self, arguments: &[&str]) -> Option<Vec<Vec<String>>> {
        let arguments = [&["-q", "--no-table-headers"], arguments].concat();
        for node in self.nodes.iter().filter(|node| node.is_running()) {
            let run = timeout(TOOL_LIMIT, node.tool("rabbitmqctl", &arguments));
            if let Ok(Ok(printed)) = run.await {
                let cells = |line: &str| line.split('\t').map(str::to_owned).collect();
                return Some(printed.lines().map(cells).collect());
            }
        }
        None
    }

    fn change(&self, cut: Cut, is_cut: bool) -> Result<()> {
        let links = match cut {
            Cut::Unplugged(node) => return self.network.plug(u8::try_from(node)?, !is_cut),
            Cut::Halves(node) => {
                let node = u8::try_from(node)?;
                let others = (0..N_NODES).filter(|other| *other != node);
                others
                    .flat_map(|other| [(node, other), (other, node)])
                    .collect()
            }
            Cut::Pair(a, b) => {
                let (a, b) = (u8::try_from(a)?, u8::try_from(b)?);
                vec![(a, b), (b, a)]
            }
            Cut::Ring => vec![(0, 1), (1, 2), (2, 0)],
        };
        for (from, to) in links {
            if is_cut {
                self.network.cut(from, to)?;
            } else {
                self.network.join(from, to)?;
            }
        }
        Ok(())
    }

    fn node(&self, node: usize) -> &Node {
        match self.nodes.get(node) {
            Some(node) => node,
            None => panic!("there is no node {node}: they are counted from 0 to 2"),
        }
    }

    fn must(&self, what: &str, result: Result<()>) {
        if let Err(error) = result {
            panic!("{what}: {error:#}");
        }
    }
}
