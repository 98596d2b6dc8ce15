//! What happens to the nodes of a cluster: they are killed, cut off, and gone for the most part.

mod facts;
mod scene;

use std::time::{Duration, Instant};

use serde_json::json;
use warren_bus::{Bus, RabbitMq, RabbitMqConfig};
use warren_tests::{
    Cut,
    faults::{Row, job, names, publish_until_stored},
};

use crate::{now_ms, secs};
use scene::{Scene, held, others, slot};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f24_a_leader_that_is_killed_holds_publishers_up_for_seconds_only() {
    const N_KILLS: usize = 3;
    let mut row = Row::new("F24", "3 nodes: the leader's node killed");
    let mut scene = Scene::new().await;
    let _hosts = [scene.host(0).await, scene.host(1).await];
    let loads = [scene.load("f24a", 1).await, scene.load("f24b", 2).await];
    let mut slowest = Duration::ZERO;
    for _ in 0..N_KILLS {
        let leader = scene.cluster.leader_of(&names::work("FL")).await;
        let from = now_ms();
        scene.cluster.kill(leader).await;
        tokio::time::sleep(secs(8)).await;
        scene.cluster.start_again().await;
        scene.whole().await;
        tokio::time::sleep(secs(3)).await;
        slowest = slowest.max(scene.longest_gap(None, from, now_ms()).await);
    }
    row.injected(format!("{N_KILLS} kill -9 of the leader's node"));
    let stall = scene.judge(&mut row, loads, 2, N_KILLS * held(2)).await;
    row.recovery(slowest, secs(10));
    row.note("recovery: the longest time without an effect");
    check_stall(&mut row, stall, secs(10));
    row.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f25_halves_cost_nothing_and_who_is_on_the_smaller_side_goes_over() {
    partition(
        "F25-halves",
        "3 nodes: one cut off from two, 30 s and 10 s",
        Cut::Halves,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f25_a_node_that_nobody_reaches_costs_nothing() {
    partition(
        "F25-node",
        "3 nodes: one unplugged, 30 s and 10 s",
        Cut::Unplugged,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f25_two_nodes_that_do_not_reach_each_other_cost_nothing() {
    let cut = |node| Cut::Pair(node, others(node)[0]);
    partition(
        "F25-pair",
        "3 nodes: one link of three cut, 30 s and 10 s",
        cut,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f25_a_ring_of_half_cuts_costs_nothing() {
    partition(
        "F25-ring",
        "3 nodes: each link cut in one direction, 30 s and 10 s",
        |_| Cut::Ring,
    )
    .await;
}

/// Cuts for 30 s and for 10 s. One host and one producer begin on the leader's node, which is the
/// one that is cut off.
async fn partition(id: &str, fault: &str, cut: impl Fn(usize) -> Cut) {
    const OVER: Duration = Duration::from_secs(25);
    let mut row = Row::new(id, fault);
    let scene = Scene::new().await;
    // The first host declares the work queue, so its node leads it.
    let _hosts = [scene.host(2).await, scene.host(0).await];
    let loads = [scene.load("f25a", 2).await, scene.load("f25b", 1).await];
    let mut recovery = Duration::ZERO;
    for length in [secs(30), secs(10)] {
        let leader = scene.cluster.leader_of(&names::work("FL")).await;
        let cut = cut(leader);
        let from = now_ms();
        scene.cluster.cut(cut);
        tokio::time::sleep(length).await;
        let to = now_ms();
        let slots = [slot(2), slot(0)];
        let (a, b, all) = tokio::join!(
            scene.longest_gap(Some(&slots[0]), from, to),
            scene.longest_gap(Some(&slots[1]), from, to),
            scene.longest_gap(None, from, to),
        );
        let leader = leader + 1;
        row.note(format!(
            "{} s with c{leader}, the leader, cut off: longest time without an effect {:.1} s, on \
             the hosts {:.1} and {:.1} s",
            length.as_secs(),
            all.as_secs_f64(),
            a.as_secs_f64(),
            b.as_secs_f64(),
        ));
        if cut != Cut::Ring && length > OVER {
            let gap = a.max(b);
            row.check(
                gap <= OVER,
                format!(
                    "a host was out for {:.1} s of the cut, 25 allowed",
                    gap.as_secs_f64()
                ),
            );
        }
        scene.cluster.heal(cut);
        scene.whole().await;
        tokio::time::sleep(secs(3)).await;
        recovery = recovery.max(scene.longest_gap(None, to, now_ms()).await);
    }
    row.injected("2 cuts");
    scene.judge(&mut row, loads, 2, 2 * held(2)).await;
    row.recovery(recovery, OVER);
    row.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f26_without_a_majority_nothing_is_promised_and_nothing_is_lost() {
    let mut row = Row::new("F26", "3 nodes: two of them down for 30 s");
    let mut scene = Scene::new().await;
    let _hosts = [scene.host(0).await, scene.host(1).await];
    let loads = [scene.load("f26a", 0).await, scene.load("f26b", 2).await];
    let probe = RabbitMqConfig::new(scene.urls(0), "f26-probe".to_owned());
    let (probe, _inbox) = RabbitMq::connect(probe).unwrap();
    let first = job("f26-before", &["FL:*"], json!({}));
    publish_until_stored(&probe, &first).await;
    scene.also_tried.insert(first.id);

    scene.cluster.kill(1).await;
    scene.cluster.kill(2).await;
    let gone = Instant::now();
    // What had been confirmed already may still be counted.
    tokio::time::sleep(secs(3)).await;
    let n_before: Vec<usize> = loads.iter().map(|load| load.n_acknowledged()).collect();
    let mut n_refused = 0;
    while gone.elapsed() < secs(30) {
        let asked = Instant::now();
        let key = format!("f26-probe-{n_refused}");
        let message = job(&key, &["FL:*"], json!({}));
        scene.also_tried.insert(key);
        let answer = probe.publish(message).await;
        n_refused += usize::from(answer.is_err());
        row.check(
            answer.as_ref().is_err_and(|error| error.is_retryable()),
            format!("without a majority, a publish was answered with {answer:?}"),
        );
        row.check(
            asked.elapsed() < secs(12),
            format!("a publish was answered after {:?}", asked.elapsed()),
        );
    }
    let n_after: Vec<usize> = loads.iter().map(|load| load.n_acknowledged()).collect();
    row.check(
        n_before == n_after,
        format!("confirmed without a majority: {n_before:?} before, {n_after:?} after"),
    );
    scene.cluster.start_again().await;
    let from = now_ms();
    scene.whole().await;
    tokio::time::sleep(secs(3)).await;
    let recovery = scene.longest_gap(None, from, now_ms()).await;
    row.injected("1 time two nodes killed at once");
    row.note(format!(
        "{n_refused} probes were told that the broker is unavailable"
    ));
    scene.judge(&mut row, loads, 2, held(2)).await;
    row.recovery(recovery, secs(30));
    drop(probe);
    row.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f27_a_rolling_restart_of_the_nodes_is_hardly_noticed() {
    let mut row = Row::new("F27", "3 nodes: rolling restart under load");
    let mut scene = Scene::new().await;
    let _hosts = [scene.host(0).await, scene.host(1).await];
    let loads = [scene.load("f27a", 1).await, scene.load("f27b", 2).await];
    let from = now_ms();
    for node in 0..3 {
        scene.cluster.stop(node).await;
        scene.cluster.start_again().await;
        scene.whole().await;
        tokio::time::sleep(secs(3)).await;
    }
    let gap = scene.longest_gap(None, from, now_ms()).await;
    row.injected("3 restarts");
    let stall = scene.judge(&mut row, loads, 2, 3 * held(2)).await;
    row.recovery(gap, secs(15));
    row.note("recovery: the longest time without an effect");
    check_stall(&mut row, stall, secs(15));
    row.finish();
}

fn check_stall(row: &mut Row, stall: Duration, limit: Duration) {
    let (stall, limit) = (stall.as_secs_f64(), limit.as_secs_f64());
    row.check(
        stall <= limit,
        format!("publishers stalled for {stall:.1} s, {limit} allowed"),
    );
}
