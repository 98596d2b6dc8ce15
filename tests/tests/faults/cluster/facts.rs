//! What a RabbitMQ cluster does when a node is gone: the facts that Warren's behaviour rests on
//! (RELIABILITY "What is lost / duplicated"). No host takes part: where one of these fails, RabbitMQ
//! has changed.

mod probe;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use lapin::{
    Channel, Connection,
    options::{BasicConsumeOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions},
    types::FieldTable,
};
use tokio::time::{sleep, timeout};
use warren_tests::{Cluster, Cut, eventually};

use crate::secs;
use probe::{
    Answer, DURABLE, EXCLUSIVE, Flood, JOBS, confirming, connect, declare, n_messages, of_type,
    publish,
};

type Step = BoxFuture<'static, lapin::Result<()>>;

/// So a job by id, and a reply, are told from lost ones; and so the inbox of a host is drawn again.
/// The old one must then be unbound: its bindings come back with its node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_classic_queue_without_its_node_is_not_found_and_comes_back_with_its_bindings() {
    let mut cluster = Cluster::start().await;
    let here = connect(&cluster, 0).await;
    let home = connect(&cluster, 2).await;
    declare(&home, "inbox", "classic", &["id-1"]).await;
    let lock = home.create_channel().await.unwrap();
    let locked = lock.queue_declare("lock".into(), EXCLUSIVE, FieldTable::default());
    locked.await.unwrap();
    let publisher = confirming(&here).await;
    assert_eq!(publish(&publisher, "id-1").await, Answer::Confirmed);

    for is_killed in [true, false] {
        if is_killed {
            cluster.kill(2).await;
            // The lock of a holder on that node is free at once.
            let lock = here.create_channel().await.unwrap();
            let locked = lock.queue_declare("lock".into(), EXCLUSIVE, FieldTable::default());
            locked.await.unwrap();
        } else {
            cluster.stop(2).await;
        }
        not_found(&here).await;
        assert_eq!(publish(&publisher, "id-1").await, Answer::Returned);

        cluster.start_again().await;
        eventually("the queue is back", async || {
            let channel = here.create_channel().await.unwrap();
            let declared = channel.queue_declare("inbox".into(), DURABLE, of_type("classic"));
            declared
                .await
                .ok()
                .filter(|queue| queue.message_count() > 0)
        })
        .await;
        assert_eq!(publish(&publisher, "id-1").await, Answer::Confirmed);
    }
    assert_eq!(n_messages(&here, "inbox").await, Some(3));
}

/// Nothing that the broker confirms is lost with its node; what it refuses may be there all the
/// same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_classic_queue_confirms_nothing_that_it_does_not_keep() {
    let mut cluster = Cluster::start().await;
    let here = connect(&cluster, 0).await;
    for (round, pause) in [("stop", 0), ("kill", 0), ("silence", 10)] {
        let home = connect(&cluster, 2).await;
        declare(&home, round, "classic", &[round]).await;
        let flood = Flood::start(&here, round, Duration::from_millis(pause)).await;
        sleep(secs(2)).await;
        match round {
            "stop" => cluster.stop(2).await,
            "kill" => cluster.kill(2).await,
            _ => cluster.cut(Cut::Unplugged(2)),
        }
        sleep(secs(if round == "silence" { 30 } else { 1 })).await;
        let counts = flood.finish().await;
        if round == "silence" {
            cluster.heal(Cut::Unplugged(2));
        } else {
            cluster.start_again().await;
        }
        let n = eventually("the queue is back", async || n_messages(&here, round).await).await;
        let n_of = |answer| counts.get(&answer).map_or(0, |(n, _)| *n);
        assert_eq!(n_of(Answer::Silence), 0, "{round}: {counts:?}");
        assert!(n_of(Answer::Returned) > 0, "{round}: {counts:?}");
        assert!(n_of(Answer::Confirmed) > 0, "{round}: {counts:?}");
        assert!(
            n as usize >= n_of(Answer::Confirmed),
            "{round}: {n} kept; {counts:?}"
        );
    }
}

/// So a stream beside the dead letters costs publishers seconds when its node dies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quorum_queues_and_streams_confirm_without_the_node_that_led_them() {
    let mut cluster = Cluster::start().await;
    declare_both(&cluster).await;
    for queue in ["stream", "quorum"] {
        let leader = cluster.leader_of(queue).await;
        let here = connect(&cluster, (leader + 1) % 3).await;
        let flood = Flood::start(&here, "both", Duration::from_millis(5)).await;
        sleep(secs(1)).await;
        cluster.kill(leader).await;
        sleep(secs(12)).await;
        let counts = flood.finish().await;
        cluster.start_again().await;
        let stall = all_confirmed(&counts);
        eprintln!("the leader of the {queue} killed: the longest confirm took {stall:?}");
        assert!(
            stall < secs(10),
            "{queue}: the longest confirm took {stall:?}"
        );
    }
}

/// A quorum queue has a new leader within seconds (`aten` watches it). A stream waits until the
/// nodes give each other up (`net_ticktime`), and with it whatever is published to both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_node_holds_up_its_streams_for_longer_than_its_quorum_queues() {
    let cluster = Cluster::start().await;
    declare_both(&cluster).await;
    let leader = cluster.leader_of("stream").await;
    assert_eq!(cluster.leader_of("quorum").await, leader);
    let here = connect(&cluster, (leader + 1) % 3).await;
    // A channel that waits for a stream soon stops its whole connection: each has its own.
    let alone = connect(&cluster, (leader + 1) % 3).await;
    let quorum = Flood::start(&alone, "alone", Duration::from_millis(5)).await;
    let both = Flood::start(&here, "both", Duration::from_millis(5)).await;
    sleep(secs(1)).await;
    cluster.cut(Cut::Unplugged(leader));
    sleep(secs(30)).await;
    let (quorum, both) = (
        all_confirmed(&quorum.finish().await),
        all_confirmed(&both.finish().await),
    );
    cluster.heal(Cut::Unplugged(leader));
    eprintln!("the longest confirm: {quorum:?} of a quorum queue, {both:?} of a stream too");
    assert!(quorum < secs(10), "{quorum:?}");
    assert!(both < secs(35), "{both:?}");
}

/// A nack is no proof of a full queue: a channel that publishes for the first time while a leader is
/// elected is refused for as long as the dead leader is away, and a new channel is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_that_begins_during_an_election_is_refused_until_the_dead_node_is_back() {
    let mut cluster = Cluster::start().await;
    declare_both(&cluster).await;
    let leader = cluster.leader_of("quorum").await;
    let here = Arc::new(connect(&cluster, (leader + 1) % 3).await);
    let opening = here.clone();
    let opened = tokio::spawn(async move {
        let mut channels = Vec::new();
        // An election takes some 0.3 s.
        while channels.len() < 200 {
            let channel = confirming(&opening).await;
            channels.push(tokio::spawn(async move {
                let first = publish(&channel, "alone").await;
                (channel, first)
            }));
            sleep(Duration::from_millis(10)).await;
        }
        channels
    });
    cluster.kill(leader).await;
    let mut refused = Vec::new();
    for opened in opened.await.unwrap() {
        let (channel, first) = opened.await.unwrap();
        if first == Answer::Refused {
            refused.push(channel);
        }
    }
    assert!(!refused.is_empty(), "no channel has seen the election");
    for _ in 0..5 {
        for channel in &refused {
            assert_eq!(publish(channel, "alone").await, Answer::Refused);
        }
        let new = confirming(&here).await;
        assert_eq!(publish(&new, "alone").await, Answer::Confirmed);
        sleep(secs(1)).await;
    }
    cluster.start_again().await;
    eventually("the refused channels are of use again", async || {
        let mut answers = Vec::new();
        for channel in &refused {
            answers.push(publish(channel, "alone").await);
        }
        answers
            .iter()
            .all(|answer| *answer == Answer::Confirmed)
            .then_some(())
    })
    .await;
}

/// Both on the same node, which leads them.
async fn declare_both(cluster: &Cluster) {
    let home = connect(cluster, 2).await;
    declare(&home, "quorum", "quorum", &["both", "alone"]).await;
    declare(&home, "stream", "stream", &["both"]).await;
}

/// The longest that a confirm took.
#[track_caller]
fn all_confirmed(counts: &BTreeMap<Answer, (usize, Duration)>) -> Duration {
    let is_all_confirmed = counts.keys().all(|answer| *answer == Answer::Confirmed);
    assert!(is_all_confirmed, "{counts:?}");
    counts[&Answer::Confirmed].1
}

/// Every step with the queue `inbox` is answered with 404 at once, on a channel of its own.
async fn not_found(connection: &Connection) {
    let none = FieldTable::default;
    let inbox = || "inbox".into();
    let passive = QueueDeclareOptions {
        passive: true,
        ..DURABLE
    };
    let check = async |step: &str, take: &dyn Fn(Channel) -> Step| {
        let channel = connection.create_channel().await.unwrap();
        let answer = timeout(secs(2), take(channel)).await;
        let error = answer.expect("an answer at once").unwrap_err().to_string();
        let is_told = error.contains("NOT_FOUND") && error.contains("is down or inaccessible");
        assert!(is_told, "{step}: {error}");
    };
    check("declare", &|channel| {
        async move {
            channel
                .queue_declare(inbox(), DURABLE, of_type("classic"))
                .await
                .map(drop)
        }
        .boxed()
    })
    .await;
    check("declare passively", &|channel| {
        async move {
            channel
                .queue_declare(inbox(), passive, none())
                .await
                .map(drop)
        }
        .boxed()
    })
    .await;
    check("bind", &|channel| {
        let (key, options) = ("id-1".into(), QueueBindOptions::default());
        async move {
            channel
                .queue_bind(inbox(), JOBS.into(), key, options, none())
                .await
        }
        .boxed()
    })
    .await;
    check("unbind", &|channel| {
        let key = "id-1".into();
        async move {
            channel
                .queue_unbind(inbox(), JOBS.into(), key, none())
                .await
        }
        .boxed()
    })
    .await;
    check("consume", &|channel| {
        let (tag, options) = ("tag".into(), BasicConsumeOptions::default());
        async move {
            channel
                .basic_consume(inbox(), tag, options, none())
                .await
                .map(drop)
        }
        .boxed()
    })
    .await;
    check("delete", &|channel| {
        let options = QueueDeleteOptions::default();
        async move { channel.queue_delete(inbox(), options).await.map(drop) }.boxed()
    })
    .await;
}
