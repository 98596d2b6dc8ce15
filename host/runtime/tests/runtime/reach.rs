//! What the operator grants and takes away: the bus, the database, and secrets that stay secret.

use serde_json::{Value, json};
use warren_protocol::{Outcome, WorkerType};
use warren_runtime::{Fault, Grants, Pool, Secret, Secrets, Standing, Worker, needs};

use super::host::{Host, capture, guest, order, reply};

const SECRET: &str = "hunter2-is-no-password";

fn bus(types: &[&str]) -> impl FnOnce(&mut Worker) + use<> {
    let types = types.iter().map(|name| WorkerType::new(name).unwrap());
    let types = types.collect::<Vec<_>>();
    move |worker| worker.reach.grants.bus = Some(types)
}

fn with_secret(worker: &mut Worker) {
    let secret = Secret::new(SECRET.to_owned());
    worker.reach.secrets = Secrets::new([("api_key".to_owned(), secret)].into());
}

#[tokio::test]
async fn a_worker_sends_and_calls_only_where_it_may() {
    let host = Host::new();
    let pool = host.faulty(bus(&["WB"])).await;
    let run = order(
        &pool,
        json!({"do": "send", "to": ["WB:*", "WB:2795220940610"]}),
    )
    .await;
    assert_eq!((run.verdict, run.sends.len()), (Ok(Outcome::Done), 1));
    for to in [json!(["WD:*"]), json!(["WB:*", "WD:2795220940610"])] {
        let run = order(&pool, json!({"do": "send", "to": to})).await;
        let Ok(Outcome::Reject { reason }) = &run.verdict else {
            panic!("{run:?}");
        };
        assert!(reason.contains("may not send to WD:"), "{reason}");
        assert!(run.sends.is_empty(), "{run:?}");
    }
    // Refused before anybody is asked: the test's bus knows no worker at all.
    let called = reply(&pool, json!({"do": "call", "to": "WD:*"})).await;
    assert_eq!(called["error"], "denied", "{called}");
    assert!(
        called.to_string().contains("may not send to WD:*"),
        "{called}"
    );
    let called = reply(&pool, json!({"do": "call", "to": "WB:*"})).await;
    assert!(!called.to_string().contains("may not send"), "{called}");
}

#[tokio::test]
async fn a_worker_without_the_bus_can_still_answer() {
    let host = Host::new();
    let pool = host.faulty(bus(&[])).await;
    // What `forward` says goes where the job itself says.
    assert_eq!(
        reply(&pool, json!({"do": "echo"})).await,
        json!({"do": "echo"})
    );
    let route = async |to: Value| order(&pool, json!({"do": "route", "to": to})).await.verdict;
    let back = route(json!(["NEXT:*", "FROM:2000000000000"])).await;
    assert!(matches!(back, Ok(Outcome::Route(_))), "{back:?}");
    let away = route(json!(["WB:*", "FROM:2000000000000"])).await;
    assert!(
        matches!(&away, Err(Fault::Denied(reason)) if reason.contains("WB:*")),
        "{away:?}"
    );
}

#[tokio::test]
async fn a_worker_whose_database_is_taken_away_gets_an_error() {
    let host = Host::new();
    let pool = host.faulty(|w| w.reach.grants.sql = false).await;
    let statements = json!({"do": "sql-run", "statements": ["SELECT 1"]});
    let answer = reply(&pool, statements).await;
    assert_eq!(answer[0]["error"], "denied", "{answer}");
    assert!(!host.folder.path().join("FX").exists());
}

#[tokio::test]
async fn a_plugin_says_what_it_imports() {
    let host = Host::new();
    let grants = Grants::default();
    for (name, missing) in [
        ("db", None),
        ("rest", None),
        ("faulty", None),
        ("reacher", Some("wasi:http/outgoing-handler@")),
    ] {
        let plugin = host.load(guest(name)).await.unwrap();
        let imports = plugin.imports();
        assert!(
            imports
                .iter()
                .any(|import| import.starts_with("wasi:io/streams@0.2.")),
            "{imports:?}"
        );
        let all = needs(imports, &grants, &plugin.description.worker_type);
        assert!(all.iter().all(|need| !need.gives.is_empty()), "{all:?}");
        let denied = all.iter().find(|need| need.standing != Standing::Granted);
        assert_eq!(denied.is_some(), missing.is_some(), "{name}: {denied:?}");
        if let (Some(denied), Some(missing)) = (denied, missing) {
            assert!(denied.import.starts_with(missing), "{denied:?}");
        }
    }
}

#[tokio::test]
async fn a_guest_reads_its_secret_and_others_do_not() {
    let host = Host::new();
    let read = json!({"do": "read", "key": "api_key"});
    let pool = host.reacher(with_secret).await;
    assert_eq!(reply(&pool, read.clone()).await, json!({"value": SECRET}));
    let other = host.reacher(|_| ()).await;
    assert_eq!(reply(&other, read).await, json!({"value": null}));
    let all = host.faulty(with_secret).await;
    let all = reply(&all, json!({"do": "config"})).await;
    assert_eq!(all, json!({"api_key": SECRET}));
}

#[tokio::test]
async fn a_secret_that_a_guest_prints_is_not_in_the_log_nor_in_its_last_words() {
    let host = Host::new();
    let pool = host.reacher(with_secret).await;
    let (captured, _guard) = capture();
    let run = order(&pool, json!({"do": "spill", "key": "api_key"})).await;
    let Err(Fault::Trap(words)) = &run.verdict else {
        panic!("{run:?}");
    };
    assert!(words.contains("in a panic: ***"), "{words}");
    let text = captured.text();
    for said in [
        "on stdout: ***",
        "on stderr: ***",
        "in the log: ***",
        "once more: *** ***",
    ] {
        assert!(text.contains(said), "`{said}` is missing in:\n{text}");
    }
    let told = order(&pool, json!({"do": "tell", "key": "api_key"})).await;
    assert!(
        matches!(&told.verdict, Ok(Outcome::Reject { reason }) if reason == "it is ***"),
        "{told:?}"
    );
    for shown in [text, format!("{run:?} {told:?}"), shown(&pool)] {
        assert!(!shown.contains(SECRET), "{shown}");
    }
}

/// Whatever the parts of a worker print of themselves.
fn shown(pool: &Pool) -> String {
    format!("{:?} {:?}", pool.plugin(), pool.worker().reach)
}
