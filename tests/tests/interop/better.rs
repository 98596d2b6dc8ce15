//! What users of MicroServices.js live with today (PROTOCOL "What its users live with today", and
//! "Defects by cause"), once more with Warren on the bus: one test for each entry that is not shown
//! elsewhere (`trios`, `mixed_pools`, `gateway`, `claims`).

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use serde_json::json;
use warren_protocol::Encoding;
use warren_tests::{Broker, Host, NodePeer, Setup, Site, eventually, eventually_within};

use crate::bench::{Bench, ask, figure, is_gateway, knows, requests_run};

/// What a client waits at most when nobody is there to answer: two repeats of a Node worker and the
/// time that a host has to come back, with room for a busy machine. Today it waits for ever.
const ANSWERED_WITHIN: Duration = Duration::from_secs(15);

async fn n_run(host: &Host, worker_type: &str) -> f64 {
    let name = format!("warren_jobs_finished_total{{outcome=\"ok\",worker=\"{worker_type}\"}}");
    figure(host, &name).await
}

/// The status of one GET, within a bound.
async fn status(rest: &NodePeer) -> u16 {
    let asked = tokio::time::timeout(ANSWERED_WITHIN, rest.get("/movies/"));
    asked.await.unwrap().status.as_u16()
}

#[tokio::test]
async fn three_databases_share_sequential_requests_evenly() {
    const N: usize = 30;
    let bench = Bench::new(Encoding::Json).await;
    let hosts = [
        bench.host(["db"]).await,
        bench.setup().with_plugins(["db"]).start().await,
        bench.setup().with_plugins(["db"]).start().await,
    ];
    let (mut pilot, mut rest) = (
        bench.peer("pilot --no-delay").await,
        bench.peer("rest --no-delay").await,
    );
    knows(&hosts[0], pilot.id()).await;
    knows(&hosts[0], rest.id()).await;
    assert!(ask(rest.port(), N, 1).await.all_good(N));
    for host in &hosts {
        eventually("it has run a third of them", async || {
            (n_run(host, "WB").await == 10.0).then_some(())
        })
        .await;
    }
    assert!(pilot.is_well() && rest.is_well());
    for host in hosts {
        host.stop().await;
    }
}

#[tokio::test]
async fn a_node_database_stays_well_when_others_of_its_type_come_and_go_in_bson() {
    let bench = Bench::new(Encoding::Bson).await;
    let host = bench.host(["pilot"]).await;
    let (mut db, mut rest) = (bench.peer("db").await, bench.peer("rest").await);
    knows(&host, db.id()).await;
    knows(&host, rest.id()).await;
    for _ in 0..3 {
        let other = bench.setup().with_plugins(["db"]).start().await;
        assert_eq!(rest.get("/movies/").await.status, 200);
        other.stop().await;
    }
    assert_eq!(rest.get("/movies/").await.status, 200);
    assert!(db.is_well() && rest.is_well());
    host.stop().await;
}

#[tokio::test]
async fn the_only_database_is_killed_and_the_client_gets_an_answer() {
    // A Node database behind a Wasm Pilot, and behind a Node Pilot; a host with the database.
    for (has_wasm_pilot, has_wasm_db) in [(true, false), (false, false), (false, true)] {
        let bench = Bench::new(Encoding::Json).await;
        let host = bench.setup().with_config("keepalive = \"1s\"");
        let host = if has_wasm_pilot {
            host.with_plugins(["pilot"])
        } else {
            host
        };
        let host = host.start().await;
        is_gateway(&host).await;
        let mut peers = vec![bench.peer("rest").await];
        if !has_wasm_pilot {
            peers.push(bench.peer("pilot").await);
        }
        for peer in &peers {
            knows(&host, peer.id()).await;
        }
        if has_wasm_db {
            let db = bench.setup().with_plugins(["db"]).start().await;
            assert_eq!(status(&peers[0]).await, 200);
            db.kill().await;
        } else {
            let db = bench.peer("db").await;
            knows(&host, db.id()).await;
            assert_eq!(status(&peers[0]).await, 200);
            db.kill().await;
        }
        eventually("requests are refused, not left hanging", async || {
            // What was stored in the moments before anybody could know waits for a database.
            let asked = tokio::time::timeout(ANSWERED_WITHIN, peers[0].get("/movies/"));
            let answered = asked.await.ok()?;
            (answered.status == 500).then_some(())
        })
        .await;
        assert_eq!(status(&peers[0]).await, 500);
        for peer in &mut peers {
            assert!(peer.is_well());
        }
        // And a new one is used at once.
        let db = bench.peer("db").await;
        knows(&host, db.id()).await;
        assert_eq!(status(&peers[0]).await, 200);
        host.stop().await;
    }
}

#[tokio::test]
async fn a_wasm_rest_worker_answers_within_its_deadline_when_the_node_database_is_killed() {
    let bench = Bench::new(Encoding::Json).await;
    let setup = bench.setup().with_plugins(["rest"]);
    let host = setup.with_config("call_timeout = \"8s\"").start().await;
    is_gateway(&host).await;
    let (pilot, db) = (bench.peer("pilot").await, bench.peer("db").await);
    knows(&host, pilot.id()).await;
    knows(&host, db.id()).await;
    assert_eq!(host.get("/movies/").await.status, 200);
    db.kill().await;
    let begun = Instant::now();
    assert_eq!(host.get("/movies/").await.status, 500);
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
    host.stop().await;
}

#[tokio::test]
async fn when_one_of_two_databases_goes_the_other_one_serves() {
    for is_killed in [true, false] {
        let bench = Bench::new(Encoding::Json).await;
        let host = bench.host([]).await;
        let (one, two) = (bench.peer("db").await, bench.peer("db").await);
        let (pilot, mut rest) = (bench.peer("pilot").await, bench.peer("rest").await);
        for peer in [&one, &two, &pilot, &rest] {
            knows(&host, peer.id()).await;
        }
        assert_eq!(status(&rest).await, 200);
        // The one that believes that it is its turn: the one that has run the job.
        let (active, mut other) = if one.count("taken") > 0 {
            (one, two)
        } else {
            (two, one)
        };
        if is_killed {
            active.kill().await;
        } else {
            active.leave().await;
        }
        for _ in 0..3 {
            assert_eq!(status(&rest).await, 200);
        }
        assert!(other.is_well() && rest.is_well());
        assert_eq!(other.count("taken"), 3);
        host.stop().await;
    }
}

#[tokio::test]
async fn a_database_that_leaves_cleanly_is_missed_at_once() {
    let bench = Bench::new(Encoding::Json).await;
    let host = bench.host(["pilot"]).await;
    let (db, mut rest) = (bench.peer("db").await, bench.peer("rest").await);
    let id = db.id().to_owned();
    knows(&host, &id).await;
    knows(&host, rest.id()).await;
    db.leave().await;
    eventually("it is gone", async || {
        (!host.admin_json("/peers").await.to_string().contains(&id)).then_some(())
    })
    .await;
    eventually("requests are refused", async || {
        (status(&rest).await == 500).then_some(())
    })
    .await;
    assert!(rest.is_well());
    host.stop().await;
}

#[tokio::test]
async fn without_any_pilot_a_request_fails_in_a_moment() {
    let bench = Bench::new(Encoding::Json).await;
    let host = bench.host([]).await;
    let mut rest = bench.peer("rest").await;
    knows(&host, rest.id()).await;
    for _ in 0..5 {
        let begun = Instant::now();
        assert_eq!(status(&rest).await, 500);
        let posted = rest.post("/movies/", r#"{"title":"Alien"}"#).await;
        assert_eq!(posted.status, 500);
        // Ten seconds each, today.
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "{:?}",
            begun.elapsed()
        );
    }
    assert!(rest.is_well());
    host.stop().await;
}

#[tokio::test]
async fn two_pilots_and_sixteen_clients_at_once_run_nothing_twice() {
    const N: usize = 300;
    let bench = Bench::new(Encoding::Json).await;
    let hosts = [
        bench.host(["pilot"]).await,
        bench.setup().with_plugins(["pilot"]).start().await,
    ];
    let (mut db, mut rest) = (
        bench.peer("db --no-delay").await,
        bench.peer("rest --no-delay").await,
    );
    knows(&hosts[0], db.id()).await;
    knows(&hosts[0], rest.id()).await;
    let answers = ask(rest.port(), N, 16).await;
    assert!(answers.all_good(N), "{answers:?}");
    eventually("each request is counted once", async || {
        let run: f64 = n_run(&hosts[0], "WD").await + n_run(&hosts[1], "WD").await;
        (run == N as f64).then_some(())
    })
    .await;
    assert_eq!(requests_run(&db).len(), N);
    assert!(db.is_well() && rest.is_well());
    for host in hosts {
        host.stop().await;
    }
}

#[tokio::test]
async fn no_two_jobs_have_one_id() {
    const N: usize = 200;
    let bench = Bench::new(Encoding::Json).await;
    let host = bench.host(["rest", "pilot"]).await;
    let db = bench.peer("db --no-delay").await;
    knows(&host, db.id()).await;
    let answers = ask(host.http.port(), N, 32).await;
    assert!(answers.all_good(N), "{answers:?}");
    let events = db.events();
    let ids: BTreeSet<String> = events
        .iter()
        .filter(|event| event["event"] == "taken")
        .map(|event| event["id"].to_string())
        .collect();
    assert_eq!(ids.len(), N);
    host.stop().await;
}

/// A Node REST worker whose acknowledgements take longer than 2 s dies of itself (its jobs share ids, so
/// a repeated one is repeated to the end); a Wasm one in its place does not, however many there are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifteen_hundred_clients_at_once_are_answered_and_not_one_job_is_run_twice() {
    const N: usize = 4500;
    let bench = Bench::new(Encoding::Json).await;
    let setup = bench.setup().with_plugins(["rest", "db"]);
    let host = setup.with_config("call_timeout = \"60s\"").start().await;
    is_gateway(&host).await;
    let mut pilot = bench.peer("pilot --no-delay").await;
    knows(&host, pilot.id()).await;
    let answers = ask(host.http.port(), N, 1500).await;
    assert!(answers.all_good(N), "{answers:?}");
    let requests = requests_run(&pilot);
    let different: BTreeSet<_> = requests.iter().collect();
    assert_eq!((requests.len(), different.len()), (N, N));
    eventually("each job is counted", async || {
        (n_run(&host, "WB").await >= N as f64).then_some(())
    })
    .await;
    assert_eq!(n_run(&host, "WB").await, N as f64);
    assert!(pilot.is_well());
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_rest_worker_with_three_hundred_clients_gets_each_answer_once() {
    const N: usize = 1500;
    let bench = Bench::new(Encoding::Json).await;
    let host = bench.host(["pilot", "db"]).await;
    let mut rest = bench.peer("rest --no-delay").await;
    knows(&host, rest.id()).await;
    let answers = ask(rest.port(), N, 300).await;
    assert!(answers.all_good(N), "{answers:?}");
    eventually("each answer is written", async || {
        (rest.count("response") >= N).then_some(())
    })
    .await;
    assert_eq!(rest.count("response"), N);
    assert!(rest.is_well());
    host.stop().await;
}

#[tokio::test]
async fn processes_that_start_together_all_stay() {
    for _ in 0..4 {
        let bench = Bench::new(Encoding::Json).await;
        let host = async || bench.setup().with_plugins(["pilot", "db"]).start().await;
        let (one, two, mut rest, mut pilot, mut db) = tokio::join!(
            host(),
            host(),
            bench.peer("rest"),
            bench.peer("pilot"),
            bench.peer("db"),
        );
        eventually("a request is answered", async || {
            (status(&rest).await == 200).then_some(())
        })
        .await;
        for peer in [&mut rest, &mut pilot, &mut db] {
            assert!(peer.is_well());
        }
        one.stop().await;
        two.stop().await;
    }
}

#[tokio::test]
async fn a_request_before_the_broker_is_there_is_answered_own_broker() {
    let mut broker = Broker::start().await;
    broker.stop().await;
    let site = Site::of(&broker);
    let setup = Setup::new(&site).with_config("call_timeout = \"2s\"");
    let host = setup.with_movies().start_unready().await;
    eventually("it serves", async || {
        (host.get("/movies/").await.status == 500).then_some(())
    })
    .await;
    broker.start_again().await;
    host.ready().await;
    assert_eq!(host.get("/movies/").await.status, 200);
    host.stop().await;
}

/// Node workers do not come back after a restart of their broker; those that are started anew find
/// the host, which has.
#[tokio::test]
async fn after_a_restart_of_the_broker_everything_goes_on_own_broker() {
    let mut broker = Broker::start().await;
    let site = Site::of(&broker);
    let host = Setup::new(&site)
        .with_plugins(["rest", "pilot"])
        .start()
        .await;
    is_gateway(&host).await;
    let start = async || {
        let db = NodePeer::start(&broker_url(&site), Encoding::Json, "db").await;
        knows(&host, db.id()).await;
        db
    };
    let db = start().await;
    assert_eq!(host.get("/movies/").await.status, 200);
    broker.kill().await;
    broker.start_again().await;
    drop(db);
    host.ready().await;
    is_gateway(&host).await;
    let _db = start().await;
    eventually_within(
        Duration::from_secs(60),
        "requests are answered",
        async || (host.get("/movies/").await.status == 200).then_some(()),
    )
    .await;
    assert_eq!(host.get("/movies/").await.text(), json!([]).to_string());
    host.stop().await;
}

fn broker_url(site: &Site) -> String {
    site.url().unwrap().to_owned()
}
