//! The database of a worker type: whole, private, and never in the way of the next run.

use std::{collections::BTreeSet, fs};

use serde_json::{Value, json};
use warren_runtime::{Fault, Pool};

use super::host::{Host, SHORT, order, reply};

/// Runs these statements, each by itself, and returns what came of each.
async fn run(pool: &Pool, statements: &[&str]) -> Vec<Value> {
    let answer = reply(pool, json!({"do": "sql-run", "statements": statements})).await;
    answer.as_array().unwrap().clone()
}

/// The rows of the last of these statements.
async fn rows(pool: &Pool, statements: &[&str]) -> Value {
    let answers = run(pool, statements).await;
    for answer in &answers {
        assert_eq!(answer.get("error"), None, "{answer}");
    }
    answers.last().unwrap()["rows"].clone()
}

/// Checks the error of the last of these statements.
async fn fails(pool: &Pool, statements: &[&str], error: &str, says: &str) {
    let answers = run(pool, statements).await;
    let last = answers.last().unwrap();
    let mut shown = last.to_string();
    shown.truncate(shown.floor_char_boundary(200));
    assert_eq!(last["error"], error, "{statements:?}: {shown}");
    let text = last["text"].as_str().unwrap();
    assert!(text.contains(says), "`{says}` is missing in: {text}");
}

#[tokio::test]
async fn every_kind_of_value_comes_back_as_it_was_stored() {
    let host = Host::new();
    let pool = host.faulty(|_| ()).await;
    let answer = reply(&pool, json!({"do": "sql"})).await;
    let mistake = answer["mistake"].as_str().unwrap();
    assert!(
        mistake.contains("Invalid") && mistake.contains("nowhere"),
        "{mistake}"
    );
    for (name, says) in [
        ("empty", "Null"),
        ("yes", "Integer(1)"),
        ("whole", "Integer(-9223372036854775808)"),
        ("part", "Real(-0.5)"),
        ("bytes", "Blob([0, 255])"),
    ] {
        let value = answer[name].as_str().unwrap();
        assert!(value.contains(says), "{name}: {value}");
    }
    let words = answer["words"].as_str().unwrap();
    assert!(words.contains(r"größer \0 'quoted'"), "{words}");
}

#[tokio::test]
async fn an_empty_result_has_its_columns() {
    let host = Host::new();
    let pool = host.faulty(|_| ()).await;
    let answers = run(&pool, &["SELECT 1 AS one, 2 AS two WHERE false"]).await;
    assert_eq!(answers, [json!({"columns": ["one", "two"], "rows": []})]);
}

#[tokio::test]
async fn a_missing_parameter_is_not_null() {
    let host = Host::new();
    let pool = host.faulty(|_| ()).await;
    fails(&pool, &["SELECT ?, ?"], "invalid", "2 parameters").await;
}

#[tokio::test]
async fn workers_of_one_type_share_a_database_and_others_do_not_see_it() {
    let host = Host::new();
    let first = host.faulty(|_| ()).await;
    rows(&first, &["CREATE TABLE t (n)", "INSERT INTO t VALUES (7)"]).await;
    let second = host.faulty(|_| ()).await;
    assert_eq!(rows(&second, &["SELECT n FROM t"]).await, json!([[7]]));
    let other_id = host.worker("OTHER").id;
    let other = host.faulty(|worker| worker.id = other_id).await;
    fails(&other, &["SELECT n FROM t"], "invalid", "no such table").await;
}

#[tokio::test]
async fn a_panic_rolls_its_transaction_back() {
    let host = Host::new();
    let pool = host.faulty(|_| ()).await;
    rows(&pool, &["CREATE TABLE t (n)"]).await;
    let insert = ["INSERT INTO t VALUES (1)"];
    let run = order(&pool, json!({"do": "sql-panic", "statements": insert})).await;
    assert!(matches!(run.verdict, Err(Fault::Trap(_))), "{run:?}");
    assert_eq!(rows(&pool, &["SELECT count(*) FROM t"]).await, json!([[0]]));
}

#[tokio::test]
async fn a_transaction_of_a_run_that_was_stopped_does_not_lock_out_the_next() {
    let host = Host::new();
    let pool = host.faulty(|_| ()).await;
    rows(&pool, &["CREATE TABLE t (n)"]).await;
    let hasty = host.faulty(|w| w.limits.deadline = SHORT).await;
    let insert = ["INSERT INTO t VALUES (1)"];
    let run = order(&hasty, json!({"do": "sql-hold", "statements": insert})).await;
    assert_eq!(run.verdict, Err(Fault::Deadline(SHORT)));
    let statements = ["INSERT INTO t VALUES (2)", "SELECT n FROM t"];
    assert_eq!(rows(&pool, &statements).await, json!([[2]]));
}

/// Paths of all files under the folder of the databases.
fn files(host: &Host) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for worker_type in fs::read_dir(host.folder.path()).unwrap() {
        let worker_type = worker_type.unwrap().path();
        for file in fs::read_dir(worker_type).unwrap() {
            found.insert(file.unwrap().file_name().into_string().unwrap());
        }
    }
    found
}

#[tokio::test]
async fn sql_does_not_reach_another_file() {
    let host = Host::new();
    let pool = host.faulty(|_| ()).await;
    rows(&pool, &["CREATE TABLE t (n)"]).await;
    let before = files(&host);
    let folder = host.folder.path().join("FX");
    let other = folder.join("other.sqlite").display().to_string();
    for statement in [
        format!("ATTACH '{other}' AS other"),
        format!("/* */ aTTaCH DATABASE 'file:{other}?mode=rwc' AS other"),
        "ATTACH ':memory:' AS other".to_owned(),
        "DETACH main".to_owned(),
        format!("VACUUM INTO '{other}'"),
        "SELECT load_extension('libc.so.6')".to_owned(),
        "PRAGMA journal_mode = DELETE".to_owned(),
        "PRAGMA temp_store_directory = '/tmp'".to_owned(),
        "PRAGMA max_page_count = 4294967294".to_owned(),
        "PRAGMA writable_schema = ON".to_owned(),
        "PRAGMA main.synchronous = OFF".to_owned(),
        "SELECT * FROM pragma_database_list".to_owned(),
        format!("SELECT 1; ATTACH '{other}' AS other"),
    ] {
        let answers = run(&pool, &[&statement]).await;
        assert!(
            answers[0].get("error").is_some(),
            "{statement}: {answers:?}"
        );
    }
    assert_eq!(files(&host), before);
}

#[tokio::test]
async fn the_schema_can_be_read_and_numbered() {
    let host = Host::new();
    let pool = host.faulty(|_| ()).await;
    let statements = [
        "CREATE TABLE t (n INTEGER)",
        "PRAGMA user_version = 3",
        "SELECT name, type FROM pragma_table_info('t')",
    ];
    assert_eq!(rows(&pool, &statements).await, json!([["n", "INTEGER"]]));
    assert_eq!(rows(&pool, &["PRAGMA user_version"]).await, json!([[3]]));
}

#[tokio::test]
async fn a_runaway_statement_ends_with_its_run() {
    let host = Host::new();
    let hasty = host.faulty(|w| w.limits.deadline = SHORT).await;
    let endless = "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) \
                   SELECT count(*) FROM t";
    // More often than there are connections: none may be left behind at work.
    for _ in 0..10 {
        let run = order(&hasty, json!({"do": "sql-run", "statements": [endless]})).await;
        assert!(run.took < SHORT * 2, "{:?}", run.took);
    }
    let pool = host.faulty(|_| ()).await;
    assert_eq!(rows(&pool, &["SELECT 1"]).await, json!([[1]]));
}

#[tokio::test]
async fn a_constraint_is_an_error_of_its_own() {
    let host = Host::new();
    let pool = host.faulty(|_| ()).await;
    let insert = "INSERT INTO t VALUES (1)";
    let statements = ["CREATE TABLE t (n UNIQUE)", insert, insert];
    fails(&pool, &statements, "constraint", "t.n").await;
}

#[tokio::test]
async fn a_result_has_a_largest_size() {
    let host = Host::new();
    let pool = host.faulty(|_| ()).await;
    let count = |n: u32| {
        format!(
            "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t LIMIT {n}) \
             SELECT n FROM t"
        )
    };
    let most = rows(&pool, &[&count(10_000)]).await;
    assert_eq!(most.as_array().unwrap().len(), 10_000);
    fails(&pool, &[&count(10_001)], "too-large", "10000 rows").await;
    let wide = count(10_000).replace("SELECT n FROM", "SELECT hex(randomblob(2000)) FROM");
    fails(&pool, &[&wide], "too-large", "bytes").await;
    fails(&pool, &["SELECT zeroblob(1000000000)"], "too-large", "").await;
    let huge = "SELECT group_concat(hex(randomblob(1000))) FROM t";
    let huge = count(2000).replace("SELECT n FROM t", huge);
    fails(&pool, &[&huge], "too-large", "").await;
    let long = format!("SELECT '{}'", "x".repeat(100_000));
    fails(&pool, &[&long], "invalid", "parameters").await;
}

#[tokio::test]
async fn a_text_that_is_not_unicode_is_an_error() {
    let host = Host::new();
    let pool = host.faulty(|_| ()).await;
    fails(&pool, &["SELECT CAST(x'ff' AS TEXT)"], "other", "").await;
}

#[tokio::test]
async fn a_table_may_change_between_two_readings() {
    let host = Host::new();
    let pool = host.faulty(|_| ()).await;
    let select = "SELECT * FROM t";
    let fewer = [
        "CREATE TABLE t (a, b)",
        "INSERT INTO t VALUES (1, 2)",
        select,
        "ALTER TABLE t DROP COLUMN b",
        select,
    ];
    assert_eq!(rows(&pool, &fewer).await, json!([[1]]));
    let more = ["ALTER TABLE t ADD COLUMN c DEFAULT 3", select];
    assert_eq!(rows(&pool, &more).await, json!([[1, 3]]));
}

const ENDLESS: &str = "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) \
                       SELECT count(*) FROM t";

#[tokio::test]
async fn a_statement_is_stopped_at_its_own_limit_and_the_run_goes_on() {
    let host = Host::new();
    let pool = host.faulty(|w| w.limits.statement_timeout = SHORT).await;
    let statements = json!({"do": "sql-run", "statements": [ENDLESS, "SELECT 1"]});
    // More often than there are connections: each is good for the next run.
    for _ in 0..10 {
        let run = order(&pool, statements.clone()).await;
        assert!(run.took < SHORT * 10, "{:?}", run.took);
    }
    let answers = run(&pool, &[ENDLESS, "SELECT 1"]).await;
    assert_eq!(answers[0]["error"], "unavailable", "{answers:?}");
    let text = answers[0]["text"].as_str().unwrap();
    assert!(text.contains("statement_timeout"), "{text}");
    assert_eq!(answers[1]["rows"], json!([[1]]));
}

#[tokio::test]
async fn the_operator_says_how_many_rows_a_result_and_how_many_bytes_a_database_may_have() {
    let host = Host::new();
    let pool = host
        .faulty(|w| {
            w.limits.sql_rows = 3;
            w.limits.database_bytes = 256 << 10;
        })
        .await;
    let three = "SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3";
    assert_eq!(rows(&pool, &[three]).await, json!([[1], [2], [3]]));
    let four = format!("{three} UNION ALL SELECT 4");
    fails(&pool, &[&four], "too-large", "sql_rows").await;
    let full = [
        "CREATE TABLE t (b)",
        "INSERT INTO t VALUES (zeroblob(300000))",
    ];
    fails(&pool, &full, "unavailable", "full").await;
    let small = [
        "INSERT INTO t VALUES (zeroblob(1000))",
        "SELECT count(*) FROM t",
    ];
    assert_eq!(rows(&pool, &small).await, json!([[1]]));
}
