//! A host that ends, or is killed, with jobs in its hands. On RabbitMQ: the jobs of an embedded bus
//! end with their host.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use warren_tests::{Broker, Host, Peer, Setup, Site, Taken, eventually};

use super::{ONE_BY_ONE, faulty_host, n_finished, running};
use crate::has;

const N_JOBS: u64 = 6;

/// Named like the cases on both buses, so that they take turns with those.
mod rabbitmq {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_host_that_stops_finishes_what_runs_and_gives_back_what_waits() {
        let site = Site::rabbitmq().await;
        let first = host_of_fx(&site).await;
        let mut peer = Peer::join(&site).await;
        publish_check_ins(&peer).await;
        let runs = peer.next_job().await;
        assert_eq!(runs.data["worker_id"], id(&first).await);
        held(&site).await;
        let second = host_of_fx(&site).await;
        let second_id = id(&second).await;

        first.signal("TERM");
        // What waited runs elsewhere, while what ran is still running.
        let mut seen = BTreeMap::from([(number(&runs), 1)]);
        for _ in 1..N_JOBS {
            let run = peer.next_job().await;
            assert_eq!(run.data["worker_id"], second_id);
            assert_eq!(run.data["attempt"], 1);
            *seen.entry(number(&run)).or_insert(0) += 1;
            peer.answer(&run, &json!("go on")).await;
        }
        peer.answer(&runs, &json!("go on")).await;
        let end = first.end().await;
        assert_eq!(end.code, Some(0), "{}", end.log);
        has(&end.log, [r#""message":"stopped""#]);
        let once: BTreeMap<_, _> = (0..N_JOBS).map(|n| (n, 1)).collect();
        assert_eq!(seen, once);
        nothing_is_left(&site, &second, N_JOBS - 1).await;
        peer.leave().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_jobs_of_a_host_that_is_killed_are_run_by_another() {
        let site = Site::rabbitmq().await;
        let first = host_of_fx(&site).await;
        let mut peer = Peer::join(&site).await;
        publish_check_ins(&peer).await;
        let cut_short = peer.next_job().await;
        assert_eq!(cut_short.data["worker_id"], id(&first).await);
        held(&site).await;
        let second = host_of_fx(&site).await;
        let second_id = id(&second).await;

        first.kill().await;
        let mut seen = BTreeMap::new();
        for _ in 0..N_JOBS {
            let run = peer.next_job().await;
            assert_eq!(run.data["worker_id"], second_id);
            assert_eq!(run.data["attempt"], 1);
            *seen.entry(number(&run)).or_insert(0) += 1;
            peer.answer(&run, &json!("go on")).await;
        }
        let once: BTreeMap<_, _> = (0..N_JOBS).map(|n| (n, 1)).collect();
        assert_eq!(seen, once);
        nothing_is_left(&site, &second, N_JOBS).await;
        peer.leave().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_job_by_id_that_waits_when_its_host_stops_is_not_lost() {
        let site = Site::rabbitmq().await;
        let host = faulty_host(&site, ONE_BY_ONE).await;
        let mut peer = Peer::join(&site).await;
        peer.publish(&check_in(&peer, 0)).await;
        let runs = peer.next_job().await;
        running(&host, 1).await;

        let id = id(&host).await;
        let waits = peer.job([id.as_str().unwrap()], &json!({"do": "done"}));
        let asks = peer.call([id.as_str().unwrap()], &json!({"do": "echo"}));
        peer.publish(&waits).await;
        peer.publish(&asks).await;
        reach_inbox(&host, &mut peer).await;
        host.signal("TERM");
        let told = peer.answer_to(&asks.id).await;
        has(&told.unwrap_err(), ["no worker is alive", "FX:"]);
        let dead = site.dead_letter("FX").await.unwrap();
        assert_eq!((dead.reason.as_str(), dead.id), ("unrouted", waits.id));

        peer.answer(&runs, &json!("go on")).await;
        let end = host.end().await;
        assert_eq!(end.code, Some(0), "{}", end.log);
        assert_eq!(site.n_queued("dlq", "FX").await, Some(0));
        assert_eq!(site.n_queued("q", "FX").await, Some(0));
        peer.leave().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_job_that_waits_for_its_next_attempt_when_its_host_stops_is_run_by_another() {
        let site = Site::rabbitmq().await;
        let setup = Setup::new(&site).with_plugins(["faulty"]);
        let first = setup.start().await;
        let mut peer = Peer::join(&site).await;
        let order = json!({"do": "retry", "reason": "not here", "n": 2, "ms": 3000});
        let job = peer.job(["FX:*", "FT:*"], &order);
        peer.publish(&job).await;
        first.logged("job failed and will run again", []).await;
        let end = first.stop().await;
        assert_eq!(end.code, Some(0), "{}", end.log);
        // It waits on the broker, which needs no host for that.
        let _second = Setup::new(&site).with_plugins(["faulty"]).start().await;
        assert_eq!(peer.next_job().await.data, json!({"attempt": 2}));
        peer.leave().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_by_id_that_waits_when_own_broker_restarts_is_run_and_not_given_up() {
    let mut broker = Broker::start().await;
    let site = Site::of(&broker);
    let host = faulty_host(&site, ONE_BY_ONE).await;
    let mut peer = Peer::join(&site).await;
    peer.publish(&peer.job(["FX:*"], &json!({"do": "wait", "ms": 5000})))
        .await;
    running(&host, 1).await;
    let id = id(&host).await;
    let order = json!({"do": "send", "to": "FT:*"});
    let waits = peer.job([id.as_str().unwrap()], &order);
    peer.publish(&waits).await;
    reach_inbox(&host, &mut peer).await;

    broker.stop().await;
    broker.start_again().await;
    host.ready().await;
    assert_eq!(peer.next_job().await.data["do"], "done");
    assert_eq!(site.n_queued("dlq", "FX").await, Some(0));
    peer.leave().await;
}

async fn host_of_fx(site: &Site) -> Host {
    let setup = Setup::new(site).with_plugins(["faulty"]);
    setup.with_config(ONE_BY_ONE).start().await
}

async fn id(host: &Host) -> Value {
    host.worker("FX").await.unwrap()["id"].clone()
}

/// A job that tells the peer that it runs, and goes on when the peer answers.
fn check_in(peer: &Peer, number: u64) -> warren_bus::Message {
    let order = json!({"do": "check-in", "to": "FT:*", "data": number, "ms": 25_000});
    peer.job(["FX:*"], &order)
}

async fn publish_check_ins(peer: &Peer) {
    for number in 0..N_JOBS {
        peer.publish(&check_in(peer, number)).await;
    }
}

fn number(run: &Taken) -> u64 {
    run.data["data"].as_u64().unwrap()
}

/// Returns when hosts hold all jobs of FX.
async fn held(site: &Site) {
    eventually("a host holds every job", async || {
        (site.n_queued("q", "FX").await == Some(0)).then_some(())
    })
    .await;
}

/// Returns when what was sent to a worker's id before has reached the host: a reply behind it has.
async fn reach_inbox(host: &Host, peer: &mut Peer) {
    let asked = host.get("/faulty/?do=call&to=FT:*");
    let answered = async {
        let call = peer.next_job().await;
        peer.answer(&call, &json!("here")).await;
    };
    let (response, ()) = tokio::join!(asked, answered);
    assert_eq!(response.json(), json!("here"), "{}", response.text());
}

/// Nothing waits, nothing was given up, and a host has done what was to be done.
async fn nothing_is_left(site: &Site, host: &Host, n_jobs: u64) {
    super::finished(host, "ok", n_jobs).await;
    for outcome in ["retry", "dead", "failed", "interrupted"] {
        assert_eq!(n_finished(host, outcome).await, 0, "{outcome}");
    }
    for kind in ["q", "dlq"] {
        assert_eq!(site.n_queued(kind, "FX").await, Some(0), "{kind}");
    }
}
