//! The plugin that `wit/README.md` writes in pieces does what is said of it there.

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use warren_protocol::{Ending, ErrorTarget, JobError, Outcome};
use warren_runtime::{KeyValueStores, Pool, Worker};

use super::{
    bus::answering,
    host::{Host, capture, guest, json as payload, occasion, order, value},
};

/// The plugin at work, where the Pilot finds these movies.
async fn ratings(host: &Host, found: Value, set: impl FnOnce(&mut Worker)) -> Pool {
    let mut worker = host.worker("RATINGS");
    worker.call = answering(Ok(payload(&json!({ "content": found })))).0;
    let stores = KeyValueStores::new(host.folder.path().join("keyvalue"));
    worker.keyvalue = stores.embedded(worker.id.worker_type(), worker.limits.database_bytes);
    set(&mut worker);
    Pool::new(host.load(guest("readme")).await.unwrap(), worker)
}

#[tokio::test]
async fn the_plugin_in_the_readme_of_the_contract_uses_every_interface() {
    let host = Host::new();
    let pool = ratings(&host, json!([{"id": 1}]), |_| ()).await;
    let (captured, _guard) = capture();
    let rating = json!({"title": "Alien", "stars": 5});
    // The second one is the same job again, as after a crash.
    for _ in 0..2 {
        let run = order(&pool, rating.clone()).await;
        let Ok(Outcome::Forward(data)) = &run.verdict else {
            panic!("{run:?}");
        };
        assert_eq!(value(data), json!({"title": "Alien", "n_ratings": 1}));
        let [news] = run.sends.as_slice() else {
            panic!("{run:?}");
        };
        assert_eq!(news.stops[0].as_str(), "NEWS:*");
        assert_eq!(value(&news.data), rating);
    }
    let said = captured.text();
    assert!(said.contains("Alien has 5 stars in attempt 2"), "{said}");
    let figures = prometheus::TextEncoder::new()
        .encode_to_string(&host.registry.gather())
        .unwrap();
    for line in [
        r#"warren_guest_ratings_total{stars="5",worker="RATINGS"} 1"#,
        r#"warren_guest_store_seconds_count{worker="RATINGS"} 2"#,
    ] {
        assert!(figures.contains(line), "`{line}` is missing in:\n{figures}");
    }
}

#[tokio::test]
async fn the_plugin_in_the_readme_of_the_contract_rejects_with_a_reason() {
    let host = Host::new();
    let rejected = async |pool: &Pool, stars: i64| {
        let run = order(pool, json!({"title": "Alien", "stars": stars})).await;
        match run.verdict {
            Ok(Outcome::Reject { reason }) => reason,
            other => panic!("not rejected: {other:?}"),
        }
    };
    let pool = ratings(&host, json!([{"id": 1}]), |_| ()).await;
    let reason = rejected(&pool, 6).await;
    assert_eq!(reason, "6 stars are not between 1 and 5");
    let ten = [("most_stars".to_owned(), "10".to_owned())];
    let pool = ratings(&host, json!([]), |worker| worker.config = ten.into()).await;
    assert_eq!(rejected(&pool, 6).await, "there is no such movie");
}

#[tokio::test]
async fn the_plugin_in_the_readme_of_the_contract_counts_what_is_lost() {
    let host = Host::new();
    let pool = ratings(&host, json!([]), |_| ()).await;
    let (captured, _guard) = capture();
    let error = JobError {
        target: ErrorTarget::Id("RATINGS:2000000000000".parse().unwrap()),
        error: "the press is broken".to_owned(),
        id: "J1".to_owned(),
        data: payload(&json!({"title": "Alien", "stars": 5})),
        cause: None,
        ending: Some(Ending {
            reason: "exhausted".to_owned(),
            stop: "NEWS:*".to_owned(),
            attempts: 5,
        }),
    };
    for _ in 0..2 {
        let permit = pool.permit().await.unwrap();
        let run = pool.treat(&permit, &error, occasion(), CancellationToken::new());
        assert_eq!(run.await.verdict.unwrap(), Outcome::Done);
    }
    let said = captured.text();
    assert!(
        said.contains("J1 took 5 tries at NEWS:*: 2 lost there"),
        "{said}"
    );
}
