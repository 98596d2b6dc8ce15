//! What only SQLite has: a file of its own for each worker type, and rules for it.

use std::{collections::BTreeSet, fs};

use serde_json::json;

use super::{fails, rows, run};
use crate::runtime::host::Host;

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
        "ATTACH 'a' || 'b' AS other".to_owned(),
        "DETACH main".to_owned(),
        "DETACH 'ma' || 'in'".to_owned(),
        format!("VACUUM INTO '{other}'"),
        "SELECT load_extension('libc.so.6')".to_owned(),
        "PRAGMA journal_mode = DELETE".to_owned(),
        "PRAGMA temp_store_directory = '/tmp'".to_owned(),
        "PRAGMA max_page_count = 4294967294".to_owned(),
        "PRAGMA writable_schema = ON".to_owned(),
        "PRAGMA main.synchronous = OFF".to_owned(),
        "PRAGMA schema_version = 7".to_owned(),
        "PRAGMA main.schema_version(7)".to_owned(),
        "SELECT * FROM pragma_schema_version(7)".to_owned(),
        "SELECT * FROM pragma_database_list".to_owned(),
        format!("SELECT 1; ATTACH '{other}' AS other"),
    ] {
        let answers = run(&pool, &[&statement]).await;
        let error = answers[0]["error"].as_str();
        assert!(
            matches!(error, Some("denied" | "invalid")),
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

/// On the stack of a run, which is smaller than a thread's.
#[tokio::test]
async fn a_short_statement_may_nest_as_deep_as_it_can() {
    let host = Host::new();
    let pool = host.faulty(|_| ()).await;
    rows(&pool, &["CREATE TABLE t (n)", "INSERT INTO t VALUES (1)"]).await;
    let sum = format!("SELECT n{} FROM t", "+n".repeat(95));
    assert_eq!(rows(&pool, &[&sum]).await, json!([[96]]));
    let negated = format!("SELECT {}n FROM t", "~".repeat(980));
    let selects = format!("{}1{}", "SELECT (".repeat(100), ")".repeat(100));
    let tables = format!("{}t{}", "SELECT * FROM (".repeat(60), ")".repeat(60));
    // Whether SQLite takes them is its own affair.
    for statement in [negated, selects, tables] {
        run(&pool, &[&statement]).await;
    }
    assert_eq!(rows(&pool, &["SELECT n FROM t"]).await, json!([[1]]));
}

#[tokio::test]
async fn a_text_that_is_not_unicode_is_an_error() {
    let host = Host::new();
    let pool = host.faulty(|_| ()).await;
    fails(&pool, &["SELECT CAST(x'ff' AS TEXT)"], "other", "").await;
}

#[tokio::test]
async fn a_value_and_a_database_have_a_largest_size() {
    let host = Host::new();
    let pool = host.faulty(|w| w.limits.database_bytes = 256 << 10).await;
    fails(&pool, &["SELECT zeroblob(1000000000)"], "too-large", "").await;
    let huge = "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t LIMIT 2000) \
                SELECT group_concat(hex(randomblob(1000))) FROM t";
    fails(&pool, &[huge], "too-large", "").await;
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

#[tokio::test]
async fn placeholders_have_more_forms_and_each_has_a_value() {
    let host = Host::new();
    let pool = host.faulty(|_| ()).await;
    let answers = async |statement: &str, parameters: serde_json::Value| {
        let order = json!({"do": "sql-run", "statements": [statement], "parameters": parameters});
        super::reply(&pool, order).await[0].clone()
    };
    for statement in ["SELECT ?, ?", "SELECT ?1, ?2", "SELECT $1, $2"] {
        let answer = answers(statement, json!([7, "x"])).await;
        assert_eq!(answer["rows"], json!([[7, "x"]]), "{statement}");
    }
    for statement in [
        "SELECT $2",
        "SELECT $0",
        "SELECT $x",
        "SELECT $1, $3",
        "SELECT :n",
        "SELECT @n",
    ] {
        let answer = answers(statement, json!([7])).await;
        assert_eq!(answer["error"], "invalid", "{statement}: {answer}");
    }
}
