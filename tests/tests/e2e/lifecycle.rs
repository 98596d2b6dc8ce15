//! A host starts, says whether it is ready, and ends cleanly.

use std::time::Duration;

use warren_tests::{Host, Setup, Site, eventually, host::plugin};

use crate::has;

/// The default of `shutdown_grace`.
const GRACE: Duration = Duration::from_secs(30);

on_both_buses! {
    sigterm_ends_a_host_cleanly
    sigint_ends_a_host_cleanly
    a_request_in_flight_is_answered_before_the_end
    what_does_not_end_is_interrupted_within_the_grace
    a_plugin_that_is_rejected_at_start_makes_the_host_unready_and_the_others_serve
}

async fn sigterm_ends_a_host_cleanly(site: &Site) {
    ends_cleanly(site, "TERM").await;
}

async fn sigint_ends_a_host_cleanly(site: &Site) {
    ends_cleanly(site, "INT").await;
}

async fn ends_cleanly(site: &Site, signal: &str) {
    let host = Setup::new(site).with_movies().start().await;
    assert_eq!(host.get("/movies/").await.status, 200);
    host.signal(signal);
    let end = host.end().await;
    assert_eq!(end.code, Some(0), "{}", end.log);
    // Nothing runs, so there is nothing to wait for.
    assert!(end.took < Duration::from_secs(5), "{:?}", end.took);
    has(
        &end.log,
        [r#""message":"shutting down""#, r#""message":"stopped""#],
    );
    assert!(!end.log.contains(r#""level":"ERROR""#), "{}", end.log);
}

async fn a_request_in_flight_is_answered_before_the_end(site: &Site) {
    let host = Setup::new(site).with_plugins(["http_faulty"]).start().await;
    let mut client = host.client().await;
    let waits = tokio::spawn(async move { client.get("/faulty/?do=wait&ms=1000").await });
    in_flight(&host).await;
    let end = host.stop().await;
    assert_eq!(waits.await.unwrap().unwrap().text(), "waited");
    assert_eq!(end.code, Some(0), "{}", end.log);
    assert!(end.took < GRACE, "{:?}", end.took);
}

async fn what_does_not_end_is_interrupted_within_the_grace(site: &Site) {
    let host = Setup::new(site)
        .with_plugins(["http_faulty"])
        .with_config("shutdown_grace = \"4s\"\n")
        .start()
        .await;
    let mut client = host.client().await;
    let sleeps = tokio::spawn(async move { client.get("/faulty/?do=sleep").await });
    in_flight(&host).await;
    let end = host.stop().await;
    assert_eq!(end.code, Some(0), "{}", end.log);
    // The grace, and what a busy machine needs to see the end.
    assert!(end.took < Duration::from_secs(6), "{:?}", end.took);
    // An error or a closed connection: what counts is that nobody waits for ever.
    let _ = sleeps.await.unwrap();
}

async fn a_plugin_that_is_rejected_at_start_makes_the_host_unready_and_the_others_serve(
    site: &Site,
) {
    let setup = Setup::new(site).with_movies();
    let host = setup.with_plugins(["traps_in_describe"]).start_unready();
    let host = host.await;
    for worker_type in ["WA", "WB", "WD"] {
        eventually("the others arrive", async || host.worker(worker_type).await).await;
    }
    let readyz = eventually("readiness names the plugin alone", async || {
        let readyz = host.admin_json("/readyz").await;
        (readyz["reasons"].as_array()?.len() == 1).then_some(readyz)
    })
    .await;
    assert_eq!(host.admin("/readyz").await.status, 503);
    assert_eq!(readyz["ready"], false);
    let reason = readyz["reasons"][0].as_str().unwrap();
    has(reason, ["traps_in_describe.wasm", "describe"]);
    assert_eq!(host.admin("/healthz").await.status, 200);
    assert_eq!(host.get("/movies/").await.status, 200);
    // Once it is gone, or mended, so is the reason.
    host.drop_in("traps_in_describe.wasm", plugin("faulty"));
    host.ready().await;
}

/// Returns when the host's only HTTP worker runs a request.
async fn in_flight(host: &Host) {
    eventually("a request is in flight", async || {
        let worker = host.worker("FH").await?;
        (worker["in_flight"] == 1).then_some(())
    })
    .await;
}
