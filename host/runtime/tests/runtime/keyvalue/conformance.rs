//! What every engine does.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use warren_runtime::{Fault, Pool, Reuse};

use super::{Place, refused, step, steps};
use crate::runtime::host::{LONG, SHORT, order, reply};

on_both_engines! {
    a_value_is_there_until_it_is_deleted
    any_text_is_a_key_and_any_bytes_are_a_value
    keys_are_listed_in_pages_and_each_is_there
    a_number_is_counted_in_decimal_digits
    what_is_no_number_is_not_counted
    a_swap_happens_only_where_nobody_has_written
    several_keys_go_in_one_call
    what_is_too_large_is_refused
    a_run_holds_no_more_than_it_may
    buckets_and_worker_types_do_not_see_each_other
    a_bucket_of_another_name_is_no_bucket
    without_the_grant_there_is_no_bucket
    no_update_of_several_processes_is_lost
    a_run_that_is_stopped_leaves_a_good_store
    an_instance_that_holds_nothing_serves_the_next_run
    what_was_written_is_there_after_a_restart
}

async fn a_value_is_there_until_it_is_deleted(place: &Place) {
    let pool = place.keeper().await;
    let results = steps(
        &pool,
        json!([
            {"do": "get", "key": "a"},
            {"do": "exists", "key": "a"},
            {"do": "delete", "key": "a"},
            {"do": "set", "key": "a", "value": "one"},
            {"do": "set", "key": "a", "value": "two"},
            {"do": "get", "key": "a"},
            {"do": "exists", "key": "a"},
            {"do": "set", "key": "empty", "value": ""},
            {"do": "get", "key": "empty"},
        ]),
    )
    .await;
    let expected = json!([null, false, null, null, null, "two", true, null, ""]);
    assert_eq!(json!(results), expected);
    // Another run finds it.
    let results = steps(
        &pool,
        json!([
            {"do": "get", "key": "a"},
            {"do": "delete", "key": "a"},
            {"do": "get", "key": "a"},
            {"do": "exists", "key": "a"},
        ]),
    )
    .await;
    assert_eq!(json!(results), json!(["two", null, null, false]));
}

async fn any_text_is_a_key_and_any_bytes_are_a_value(place: &Place) {
    let pool = place.keeper().await;
    let long = "k".repeat(1024);
    let keys = [
        "",
        "\0",
        "a\0b",
        "a",
        "größe 鍵 🔑",
        "*",
        "[a]",
        "a:b",
        "default:a",
        "'; DROP TABLE pairs",
        "\r\nFLUSHALL\r\n",
        "\u{202e}",
        &long,
    ];
    for key in keys {
        let value = format!("of {key}");
        let set = json!([
            {"do": "set", "key": key, "value": value},
            {"do": "get", "key": key},
            {"do": "exists", "key": key},
        ]);
        let shown = if value.len() > 1000 {
            json!(value.len())
        } else {
            json!(value)
        };
        assert_eq!(steps(&pool, set).await, [json!(null), shown, json!(true)]);
    }
    let mut sorted = keys.to_vec();
    sorted.sort_unstable();
    let all = step(&pool, json!({"do": "list-all"})).await;
    assert_eq!(all["keys"], json!(sorted));
    let many = step(&pool, json!({"do": "get-many", "keys": keys[..5]})).await;
    let expected = keys[..5]
        .iter()
        .map(|key| json!([key, format!("of {key}")]));
    assert_eq!(many, expected.collect::<Value>());
    // Bytes that are no text.
    let set = json!([{"do": "set", "key": "x", "size": 1 << 20}, {"do": "get", "key": "x"}]);
    assert_eq!(steps(&pool, set).await, [json!(null), json!(1 << 20)]);
}

async fn keys_are_listed_in_pages_and_each_is_there(place: &Place) {
    let pool = place.keeper().await;
    assert_eq!(
        step(&pool, json!({"do": "list"})).await,
        json!({"keys": [], "cursor": null})
    );
    let mut keys: Vec<String> = (0..2500).map(|n| format!("key-{n}")).collect();
    for part in keys.chunks(1000) {
        let set = json!({"do": "set-many", "keys": part, "value": "x"});
        assert_eq!(step(&pool, set).await, json!(null));
    }
    // What others have does not show.
    let other = json!({"do": "set-many", "bucket": "other", "keys": keys[..1000], "value": "y"});
    assert_eq!(step(&pool, other).await, json!(null));
    keys.sort();
    let all = step(&pool, json!({"do": "list-all"})).await;
    assert_eq!(all["keys"], json!(keys));
    assert!(all["pages"].as_u64().unwrap() >= 2, "{}", all["pages"]);
    let page = step(&pool, json!({"do": "list"})).await;
    assert!(page["keys"].as_array().unwrap().len() <= 1100);
    // A cursor that a guest makes up does no harm.
    for cursor in [
        "",
        "x",
        "-1",
        "99999999999999999999",
        "18446744073709551615",
        "\0",
    ] {
        step(&pool, json!({"do": "list", "cursor": cursor})).await;
    }
    let long = step(&pool, json!({"do": "list", "cursor": "c".repeat(1025)})).await;
    refused(&long, "other", "invalid: the key has 1025 bytes");
    assert_eq!(
        step(&pool, json!({"do": "exists", "key": "key-7"})).await,
        json!(true)
    );
}

async fn a_number_is_counted_in_decimal_digits(place: &Place) {
    let pool = place.keeper().await;
    let results = steps(
        &pool,
        json!([
            {"do": "increment", "key": "n", "by": 5},
            {"do": "increment", "key": "n", "by": -7},
            {"do": "get", "key": "n"},
            {"do": "set", "key": "n", "value": "40"},
            {"do": "increment", "key": "n", "by": 2},
            {"do": "increment", "key": "n", "by": 0},
            {"do": "increment", "key": "low", "by": i64::MIN},
            {"do": "get", "key": "low"},
        ]),
    )
    .await;
    let expected = json!([5, -2, "-2", null, 42, 42, i64::MIN, i64::MIN.to_string()]);
    assert_eq!(json!(results), expected);
}

async fn what_is_no_number_is_not_counted(place: &Place) {
    let pool = place.keeper().await;
    for value in [
        "",
        "x",
        "1.0",
        " 1",
        "+1",
        "01",
        "-0",
        "9223372036854775808",
        "1\n",
    ] {
        let results = steps(
            &pool,
            json!([
                {"do": "set", "key": "n", "value": value},
                {"do": "increment", "key": "n", "by": 1},
                {"do": "get", "key": "n"},
            ]),
        )
        .await;
        refused(
            &results[1],
            "other",
            "invalid: what is under the key is not",
        );
        assert_eq!(results[2], json!(value));
    }
    for (value, by) in [(i64::MAX, 1), (i64::MIN, -1), (i64::MAX, i64::MAX)] {
        let results = steps(
            &pool,
            json!([
                {"do": "set", "key": "n", "value": value.to_string()},
                {"do": "increment", "key": "n", "by": by},
                {"do": "get", "key": "n"},
            ]),
        )
        .await;
        refused(&results[1], "other", "invalid: the sum is not");
        assert_eq!(results[2], json!(value.to_string()));
    }
}

async fn a_swap_happens_only_where_nobody_has_written(place: &Place) {
    let pool = place.keeper().await;
    let results = steps(
        &pool,
        json!([
            // What is not there can be swapped, and once only.
            {"do": "cas", "key": "a", "handle": "first"},
            {"do": "cas", "key": "a", "handle": "second"},
            {"do": "current", "handle": "first"},
            {"do": "swap", "handle": "first", "value": "one"},
            {"do": "swap", "handle": "second", "value": "two"},
            {"do": "get", "key": "a"},
            // The handle that came back has seen what there is now.
            {"do": "current", "handle": "second"},
            {"do": "swap", "handle": "second", "value": "two"},
            {"do": "get", "key": "a"},
            // Gone in between, and there again in between.
            {"do": "cas", "key": "a", "handle": "third"},
            {"do": "delete", "key": "a"},
            {"do": "swap", "handle": "third", "value": "three"},
            {"do": "set", "key": "a", "value": ""},
            {"do": "swap", "handle": "third", "value": "three"},
            {"do": "swap", "handle": "third", "value": "three"},
            {"do": "get", "key": "a"},
        ]),
    )
    .await;
    let expected = json!([
        null, null, null, "swapped", {"now": "one"}, "one",
        "one", "swapped", "two",
        null, null, {"now": null}, null, {"now": ""}, "swapped", "three"
    ]);
    assert_eq!(json!(results), expected);
}

async fn several_keys_go_in_one_call(place: &Place) {
    let pool = place.keeper().await;
    let results = steps(
        &pool,
        json!([
            {"do": "set-many", "keys": []},
            {"do": "get-many", "keys": []},
            {"do": "delete-many", "keys": []},
            {"do": "set-many", "keys": ["a", "b", "c"], "value": "x"},
            {"do": "get-many", "keys": ["c", "none", "a", "c"]},
            {"do": "delete-many", "keys": ["a", "none", "b"]},
            {"do": "list-all"},
        ]),
    )
    .await;
    let expected = json!([
        null, [], null, null,
        [["c", "x"], null, ["a", "x"], ["c", "x"]],
        null, {"keys": ["c"], "pages": 1}
    ]);
    assert_eq!(json!(results), expected);
    let keys: Vec<String> = (0..=1000).map(|n| n.to_string()).collect();
    for word in ["get-many", "set-many", "delete-many"] {
        let result = step(&pool, json!({"do": word, "keys": keys})).await;
        refused(&result, "other", "invalid: the call has 1001 keys");
        let keys = ["a".to_owned(), "k".repeat(1025)];
        let result = step(&pool, json!({"do": word, "keys": keys})).await;
        refused(&result, "other", "invalid: the key has 1025 bytes");
    }
}

async fn what_is_too_large_is_refused(place: &Place) {
    let pool = place
        .keeper_with(|w| w.limits.payload_bytes = 2 << 20)
        .await;
    let key = "k".repeat(1025);
    for word in ["get", "set", "delete", "exists", "increment", "cas"] {
        let result = step(&pool, json!({"do": word, "key": key})).await;
        refused(&result, "other", "invalid: the key has 1025 bytes");
    }
    let results = steps(
        &pool,
        json!([
            {"do": "set", "key": "a", "size": (1 << 20) + 1},
            {"do": "exists", "key": "a"},
            {"do": "cas", "key": "a", "handle": "a"},
            {"do": "swap", "handle": "a", "size": (1 << 20) + 1},
            {"do": "set-many", "keys": ["a", "b"], "size": (1 << 20) + 1},
            {"do": "set-many", "keys": ["a", "b", "c"], "size": 800_000},
            {"do": "exists", "key": "b"},
        ]),
    )
    .await;
    refused(&results[0], "other", "invalid: the value has 1048577 bytes");
    assert_eq!(results[1], json!(false));
    refused(&results[3], "other", "invalid: the value has 1048577 bytes");
    refused(&results[4], "other", "invalid: the value has 1048577 bytes");
    refused(
        &results[5],
        "other",
        "invalid: the values have 2400000 bytes together",
    );
    assert_eq!(results[6], json!(false));
    // Each may be there, but not all of them in one answer.
    let keys = json!(["a", "b", "c"]);
    for key in ["a", "b", "c"] {
        step(&pool, json!({"do": "set", "key": key, "size": 800_000})).await;
    }
    let result = step(&pool, json!({"do": "get-many", "keys": keys})).await;
    refused(&result, "other", "at most 2097152 are handed over");
    let two = step(&pool, json!({"do": "get-many", "keys": ["a", "b"]})).await;
    assert_eq!(two, json!([["a", 800_000], ["b", 800_000]]));
}

async fn a_run_holds_no_more_than_it_may(place: &Place) {
    let pool = place
        .keeper_with(|w| w.limits.payload_bytes = 2 << 20)
        .await;
    let held = step(&pool, json!({"do": "hold", "n": 2000})).await;
    assert!(held["held"].as_u64().unwrap() < 1000, "{held}");
    let text = held["text"].as_str().unwrap();
    assert!(text.contains("1000 handles are open"), "{text}");
    step(&pool, json!({"do": "set", "key": "a", "size": 1 << 20})).await;
    let held = step(&pool, json!({"do": "hold", "key": "a", "n": 10})).await;
    assert_eq!(held["held"], 2, "{held}");
    // What has been let go does not count: four swaps, one after the other.
    let results = step(&pool, json!({"do": "hold", "key": "a", "n": 2})).await;
    assert_eq!(results, json!({"held": 2}));
    let limited = place.keeper_with(|w| w.limits.host_calls = 50).await;
    let run = order(
        &limited,
        json!({"steps": [{"do": "add-many", "key": "n", "by": 1, "n": 1_000_000}]}),
    );
    assert_eq!(run.await.verdict, Err(Fault::HostCalls { limit: 50 }));
}

async fn buckets_and_worker_types_do_not_see_each_other(place: &Place) {
    let pool = place.keeper().await;
    let named = |bucket: &str, value: &str| json!({"do": "set", "bucket": bucket, "key": "a", "value": value});
    let get = |bucket: &str| json!({"do": "get", "bucket": bucket, "key": "a"});
    let results = steps(
        &pool,
        json!([
            named("", "of the default"), named("one", "of one"), named("two", "of two"),
            get("default"), get(""), get("one"), get("two"), get("three"),
            {"do": "delete", "bucket": "one", "key": "a"}, get("one"), get("two"),
            {"do": "list-all", "bucket": "two"},
        ]),
    )
    .await;
    let expected = json!([
        null, null, null,
        "of the default", "of the default", "of one", "of two", null,
        null, null, "of two", {"keys": ["a"], "pages": 1}
    ]);
    assert_eq!(json!(results), expected);
    for other in ["OTHER", "FV.two", "F"] {
        let id = place.host.worker(other).id;
        let other = place.keeper_with(|worker| worker.id = id).await;
        let found = steps(
            &other,
            json!([get(""), get("one"), get("two"), {"do": "list-all"}, named("", "theirs")]),
        )
        .await;
        let nothing = json!({"keys": [], "pages": 1});
        assert_eq!(json!(found), json!([null, null, null, nothing, null]));
    }
    assert_eq!(step(&pool, get("")).await, json!("of the default"));
    // Another worker of the same type is no other.
    let same = place.keeper().await;
    assert_eq!(step(&same, get("two")).await, json!("of two"));
}

async fn a_bucket_of_another_name_is_no_bucket(place: &Place) {
    let pool = place.keeper().await;
    let long = "b".repeat(65);
    for bucket in ["a:b", "../FX", " ", "*", "a\0", "größe", &long] {
        let result = step(&pool, json!({"do": "open", "bucket": bucket})).await;
        assert_eq!(result["error"], "no-such-store", "{bucket}");
    }
}

async fn without_the_grant_there_is_no_bucket(place: &Place) {
    let pool = place.keeper_with(|w| w.reach.grants.keyvalue = false).await;
    for bucket in ["", "one", "a:b"] {
        let result = step(&pool, json!({"do": "open", "bucket": bucket})).await;
        assert_eq!(result["error"], "access-denied", "{bucket}");
    }
    assert!(!super::folder(&place.host).exists());
}

async fn no_update_of_several_processes_is_lost(place: &Place) {
    const EACH: u64 = 40;
    let others = place.other_process();
    let mut pools: Vec<Pool> = Vec::new();
    for _ in 0..2 {
        pools.push(place.keeper().await);
        pools.push(place.keeper_of(&others, |_| ()).await);
    }
    let n_pools = pools.len() as u64;
    let runs = pools.iter().flat_map(|pool| {
        let add = json!({"do": "add-many", "key": "sum", "by": 3, "n": EACH});
        let swap = json!({"do": "swap-many", "key": "swapped", "n": EACH});
        [step(pool, add), step(pool, swap)]
    });
    for result in join_all(runs).await {
        assert!(result.is_u64(), "{result}");
    }
    let found = steps(
        &pools[0],
        json!([{"do": "get", "key": "sum"}, {"do": "get", "key": "swapped"}]),
    )
    .await;
    let (sum, swapped) = (3 * n_pools * EACH, n_pools * EACH);
    assert_eq!(json!(found), json!([sum.to_string(), swapped.to_string()]));
    others.close().await;
}

async fn a_run_that_is_stopped_leaves_a_good_store(place: &Place) {
    let hasty = place.keeper_with(|w| w.limits.deadline = SHORT).await;
    // More often than there are connections.
    for _ in 0..6 {
        let endless = json!([{"do": "add-many", "key": "n", "by": 1, "n": 100_000_000}]);
        let run = order(&hasty, json!({ "steps": endless })).await;
        assert_eq!(run.verdict, Err(Fault::Deadline(SHORT)));
        assert!(run.took < SHORT * 10, "{:?}", run.took);
    }
    let pool = place.keeper().await;
    let next = steps(
        &pool,
        json!([{"do": "increment", "key": "n", "by": 1}, {"do": "set", "key": "n", "value": "0"},
            {"do": "increment", "key": "n", "by": 1}]),
    )
    .await;
    assert!(next[0].as_i64().unwrap() > 6, "{next:?}");
    assert_eq!(next[2], json!(1));
}

async fn an_instance_that_holds_nothing_serves_the_next_run(place: &Place) {
    let reuse = Reuse {
        calls: 1000,
        memory_bytes: 32 << 20,
        age: LONG,
    };
    let pool = place.keeper_with(|worker| worker.reuse = Some(reuse)).await;
    for _ in 0..3 {
        let kept = json!([{"do": "cas", "key": "a", "handle": "a"}, {"do": "swap", "handle": "a"}]);
        steps(&pool, kept).await;
        assert_eq!(pool.idle_instances(), 1);
    }
    // One that has been stopped while it held a bucket is not kept.
    let stop = tokio_util::sync::CancellationToken::new();
    let stopper = stop.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        stopper.cancel();
    });
    let sleep = json!({"steps": [{"do": "sleep"}]});
    let run = crate::runtime::host::order_until(&pool, sleep, stop).await;
    assert_eq!(run.verdict, Err(Fault::Interrupted));
    assert_eq!(pool.idle_instances(), 0);
    let results = reply(&pool, json!({"steps": [{"do": "exists", "key": "a"}]})).await;
    assert_eq!(results, json!([true]));
}

async fn what_was_written_is_there_after_a_restart(place: &Place) {
    let pool = place.keeper().await;
    steps(&pool, json!([{"do": "set", "key": "a", "value": "kept"}])).await;
    drop(pool);
    place.stores.close().await;
    let stores = place.other_process();
    let pool = place.keeper_of(&stores, |_| ()).await;
    assert_eq!(
        step(&pool, json!({"do": "get", "key": "a"})).await,
        json!("kept")
    );
    stores.close().await;
}
