//! What only a server can be: away, back, full, shared with other programs, or somebody else's.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use warren_runtime::Pool;

use super::{Place, Redis, refused, step, steps};
use crate::runtime::host::{LONG, capture};

const SECRET: &str = "hunter2-is-no-password";

async fn set(pool: &Pool, value: &str) -> Value {
    step(pool, json!({"do": "set", "key": "a", "value": value})).await
}

#[tokio::test]
async fn keys_are_where_the_operator_can_find_them() {
    let place = Place::redis();
    let pool = place.keeper().await;
    set(&pool, "one").await;
    let other = json!({"do": "increment", "bucket": "n.b", "key": "x:y", "by": 7});
    assert_eq!(step(&pool, other).await, json!(7));
    let redis = place.redis.as_ref().unwrap();
    let answer = redis.ask("GET warren:kv:FV:default:a");
    assert!(answer.starts_with("$3\r\none\r\n"), "{answer}");
    let answer = redis.ask("GET warren:kv:FV:n.b:x:y");
    assert!(answer.starts_with("$1\r\n7\r\n"), "{answer}");
    // What another program has put there is no value of ours.
    let _ = redis.ask("LPUSH warren:kv:FV:default:list 1");
    for word in ["get", "increment", "cas"] {
        let result = step(&pool, json!({"do": word, "key": "list", "by": 1})).await;
        refused(&result, "other", "invalid: under the key is something");
    }
    let many = step(&pool, json!({"do": "get-many", "keys": ["a", "list"]})).await;
    refused(&many, "other", "invalid: under the key is something");
    let large = format!("SETRANGE warren:kv:FV:default:large {} x", 2 << 20);
    let _ = redis.ask(&large);
    let result = step(&pool, json!({"do": "get", "key": "large"})).await;
    refused(&result, "other", "invalid: the value has 2097153 bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_away_is_used_again_when_it_is_back() {
    let mut place = Place::redis();
    let pool = place.keeper().await;
    assert_eq!(set(&pool, "one").await, json!(null));
    place.redis.as_mut().unwrap().stop();
    for _ in 0..3 {
        let started = Instant::now();
        let result = set(&pool, "two").await;
        refused(
            &result,
            "other",
            "unavailable: the server cannot be reached",
        );
        assert!(started.elapsed() < Duration::from_secs(4));
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    place.redis.as_mut().unwrap().start_again();
    // At once but for the pause after an attempt that failed.
    tokio::time::sleep(Duration::from_millis(250)).await;
    let results = steps(
        &pool,
        json!([{"do": "get", "key": "a"}, {"do": "set", "key": "a", "value": "two"}]),
    )
    .await;
    assert_eq!(results, [json!("one"), json!(null)]);
    // One that was restarted between two runs costs no more than the first command after it.
    place.redis.as_mut().unwrap().stop();
    place.redis.as_mut().unwrap().start_again();
    let started = Instant::now();
    while set(&pool, "three").await != json!(null) {
        assert!(started.elapsed() < LONG, "it is not used again");
    }
}

#[tokio::test]
async fn a_server_that_does_not_answer_does_not_hold_a_run_for_ever() {
    // It takes connections and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", silent.local_addr().unwrap());
    let place = Place::embedded();
    let mut worker = place.host.worker("FV");
    worker.keyvalue = place
        .stores
        .redis(worker.id.worker_type(), &url.parse().unwrap());
    let plugin = place.host.load(crate::runtime::host::guest("keeper")).await;
    let pool = Pool::new(plugin.unwrap(), worker);
    let started = Instant::now();
    let result = set(&pool, "one").await;
    refused(
        &result,
        "other",
        "unavailable: the server cannot be reached: no connection within 3s",
    );
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_server_that_is_full_says_so() {
    let place = Place::on(Redis::start_with(
        "maxmemory 3mb\nmaxmemory-policy noeviction",
    ));
    let pool = place.keeper().await;
    let mut refusals = Vec::new();
    for n in 0..10 {
        let set = json!({"do": "set", "key": n.to_string(), "size": 1 << 20});
        refusals.push(step(&pool, set).await);
    }
    let refusal = refusals.iter().find(|result| !result.is_null()).unwrap();
    refused(refusal, "other", "unavailable: the server is full");
    let freed = json!([{"do": "delete", "key": "0"}, {"do": "delete", "key": "1"}]);
    assert_eq!(steps(&pool, freed).await, [json!(null), json!(null)]);
}

#[tokio::test]
async fn a_password_is_used_and_shows_nowhere() {
    let place = Place::on(Redis::start_with(&format!("requirepass {SECRET}")));
    let (captured, _guard) = capture();
    let port = place.redis.as_ref().unwrap().port();
    let mut shown = String::new();
    for (password, works) in [(SECRET, true), ("hunter2-of-somebody-else", false)] {
        let url = format!("redis://:{password}@127.0.0.1:{port}/3");
        let url: warren_runtime::RedisUrl = url.parse().unwrap();
        let mut worker = place.host.worker("FV");
        worker.keyvalue = place.stores.redis(worker.id.worker_type(), &url);
        worker.reach.redis = Some(url);
        let plugin = place.host.load(crate::runtime::host::guest("keeper")).await;
        let pool = Pool::new(plugin.unwrap(), worker);
        let result = set(&pool, "one").await;
        shown.push_str(&format!(
            "{result} {:?} {:?}",
            pool.worker().reach,
            place.stores
        ));
        if works {
            assert_eq!(result, json!(null));
        } else {
            refused(&result, "other", "does not take the user and the password");
        }
    }
    shown.push_str(&captured.text());
    assert!(shown.contains("redis://:***@127.0.0.1"), "{shown}");
    assert!(
        shown.contains("the key-value server cannot be reached"),
        "{shown}"
    );
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[tokio::test]
async fn all_workers_of_a_server_share_one_connection_and_it_ends_with_them() {
    let place = Place::redis();
    let mut pools = Vec::new();
    for worker_type in ["FV", "OTHER", "THIRD"] {
        let id = place.host.worker(worker_type).id;
        pools.push(place.keeper_with(|worker| worker.id = id).await);
    }
    for pool in &pools {
        set(pool, "one").await;
    }
    let redis = place.redis.as_ref().unwrap();
    // One is the test's own.
    let n_clients = || redis.ask("CLIENT LIST").matches("addr=127").count() / 2 - 1;
    assert_eq!(n_clients(), 1);
    drop(pools);
    let started = Instant::now();
    while n_clients() > 0 {
        assert!(started.elapsed() < LONG, "it is kept");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
