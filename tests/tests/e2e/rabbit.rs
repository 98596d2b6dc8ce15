//! What only a RabbitMQ can do: workers on several hosts, hosts that die, a broker that goes away.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::json;
use warren_tests::{Broker, Host, Setup, Site, eventually};

use crate::{has, problem};

/// The configuration of the hosts that lose one another.
const IMPATIENT: &str = "call_timeout = \"2s\"\n";
const CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// What an answer may take beyond its deadline on a busy machine.
const SLACK: Duration = Duration::from_secs(2);

/// Named like the cases on both buses, so that they take turns with those.
mod rabbitmq {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn three_hosts_with_one_worker_each_do_the_job() {
        let site = Site::rabbitmq().await;
        let (rest, pilot, db) = tokio::join!(
            host_of(&site, "rest"),
            host_of(&site, "pilot"),
            host_of(&site, "db")
        );
        let alien = rest.post("/movies/", r#"{"title":"Alien"}"#).await.json();
        assert_eq!(
            alien,
            json!({"id": 1, "title": "Alien", "description": null})
        );
        assert_eq!(
            rest.get("/movies/?title=Alien").await.json(),
            json!([alien])
        );
        for host in [&rest, &pilot, &db] {
            let workers = host.admin_json("/workers").await;
            assert_eq!(workers.as_array().unwrap().len(), 1, "{workers}");
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_database_whose_host_is_killed_costs_no_request_its_answer() {
        let site = Site::rabbitmq().await;
        let (rest, pilot, db) = tokio::join!(
            host_of(&site, "rest"),
            host_of(&site, "pilot"),
            host_of(&site, "db")
        );
        let rest = Arc::new(rest);
        let stop = Arc::new(AtomicBool::new(false));
        let clients: Vec<_> = (0..4)
            .map(|_| tokio::spawn(ask_until(stop.clone(), rest.clone())))
            .collect();
        eventually("requests are answered", async || {
            let metrics = rest.admin("/metrics").await.text();
            let answered = r#"warren_http_requests_total{status="200",worker="WA"}"#;
            metrics.contains(answered).then_some(())
        })
        .await;
        db.kill().await;
        let response = rest.get("/movies/").await;
        has(&problem(&response, 500), ["no reply"]);

        let db = host_of(&site, "db").await;
        eventually("the database answers again", async || {
            (rest.get("/movies/").await.status == 200).then_some(())
        })
        .await;
        stop.store(true, Ordering::Relaxed);
        let mut n_failed = 0;
        for client in clients {
            n_failed += client.await.unwrap();
        }
        assert!(n_failed > 0);
        drop((db, pilot));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn every_encoding_carries_the_example() {
        for encoding in ["bson", "msgpack", "JSON"] {
            let site = Site::rabbitmq().await;
            let config = format!("encoding = \"{encoding}\"\n");
            let host = Setup::new(&site).with_movies().with_config(&config);
            let host = host.start().await;
            let movie = r#"{"title":"Amélie","description":"In \"Paris\" 🗼"}"#;
            let stored = host.post("/movies/", movie).await;
            assert_eq!(stored.status, 200, "{encoding}: {}", stored.text());
            let expected = json!({"id": 1, "title": "Amélie", "description": "In \"Paris\" 🗼"});
            assert_eq!(stored.json(), expected, "{encoding}");
            let found = host.get("/movies/?title=Am%C3%A9lie").await;
            assert_eq!(found.json(), json!([expected]), "{encoding}");
            assert_eq!(host.get("/movies/?title=x").await.json(), json!([]));
            host.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn own_broker_absent_at_start_is_waited_for() {
    let mut broker = Broker::start().await;
    let site = Site::of(&broker);
    broker.stop().await;
    let host = Setup::new(&site).with_movies().start_unready().await;
    let readyz = eventually("readiness says that the broker is absent", async || {
        let response = host.admin("/readyz").await;
        assert_eq!(response.status, 503);
        let reasons = response.text();
        (reasons.contains("out of reach") && reasons.contains("bus: ")).then_some(reasons)
    })
    .await;
    assert!(!readyz.contains("guest:guest"), "{readyz}");
    // Up, if of no use: who asks is told, and told in time.
    let asked = Instant::now();
    let status = host.get("/movies/").await.status;
    assert!([404, 500, 503].contains(&status.as_u16()), "{status}");
    assert!(asked.elapsed() < Duration::from_secs(10) + SLACK);

    broker.start_again().await;
    host.ready().await;
    assert_eq!(host.get("/movies/").await.json(), json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn own_broker_that_restarts_is_used_again() {
    let mut broker = Broker::start().await;
    let setup = Setup::new(&Site::of(&broker)).with_movies();
    let host = setup.with_config(IMPATIENT).start().await;
    let alien = host.post("/movies/", r#"{"title":"Alien"}"#).await.json();
    broker.stop().await;
    eventually("readiness says that the broker is gone", async || {
        (host.admin("/readyz").await.status == 503).then_some(())
    })
    .await;
    let asked = Instant::now();
    problem(&host.get("/movies/").await, 500);
    assert!(
        asked.elapsed() < CALL_TIMEOUT + SLACK,
        "{:?}",
        asked.elapsed()
    );

    broker.start_again().await;
    host.ready().await;
    assert_eq!(host.get("/movies/").await.json(), json!([alien]));
    assert_eq!(host.stop().await.code, Some(0));
}

async fn host_of(site: &Site, name: &str) -> Host {
    let setup = Setup::new(site).with_plugins([name]);
    setup.with_config(IMPATIENT).start().await
}

/// Asks without a pause. Each request must have an answer, and have it in time. Returns how many
/// answers were errors.
async fn ask_until(stop: Arc<AtomicBool>, host: Arc<Host>) -> usize {
    let mut client = host.client().await;
    let mut n_failed = 0;
    while !stop.load(Ordering::Relaxed) {
        let asked = Instant::now();
        let response = client.get("/movies/").await.unwrap();
        assert!(
            asked.elapsed() < CALL_TIMEOUT + SLACK,
            "{:?}",
            asked.elapsed()
        );
        if response.status != 200 {
            problem(&response, 500);
            n_failed += 1;
        }
    }
    n_failed
}
