//! Node workers and Wasm workers of one type: each job once, evenly shared, and never lost.

use std::{collections::BTreeSet, time::Duration};

use tokio::time::sleep;
use warren_protocol::Encoding;
use warren_tests::{Host, NodePeer, eventually, host::plugin};

use crate::bench::{Bench, ask, figure, knows, requests_run};

const N_REQUESTS: usize = 300;

#[tokio::test]
async fn a_pool_of_pilots_runs_each_job_once_and_shares_them_evenly_in_json() {
    a_pool_of_pilots(Encoding::Json).await;
}

#[tokio::test]
async fn a_pool_of_pilots_runs_each_job_once_and_shares_them_evenly_in_messagepack() {
    a_pool_of_pilots(Encoding::MessagePack).await;
}

async fn a_pool_of_pilots(encoding: Encoding) {
    let bench = Bench::new(encoding).await;
    let host = bench.host(["pilot", "db"]).await;
    let mut pilots = [
        bench.peer("pilot --no-delay").await,
        bench.peer("pilot --no-delay").await,
    ];
    let mut rest = bench.peer("rest --no-delay").await;
    for peer in pilots.iter().chain([&rest]) {
        knows(&host, peer.id()).await;
    }
    pinned(&mut pilots).await;
    let before = n_run(&host, "WD").await;
    let answers = ask(rest.port(), N_REQUESTS, 16).await;
    assert!(answers.all_good(N_REQUESTS), "{answers:?}");
    assert!(rest.is_well());
    let of_host = eventually("every request is counted", async || {
        let of_nodes = requests_run(&pilots[0]).len() + requests_run(&pilots[1]).len();
        let of_host = n_run(&host, "WD").await - before;
        (of_nodes as f64 + of_host >= N_REQUESTS as f64).then_some(of_host)
    })
    .await;
    let (one, two) = (requests_run(&pilots[0]), requests_run(&pilots[1]));
    let of_nodes: BTreeSet<_> = one.iter().chain(&two).collect();
    assert_eq!(
        of_nodes.len(),
        one.len() + two.len(),
        "no request was run twice"
    );
    assert_eq!(of_nodes.len() as f64 + of_host, N_REQUESTS as f64);
    for share in [one.len() as f64, two.len() as f64, of_host] {
        let expected = N_REQUESTS as f64 / 3.0;
        assert!(
            (share - expected).abs() < expected / 4.0,
            "{} {} {of_host}",
            one.len(),
            two.len()
        );
    }
    for mut pilot in pilots {
        assert!(pilot.is_well());
    }
    host.stop().await;
}

/// Waits until no Node worker of a pool believes that it is its turn.
async fn pinned(peers: &mut [NodePeer]) {
    for peer in peers {
        eventually("the pool is pinned", async || {
            let list = peer.list().await;
            let is_pinned = list["isMyTurn"] == false && list["workers"].as_array()?.len() == 2;
            is_pinned.then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn workers_that_leave_or_die_under_load_cost_no_request_its_answer() {
    const N: usize = 1200;
    let bench = Bench::new(Encoding::Json).await;
    let host = bench.host(["pilot", "db"]).await;
    let mut pilots = Vec::new();
    for _ in 0..3 {
        pilots.push(bench.peer("pilot --no-delay").await);
    }
    let mut rest = bench.peer("rest --no-delay").await;
    for peer in pilots.iter().chain([&rest]) {
        knows(&host, peer.id()).await;
    }
    pinned(&mut pilots).await;
    let port = rest.port();
    let asking = tokio::spawn(async move { ask(port, N, 16).await });
    let (mut stays, leaves, dies) = {
        let mut pilots = pilots.into_iter();
        (
            pilots.next().unwrap(),
            pilots.next().unwrap(),
            pilots.next().unwrap(),
        )
    };
    for peer in [&leaves, &dies] {
        eventually("it has some load", async || {
            (requests_run(peer).len() > 20).then_some(())
        })
        .await;
    }
    leaves.leave().await;
    dies.kill().await;
    let answers = asking.await.unwrap();
    assert!(answers.all_good(N), "{answers:?}");
    assert!(rest.is_well() && stays.is_well());
    host.stop().await;
}

#[tokio::test]
async fn a_node_worker_that_joins_under_load_costs_no_request_its_answer() {
    const N: usize = 1200;
    let bench = Bench::new(Encoding::Json).await;
    let host = bench.host(["pilot", "db"]).await;
    let mut pilots = [bench.peer("pilot --no-delay").await];
    let mut rest = bench.peer("rest --no-delay").await;
    for peer in [&pilots[0], &rest] {
        knows(&host, peer.id()).await;
    }
    pinned(&mut pilots).await;
    let port = rest.port();
    let asking = tokio::spawn(async move { ask(port, N, 8).await });
    eventually("there is some load", async || {
        (requests_run(&pilots[0]).len() > 20).then_some(())
    })
    .await;
    // One that meets a job before it is connected may lose its connection: its own defect.
    let newcomer = bench.peer("pilot --no-delay").await;
    let answers = asking.await.unwrap();
    assert!(answers.all_good(N), "{answers:?}");
    assert!(rest.is_well() && pilots[0].is_well());
    drop(newcomer);
    host.stop().await;
}

#[tokio::test]
async fn a_planned_stop_gives_the_pool_back_to_its_node_workers() {
    const N: usize = 400;
    for encoding in [Encoding::Json, Encoding::MessagePack] {
        let bench = Bench::new(encoding).await;
        let host = bench.host(["pilot"]).await;
        let mut pilots = [
            bench.peer("pilot --no-delay").await,
            bench.peer("pilot --no-delay").await,
        ];
        let (db, mut rest) = (
            bench.peer("db --no-delay").await,
            bench.peer("rest --no-delay").await,
        );
        for peer in pilots.iter().chain([&db, &rest]) {
            knows(&host, peer.id()).await;
        }
        pinned(&mut pilots).await;
        let port = rest.port();
        let asking = tokio::spawn(async move { ask(port, N, 4).await });
        eventually("there is some load", async || {
            (requests_run(&pilots[0]).len() > 10).then_some(())
        })
        .await;
        assert_eq!(host.stop().await.code, Some(0));
        let answers = asking.await.unwrap();
        assert!(answers.all_good(N), "{answers:?}");
        assert!(rest.is_well());
        for pilot in &mut pilots {
            assert!(pilot.is_well());
        }
        // No gateway any more: they serve as they did before.
        assert!(ask(rest.port(), 20, 4).await.all_good(20));
        assert!(rest.is_well());
    }
}

#[tokio::test]
async fn in_bson_a_pool_with_a_node_worker_is_left_to_it() {
    const N: usize = 60;
    let bench = Bench::new(Encoding::Bson).await;
    let host = bench.host(["pilot", "db"]).await;
    let mut pilot = bench.peer("pilot --no-delay").await;
    let mut rest = bench.peer("rest --no-delay").await;
    for peer in [&pilot, &rest] {
        knows(&host, peer.id()).await;
    }
    assert!(ask(rest.port(), N, 8).await.all_good(N));
    assert_eq!(requests_run(&pilot).len(), N);
    assert!(rest.is_well() && pilot.is_well());
    let id = pilot.id().to_owned();
    pilot.leave().await;
    eventually("it is gone", async || {
        (!host.admin_json("/peers").await.to_string().contains(&id)).then_some(())
    })
    .await;
    assert!(ask(rest.port(), N, 8).await.all_good(N));
    assert!(rest.is_well());
    host.stop().await;
}

#[tokio::test]
async fn in_bson_a_job_that_a_slow_node_worker_takes_is_not_run_by_a_plugin_that_joins() {
    let bench = Bench::new(Encoding::Bson).await;
    let host = bench.host(["db"]).await;
    let mut pilot = bench.peer("pilot --no-delay").await;
    let mut rest = bench.peer("rest --no-delay").await;
    for peer in [&pilot, &rest] {
        knows(&host, peer.id()).await;
    }
    pilot.signal("STOP");
    host.drop_in("pilot.wasm", plugin("pilot"));
    eventually("the plugin serves", async || host.worker("WD").await).await;
    let port = rest.port();
    let asking = tokio::spawn(async move { ask(port, 3, 3).await });
    // Longer than a Node worker that is well needs to take a job.
    sleep(Duration::from_millis(500)).await;
    pilot.signal("CONT");
    let answers = asking.await.unwrap();
    assert!(answers.all_good(3), "{answers:?}");
    assert_eq!(requests_run(&pilot).len(), 3);
    assert_eq!(n_run(&host, "WD").await, 0.0);
    assert!(rest.is_well() && pilot.is_well());
    host.stop().await;
}

#[tokio::test]
async fn what_a_node_worker_does_not_take_is_run_by_the_plugin_of_its_type() {
    const N: usize = 8;
    let bench = Bench::new(Encoding::Json).await;
    let host = bench.host(["pilot", "db"]).await;
    let mut pilots = [bench.peer("pilot --no-delay").await];
    let mut rest = bench.peer("rest --no-delay").await;
    for peer in [&pilots[0], &rest] {
        knows(&host, peer.id()).await;
    }
    pinned(&mut pilots).await;
    let [mut pilot] = pilots;
    pilot.hold().await;
    pilot.signal("STOP");
    let answers = ask(rest.port(), N, N).await;
    assert!(answers.all_good(N), "{answers:?}");
    eventually("the plugin has run all of them", async || {
        (n_run(&host, "WD").await >= N as f64).then_some(())
    })
    .await;
    // Some of them were handed to the one that stands still: it is waited for before they go on.
    assert!(answers.longest > Duration::from_millis(700), "{answers:?}");
    assert!(rest.is_well());
    pilot.signal("CONT");
    host.stop().await;
}

async fn n_run(host: &Host, worker_type: &str) -> f64 {
    let name = format!("warren_jobs_finished_total{{outcome=\"ok\",worker=\"{worker_type}\"}}");
    figure(host, &name).await
}
