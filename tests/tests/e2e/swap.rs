//! A plugin is replaced under load, and nobody who asks notices.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use serde_json::json;
use warren_tests::{Host, Setup, Site, eventually, host::plugin};

const N_CLIENTS: usize = 8;
const N_SWAPS: usize = 10;
const N_REQUESTS: usize = 500;

on_both_buses! {
    ten_swaps_under_load_fail_no_request
}

async fn ten_swaps_under_load_fail_no_request(site: &Site) {
    let host = Arc::new(Setup::new(site).with_movies().start().await);
    let id = host.worker("WD").await.unwrap()["id"].clone();
    let stop = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..N_CLIENTS)
        .map(|n| {
            let (host, stop, answered) = (host.clone(), stop.clone(), answered.clone());
            tokio::spawn(async move { ask_until(&stop, &host, &answered, n % 2 == 0).await })
        })
        .collect();

    for name in ["pilot_next", "pilot"].into_iter().cycle().take(N_SWAPS) {
        let version = if name == "pilot" { "1.0.0" } else { "2.0.0" };
        host.drop_in("pilot.wasm", plugin(name));
        eventually("the new version serves", async || {
            let worker = host.worker("WD").await?;
            (worker["version"] == version).then_some(())
        })
        .await;
        // What begins now is run by no version before it.
        let answer = host.get("/movies/").await.json();
        assert_eq!(
            answer != json!([]),
            name == "pilot_next",
            "{name}: {answer}"
        );
    }
    eventually("there was load", async || {
        (answered.load(Ordering::Relaxed) >= N_REQUESTS).then_some(())
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    let mut by_version = [0, 0];
    for client in clients {
        let [old, new] = client.await.unwrap();
        by_version[0] += old;
        by_version[1] += new;
    }
    // Both have been under load.
    assert!(by_version[0] > 0 && by_version[1] > 0, "{by_version:?}");
    assert_eq!(host.worker("WD").await.unwrap()["id"], id);
    let swaps = host.log().matches(r#""message":"plugin swapped""#).count();
    // Less than that, and a swap was skipped; more, and half a file was loaded.
    assert_eq!(swaps, N_SWAPS);
}

/// Asks without a pause, on one connection or on a new one each time. Every request must be
/// answered, by one version or the other. Returns how many each version answered.
async fn ask_until(
    stop: &AtomicBool,
    host: &Host,
    answered: &AtomicUsize,
    one_connection: bool,
) -> [usize; 2] {
    let mut by_version = [0, 0];
    let mut client = host.client().await;
    while !stop.load(Ordering::Relaxed) {
        if !one_connection {
            client = host.client().await;
        }
        let response = client.get("/movies/").await.unwrap();
        assert_eq!(response.status, 200, "{}", response.text());
        let is_new = response.json() == json!([{"id": 0, "title": "from pilot 2"}]);
        assert!(
            is_new || response.json() == json!([]),
            "{}",
            response.text()
        );
        by_version[usize::from(is_new)] += 1;
        answered.fetch_add(1, Ordering::Relaxed);
    }
    by_version
}
