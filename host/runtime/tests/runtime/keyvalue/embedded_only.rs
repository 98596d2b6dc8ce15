//! What only a file can be: full, or in the way.

use std::fs;

use serde_json::json;

use super::{Place, file, folder, refused, step, steps};

#[tokio::test]
async fn a_full_store_refuses_more_and_keeps_what_it_has() {
    let place = Place::embedded();
    let pool = place
        .keeper_with(|w| w.limits.database_bytes = 256 << 10)
        .await;
    let mut n_written = 0;
    let refusal = loop {
        let set = json!({"do": "set", "key": n_written.to_string(), "size": 20_000});
        let result = step(&pool, set).await;
        if !result.is_null() {
            break result;
        }
        n_written += 1;
        assert!(n_written < 100, "it is never full");
    };
    refused(
        &refusal,
        "other",
        "unavailable: the store is full (`database_size`)",
    );
    let batch = json!({"do": "set-many", "keys": ["x", "y", "z"], "size": 20_000});
    refused(&step(&pool, batch).await, "other", "the store is full");
    let results = steps(
        &pool,
        json!([
            {"do": "get", "key": "0"},
            {"do": "delete", "key": "0"},
            {"do": "delete", "key": "1"},
            {"do": "set", "key": "new", "size": 20_000},
        ]),
    )
    .await;
    assert_eq!(json!(results), json!([20_000, null, null, null]));
    place.stores.close().await;
    assert!(fs::metadata(file(&place)).unwrap().len() <= 256 << 10);
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_an_error_until_it_can() {
    let place = Place::embedded();
    fs::write(folder(&place.host), "in the way").unwrap();
    let pool = place.keeper().await;
    let set = json!({"do": "set", "key": "a", "value": "x"});
    let result = step(&pool, set.clone()).await;
    refused(&result, "other", "unavailable: cannot create the folder");
    fs::remove_file(folder(&place.host)).unwrap();
    assert_eq!(step(&pool, set).await, json!(null));
}

#[tokio::test]
async fn a_plugin_that_keeps_nothing_makes_no_file() {
    let place = Place::embedded();
    let pool = place.keeper().await;
    steps(&pool, json!([{"do": "open"}])).await;
    assert!(!file(&place).exists());
    steps(&pool, json!([{"do": "get", "key": "a"}])).await;
    assert!(file(&place).exists());
}
