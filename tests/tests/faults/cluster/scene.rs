//! What the rows on a cluster share: three nodes, hosts and producers that know all three and begin
//! with one each, and the count at the end.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde_json::json;
use warren_tests::{
    Cluster, Host, Setup, Site,
    faults::{Figures, LEDGER, Ledger, Load, Plan, Row, Sent, limits, names, prefetch},
    try_within,
};

use crate::secs;

const CONCURRENCY: u16 = 8;
/// Jobs in a second, of each producer.
const RATE: f64 = 120.0;

pub(crate) struct Scene {
    pub(crate) cluster: Cluster,
    pub(crate) ledger: Ledger,
    /// The keys of jobs that were offered beside the producers.
    pub(crate) also_tried: BTreeSet<String>,
}

impl Scene {
    pub(crate) async fn new() -> Self {
        Self {
            cluster: Cluster::start().await,
            ledger: Ledger::new(),
            also_tried: BTreeSet::new(),
        }
    }

    /// The nodes' URLs, this node's first.
    pub(crate) fn urls(&self, first: usize) -> Vec<String> {
        let mut urls = self.cluster.urls();
        urls.rotate_left(first);
        urls
    }

    /// A host that begins with this node. Its slot in the ledger is `h` and the node's number.
    pub(crate) async fn host(&self, first: usize) -> Host {
        let data = self.ledger.slot(&slot(first));
        let setup = Setup::new(&Site::embedded())
            .with_plugins([LEDGER])
            .with_config(&limits(CONCURRENCY, ""))
            .with_variable("WARREN_DATA_DIR", &data.to_string_lossy());
        let urls = self.urls(first);
        let setup = urls
            .iter()
            .fold(setup, |setup, url| setup.with_option("--broker", url));
        setup.start().await
    }

    /// Producers that begin with this node, and do not end by themselves.
    pub(crate) async fn load(&self, name: &str, first: usize) -> Load {
        let plan = Plan::new(name, usize::MAX)
            .rate(RATE)
            .of(["FL:*"], json!({"work_ms": 5}));
        let load = Load::start(&self.urls(first), plan);
        load.acknowledged(50).await;
        load
    }

    /// Waits until each node sees all three.
    pub(crate) async fn whole(&self) {
        let cluster = &self.cluster;
        let whole = try_within(secs(60), async || {
            let seen = tokio::join!(
                cluster.n_running(0),
                cluster.n_running(1),
                cluster.n_running(2)
            );
            (seen == (3, 3, 3)).then_some(())
        });
        assert!(whole.await.is_some(), "the cluster is not whole again");
    }

    /// The longest time without an effect between two moments: on one host, or on all.
    pub(crate) async fn longest_gap(&self, slot: Option<&str>, from: i64, to: i64) -> Duration {
        let effects = self.ledger.effects("FL").await;
        let ours = effects
            .iter()
            .filter(|run| slot.is_none_or(|slot| run.slot == slot));
        let mut moments: Vec<i64> = ours.map(|run| run.at_ms).collect();
        moments.retain(|at| (from..to).contains(at));
        moments.extend([from, to]);
        moments.sort_unstable();
        let gaps = moments.windows(2).map(|pair| pair[1] - pair[0]);
        Duration::from_millis(u64::try_from(gaps.max().unwrap_or_default()).unwrap())
    }

    /// Ends the producers and judges. `allowed`: how many runs may be repeated for the faults
    /// themselves. Stricter than the matrix: nothing may be left in a queue or a dead letter.
    pub(crate) async fn judge<const N: usize>(
        &self,
        row: &mut Row,
        loads: [Load; N],
        hosts: usize,
        allowed: usize,
    ) -> Duration {
        for load in &loads {
            load.stop();
        }
        let mut all = Sent::default();
        all.attempted.extend(self.also_tried.iter().cloned());
        for load in loads {
            let sent = load.finish().await;
            all.attempted.extend(sent.attempted);
            all.acknowledged.extend(sent.acknowledged);
            all.refused.extend(sent.refused);
            all.republished += sent.republished;
            all.n_full += sent.n_full;
            let stall = sent.longest_stall.as_secs_f64();
            row.note(format!("a producer's longest stall: {stall:.1} s"));
            all.longest_stall = all.longest_stall.max(sent.longest_stall);
        }
        let mut effects = BTreeMap::new();
        try_within(secs(60), async || {
            tokio::time::sleep(Duration::from_millis(500)).await;
            effects = BTreeMap::new();
            for run in self.ledger.effects("FL").await {
                *effects.entry(run.key).or_insert(0_usize) += 1;
            }
            all.acknowledged
                .iter()
                .all(|key| effects.contains_key(key))
                .then_some(())
        })
        .await;
        let missing = all
            .acknowledged
            .iter()
            .filter(|key| !effects.contains_key(*key));
        let unexpected = effects.keys().filter(|key| !all.attempted.contains(*key));
        row.figures(&Figures {
            attempted: all.attempted.len(),
            acknowledged: all.acknowledged.len(),
            effected: effects.len(),
            lost: missing.cloned().collect(),
            unexpected: unexpected.cloned().collect(),
            duplicated: effects.values().map(|n| n - 1).sum(),
            republished: all.republished,
            ..Figures::default()
        });
        row.allow_duplicates(allowed + all.republished);
        if all.n_full > 0 {
            // The broker says so too when it cannot find a leader for the queue.
            row.note(format!("{} nacked", all.n_full));
        }
        let n_refused = all.refused.len();
        let refused = all.refused.first();
        row.check(
            n_refused == 0,
            format!("{n_refused} refused, such as {refused:?}"),
        );
        self.check_rest(row, hosts).await;
        all.longest_stall
    }

    /// Nothing waits, is held or is dead, and every host consumes with its prefetch.
    async fn check_rest(&self, row: &mut Row, hosts: usize) {
        let (work, dead) = (names::work("FL"), names::dead("FL"));
        let mut last = String::new();
        let rested = try_within(secs(30), async || {
            let words = [
                "list_queues",
                "name",
                "messages_ready",
                "messages_unacknowledged",
            ];
            let queues = self.cluster.list(&words).await.unwrap_or_default();
            let n_of = |name: &str| {
                let found = queues.iter().find(|queue| queue[0] == name);
                found.map(|queue| queue[1..].join("+")).unwrap_or_default()
            };
            let left = [n_of(&work), n_of(&dead), n_of(names::UNROUTED)];
            let words = ["list_consumers", "queue_name", "prefetch_count"];
            let consumers = self.cluster.list(&words).await.unwrap_or_default();
            let ours = consumers.into_iter().filter(|consumer| consumer[0] == work);
            let prefetches: Vec<String> = ours.map(|mut consumer| consumer.remove(1)).collect();
            last = format!(
                "at the end: {left:?} messages (ready and unacked) in {work}, {dead} and {}; the prefetch of each \
                 consumer is {prefetches:?}",
                names::UNROUTED
            );
            let wanted = vec![prefetch(CONCURRENCY).to_string(); hosts];
            (left == ["0+0"; 3] && prefetches == wanted).then_some(())
        });
        let is_rested = rested.await.is_some();
        if !is_rested {
            // Whether it is the host that holds something, or the queue that forgot.
            let words = [
                "list_channels",
                "connection",
                "number",
                "messages_unacknowledged",
            ];
            let channels = self.cluster.list(&words).await.unwrap_or_default();
            let holding = channels.into_iter().filter(|channel| channel[2] != "0");
            last = format!(
                "{last}; channels that hold some: {:?}",
                holding.collect::<Vec<_>>()
            );
        }
        row.check(is_rested, last);
    }
}

#[allow(
    clippy::print_stderr,
    reason = "a row that fails shows what the nodes logged"
)]
impl Drop for Scene {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for node in 0..3 {
                eprintln!("--- what c{} has to say:", node + 1);
                let log = self.cluster.log(node);
                let words = ["[error]", "[warning]", "q.FL", "rabbit on node"];
                for line in log.lines() {
                    if words.iter().any(|word| line.contains(word)) {
                        eprintln!("{line}");
                    }
                }
            }
        }
    }
}

pub(crate) fn slot(first: usize) -> String {
    format!("h{first}")
}

/// What two hosts may hold when both lose their connection.
pub(crate) fn held(hosts: usize) -> usize {
    hosts * usize::from(prefetch(CONCURRENCY))
}

/// The other nodes.
pub(crate) fn others(node: usize) -> [usize; 2] {
    [(node + 1) % 3, (node + 2) % 3]
}
