//! Whatever goes wrong in the chain of workers, who asked is told what it was, in time.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use warren_tests::{Host, Setup, Site, eventually, http::Response};

use crate::{has, problem};

/// What an answer may take beyond its deadline on a busy machine.
const SLACK: Duration = Duration::from_secs(2);
/// For the tests that wait for a deadline.
const DEADLINE: Duration = Duration::from_secs(1);

on_both_buses! {
    a_missing_database_is_named_at_once
    a_missing_pilot_is_named_at_once
    a_database_that_traps_is_an_error_that_says_so
    a_database_that_rejects_is_an_error_with_its_reason
    a_guest_that_crashes_is_an_error_and_the_next_request_is_answered
    a_guest_that_does_not_end_is_stopped_at_its_deadline
    neighbours_of_guests_that_do_not_end_go_on_serving
    a_body_that_is_too_large_is_refused
}

async fn a_missing_database_is_named_at_once(site: &Site) {
    let setup = Setup::new(site).with_plugins(["rest", "pilot"]);
    let host = setup.start().await;
    let (response, took) = timed_get(&host, "/movies/").await;
    has(&problem(&response, 500), ["WB"]);
    assert!(took < SLACK, "{took:?}");
}

async fn a_missing_pilot_is_named_at_once(site: &Site) {
    let host = Setup::new(site).with_plugins(["rest", "db"]).start().await;
    let (response, took) = timed_get(&host, "/movies/").await;
    has(&problem(&response, 500), ["WD"]);
    assert!(took < SLACK, "{took:?}");
}

async fn a_database_that_traps_is_an_error_that_says_so(site: &Site) {
    let setup = Setup::new(site).with_plugins(["rest", "pilot", "db_faulty"]);
    let host = setup.start().await;
    let (response, took) = timed_get(&host, "/movies/").await;
    let detail = problem(&response, 500);
    has(&detail, ["WB", "trapped", "the disk is on fire"]);
    assert!(took < SLACK, "{took:?}");
}

async fn a_database_that_rejects_is_an_error_with_its_reason(site: &Site) {
    let setup = Setup::new(site).with_plugins(["rest", "pilot", "db_faulty"]);
    let host = setup.start().await;
    let start = Instant::now();
    let response = host.post("/movies/", r#"{"title":"Alien"}"#).await;
    has(&problem(&response, 500), ["WB", "the disk is full"]);
    assert!(start.elapsed() < SLACK, "{:?}", start.elapsed());
}

async fn a_guest_that_crashes_is_an_error_and_the_next_request_is_answered(site: &Site) {
    let host = Setup::new(site).with_plugins(["http_faulty"]).start().await;
    for (deed, told) in [
        ("panic", "the test asked for a panic"),
        ("exit", "exit"),
        ("error", "the test asked for an error"),
    ] {
        let response = host.get(&format!("/faulty/?do={deed}")).await;
        has(&problem(&response, 500), [told]);
        assert_eq!(host.get("/faulty/?do=echo").await.status, 200);
    }
}

async fn a_guest_that_does_not_end_is_stopped_at_its_deadline(site: &Site) {
    let setup = Setup::new(site).with_plugins(["http_faulty"]);
    let setup = setup.with_config("[limits]\ndeadline = \"1s\"\n");
    let host = setup.start().await;
    for deed in ["loop", "sleep"] {
        let (response, took) = timed_get(&host, &format!("/faulty/?do={deed}")).await;
        has(&problem(&response, 500), ["FH", "deadline of 1s"]);
        assert!(took >= DEADLINE, "{deed}: {took:?}");
        assert!(took < DEADLINE + SLACK, "{deed}: {took:?}");
    }
}

async fn neighbours_of_guests_that_do_not_end_go_on_serving(site: &Site) {
    // Far less than a host serves in that time, and far more than one that only waits.
    const AT_LEAST: usize = 10;
    let setup = Setup::new(site).with_movies().with_plugins(["http_faulty"]);
    let setup = setup.with_config("[workers.FH]\ndeadline = \"3s\"\n");
    let host = Arc::new(setup.start().await);
    // More that never wait than there are processors.
    let n_loops = std::thread::available_parallelism().unwrap().get() + 1;
    let stuck: Vec<_> = (0..n_loops)
        .map(|_| {
            let host = host.clone();
            tokio::spawn(async move { host.get("/faulty/?do=loop").await })
        })
        .collect();
    eventually("all of them run", async || {
        let worker = host.worker("FH").await?;
        (worker["in_flight"] == n_loops).then_some(())
    })
    .await;
    let mut n_served = 0;
    while stuck.iter().all(|request| !request.is_finished()) {
        let response = host.get("/movies/").await;
        assert_eq!(response.status, 200, "{}", response.text());
        n_served += 1;
    }
    assert!(n_served >= AT_LEAST, "{n_served} requests in 3 s");
    for request in stuck {
        has(&problem(&request.await.unwrap(), 500), ["deadline"]);
    }
}

async fn a_body_that_is_too_large_is_refused(site: &Site) {
    let host = Setup::new(site)
        .with_movies()
        .with_plugins(["http_faulty"])
        .with_config("[limits]\npayload = \"2MiB\"\n")
        .start()
        .await;
    // What REST reads is less than what the host lets in.
    for bytes in [1 << 20, 3 << 20] {
        let description = "x".repeat(bytes);
        let movie = format!(r#"{{"title":"Alien","description":"{description}"}}"#);
        problem(&host.post("/movies/", movie).await, 413);
    }
    assert_eq!(host.get("/movies/").await.json(), serde_json::json!([]));
}

async fn timed_get(host: &Host, path: &str) -> (Response, Duration) {
    let start = Instant::now();
    let response = host.get(path).await;
    (response, start.elapsed())
}
