//! The database of a worker: whole, and never in the way of the next run. Every case here is one for
//! SQLite and one for PostgreSQL.

mod postgresql;
mod sqlite;

use serde_json::{Value, json};
use warren_runtime::{Fault, Pool};

use super::{
    host::{Host, SHORT, order, reply},
    postgres::Database,
};

macro_rules! on_both_engines {
    ($($name:ident)*) => {
        mod on_sqlite {
            $(
                #[tokio::test]
                async fn $name() {
                    super::$name(&super::Bench::sqlite()).await;
                }
            )*
        }

        mod on_postgresql {
            $(
                #[tokio::test]
                async fn $name() {
                    super::$name(&super::Bench::postgresql()).await;
                }
            )*
        }
    };
}

on_both_engines! {
    every_kind_of_value_comes_back_as_it_was_stored
    an_empty_result_has_its_columns
    each_parameter_has_a_value
    a_statement_has_a_largest_size
    a_result_has_a_largest_size
    the_operator_says_how_many_rows_a_result_may_have
    a_constraint_is_an_error_of_its_own
    a_mistake_is_invalid
    a_table_may_change_between_two_readings
    a_panic_rolls_its_transaction_back
    a_transaction_of_a_run_that_was_stopped_does_not_lock_out_the_next
    a_transaction_that_was_begun_by_a_statement_ends_with_its_run
    a_transaction_that_cannot_be_committed_is_over_and_the_run_goes_on
    a_runaway_statement_ends_with_its_run
    a_statement_is_stopped_at_its_own_limit_and_the_run_goes_on
    a_statement_that_takes_too_long_ends_its_transaction
    no_update_is_lost
}

/// A host, and how its engine says what both can do.
struct Bench {
    host: Host,
    dialect: &'static str,
    _database: Option<Database>,
}

impl Bench {
    fn sqlite() -> Self {
        Self {
            host: Host::new(),
            dialect: "sqlite",
            _database: None,
        }
    }

    fn postgresql() -> Self {
        let database = Database::new();
        let mut host = Host::new();
        host.database = Some(database.url().parse().unwrap());
        Self {
            host,
            dialect: "postgresql",
            _database: Some(database),
        }
    }

    /// The numbers from 1 to `n`, as `n` in a table `t`.
    fn count(&self, n: u32, select: &str) -> String {
        match self.dialect {
            "sqlite" => format!(
                "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t LIMIT {n}) \
                 SELECT {select} FROM t"
            ),
            _ => format!("SELECT {select} FROM generate_series(1, {n}) AS t(n)"),
        }
    }
}

/// Works for hours.
const ENDLESS: &str = "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT (n + 1) % 1000 FROM t) \
                       SELECT count(*) FROM t";

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
    is_error(answers.last().unwrap(), error, says);
}

#[track_caller]
fn is_error(answer: &Value, error: &str, says: &str) {
    let mut shown = answer.to_string();
    shown.truncate(shown.floor_char_boundary(300));
    assert_eq!(answer["error"], error, "{shown}");
    let text = answer["text"].as_str().unwrap();
    assert!(text.contains(says), "`{says}` is missing in: {text}");
}

async fn every_kind_of_value_comes_back_as_it_was_stored(bench: &Bench) {
    let pool = bench.host.faulty(|_| ()).await;
    let answer = reply(&pool, json!({"do": "sql"})).await;
    let mistake = answer["mistake"].as_str().unwrap();
    assert!(
        mistake.contains("Invalid") && mistake.contains("nowhere"),
        "{mistake}"
    );
    let yes = match bench.dialect {
        "sqlite" => "Integer(1)",
        _ => "Boolean(true)",
    };
    for (name, says) in [
        ("empty", "Null"),
        ("yes", yes),
        ("whole", "Integer(-9223372036854775808)"),
        ("part", "Real(-0.5)"),
        ("bytes", "Blob([0, 255])"),
    ] {
        let value = answer[name].as_str().unwrap();
        assert!(value.contains(says), "{name}: {value}");
    }
    let words = answer["words"].as_str().unwrap();
    assert!(words.contains("größer 'quoted'"), "{words}");
    let dialect = reply(&pool, json!({"do": "sql-dialect"})).await;
    assert_eq!(dialect, bench.dialect);
}

async fn an_empty_result_has_its_columns(bench: &Bench) {
    let pool = bench.host.faulty(|_| ()).await;
    let answers = run(&pool, &["SELECT 1 AS one, 2 AS two WHERE false"]).await;
    assert_eq!(answers, [json!({"columns": ["one", "two"], "rows": []})]);
}

async fn each_parameter_has_a_value(bench: &Bench) {
    let pool = bench.host.faulty(|_| ()).await;
    rows(&pool, &["CREATE TABLE t (n BIGINT, words TEXT)"]).await;
    let with = async |statement: &str, parameters: Value| {
        let order = json!({"do": "sql-run", "statements": [statement], "parameters": parameters});
        reply(&pool, order).await[0].clone()
    };
    let insert = "INSERT INTO t (words, n) VALUES ($2, $1)";
    let answer = with(insert, json!([7, "it's $1 -- ?"])).await;
    assert_eq!(answer.get("error"), None, "{answer}");
    let select = "SELECT n, words FROM t WHERE n = $1 OR n = $1 -- $9\n";
    let answer = with(select, json!([7])).await;
    assert_eq!(answer["rows"], json!([[7, "it's $1 -- ?"]]));
    let too_few = with(insert, json!([7])).await;
    is_error(&too_few, "invalid", "parameter");
    let too_many = with(select, json!([7, 8])).await;
    is_error(&too_many, "invalid", "2 values");
    let none = with("SELECT $1", json!([])).await;
    is_error(&none, "invalid", "parameter");
    let null = with("SELECT count(*) FROM t WHERE n = $1", json!([null])).await;
    assert_eq!(null["rows"], json!([[0]]));
}

async fn a_statement_has_a_largest_size(bench: &Bench) {
    let pool = bench.host.faulty(|_| ()).await;
    let long = format!("SELECT '{}'", "x".repeat(100_000));
    fails(&pool, &[&long], "invalid", "parameters").await;
    fails(&pool, &["SELECT 1\0; SELECT 2"], "invalid", "NUL").await;
}

async fn a_result_has_a_largest_size(bench: &Bench) {
    let pool = bench.host.faulty(|_| ()).await;
    let most = rows(&pool, &[&bench.count(10_000, "n")]).await;
    assert_eq!(most.as_array().unwrap().len(), 10_000);
    fails(
        &pool,
        &[&bench.count(10_001, "n")],
        "too-large",
        "10000 rows",
    )
    .await;
    let long = match bench.dialect {
        "sqlite" => "hex(randomblob(2000))",
        _ => "repeat('0123', 1000) || n",
    };
    fails(&pool, &[&bench.count(10_000, long)], "too-large", "bytes").await;
    // What was on its way is in nobody's way.
    assert_eq!(rows(&pool, &["SELECT 1"]).await, json!([[1]]));
}

async fn the_operator_says_how_many_rows_a_result_may_have(bench: &Bench) {
    let pool = bench.host.faulty(|w| w.limits.sql_rows = 3).await;
    let three = "SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3";
    assert_eq!(rows(&pool, &[three]).await, json!([[1], [2], [3]]));
    let four = format!("{three} UNION ALL SELECT 4");
    fails(&pool, &[&four], "too-large", "sql_rows").await;
}

async fn a_constraint_is_an_error_of_its_own(bench: &Bench) {
    let pool = bench.host.faulty(|_| ()).await;
    let unique = "CREATE TABLE numbers (n INTEGER NOT NULL UNIQUE, CHECK (n < 10))";
    let insert = "INSERT INTO numbers VALUES (1)";
    fails(&pool, &[unique, insert, insert], "constraint", "numbers").await;
    for statement in [
        "INSERT INTO numbers VALUES (NULL)",
        "INSERT INTO numbers VALUES (10)",
    ] {
        fails(&pool, &[statement], "constraint", "").await;
    }
}

async fn a_mistake_is_invalid(bench: &Bench) {
    let pool = bench.host.faulty(|_| ()).await;
    for statement in [
        "SELECT FROM WHERE",
        "SELECT * FROM nowhere",
        "SELECT nothing",
        "SELECT 1; SELECT 2",
        "COMMIT; SELECT 1",
    ] {
        let answer = run(&pool, &[statement]).await[0].clone();
        if statement == "SELECT 1; SELECT 2" && bench.dialect == "sqlite" {
            continue;
        }
        assert_eq!(answer["error"], "invalid", "{statement}: {answer}");
    }
}

async fn a_table_may_change_between_two_readings(bench: &Bench) {
    let pool = bench.host.faulty(|_| ()).await;
    let select = "SELECT * FROM t";
    let fewer = [
        "CREATE TABLE t (a INTEGER, b INTEGER)",
        "INSERT INTO t VALUES (1, 2)",
        select,
        "ALTER TABLE t DROP COLUMN b",
        select,
    ];
    assert_eq!(rows(&pool, &fewer).await, json!([[1]]));
    let more = ["ALTER TABLE t ADD COLUMN c INTEGER DEFAULT 3", select];
    assert_eq!(rows(&pool, &more).await, json!([[1, 3]]));
    // Another table of that name.
    let other = [
        "DROP TABLE t",
        "CREATE TABLE t (a TEXT)",
        "INSERT INTO t VALUES ('x')",
        select,
    ];
    assert_eq!(rows(&pool, &other).await, json!([["x"]]));
}

async fn a_panic_rolls_its_transaction_back(bench: &Bench) {
    let pool = bench.host.faulty(|_| ()).await;
    rows(&pool, &["CREATE TABLE t (n INTEGER)"]).await;
    let insert = ["INSERT INTO t VALUES (1)"];
    let run = order(&pool, json!({"do": "sql-panic", "statements": insert})).await;
    assert!(matches!(run.verdict, Err(Fault::Trap(_))), "{run:?}");
    assert_eq!(rows(&pool, &["SELECT count(*) FROM t"]).await, json!([[0]]));
}

async fn a_transaction_of_a_run_that_was_stopped_does_not_lock_out_the_next(bench: &Bench) {
    let pool = bench.host.faulty(|_| ()).await;
    rows(&pool, &["CREATE TABLE t (n INTEGER UNIQUE)"]).await;
    let hasty = bench.host.faulty(|w| w.limits.deadline = SHORT).await;
    let insert = ["INSERT INTO t VALUES (1)"];
    let run = order(&hasty, json!({"do": "sql-hold", "statements": insert})).await;
    assert_eq!(run.verdict, Err(Fault::Deadline(SHORT)));
    let statements = ["INSERT INTO t VALUES (1)", "SELECT n FROM t"];
    assert_eq!(rows(&pool, &statements).await, json!([[1]]));
}

async fn a_transaction_that_was_begun_by_a_statement_ends_with_its_run(bench: &Bench) {
    let pool = bench.host.faulty(|_| ()).await;
    rows(&pool, &["CREATE TABLE t (n INTEGER)"]).await;
    // More often than there are connections.
    for _ in 0..20 {
        rows(&pool, &["BEGIN", "INSERT INTO t VALUES (1)"]).await;
    }
    assert_eq!(rows(&pool, &["SELECT count(*) FROM t"]).await, json!([[0]]));
}

async fn a_transaction_that_cannot_be_committed_is_over_and_the_run_goes_on(bench: &Bench) {
    let pool = bench.host.faulty(|_| ()).await;
    let tables = [
        "CREATE TABLE parents (id INTEGER PRIMARY KEY)",
        "CREATE TABLE t (n INTEGER REFERENCES parents DEFERRABLE INITIALLY DEFERRED)",
    ];
    rows(&pool, &tables).await;
    let orphan = json!(["INSERT INTO t VALUES (1)"]);
    let order = json!({"do": "sql-transaction", "statements": orphan});
    let answers = reply(&pool, order).await;
    assert_eq!(answers[0].get("error"), None, "{answers}");
    is_error(&answers[1], "constraint", "");
    let good = json!(["INSERT INTO parents VALUES (2)", "INSERT INTO t VALUES (2)"]);
    let order = json!({"do": "sql-transaction", "statements": good});
    assert_eq!(reply(&pool, order).await[2], "committed");
    assert_eq!(rows(&pool, &["SELECT n FROM t"]).await, json!([[2]]));
}

async fn a_runaway_statement_ends_with_its_run(bench: &Bench) {
    let hasty = bench.host.faulty(|w| w.limits.deadline = SHORT).await;
    // More often than there are connections: none may be left behind at work.
    for _ in 0..20 {
        let run = order(&hasty, json!({"do": "sql-run", "statements": [ENDLESS]})).await;
        assert!(run.took < SHORT * 3, "{:?}", run.took);
    }
    let pool = bench.host.faulty(|_| ()).await;
    assert_eq!(rows(&pool, &["SELECT 1"]).await, json!([[1]]));
}

async fn a_statement_is_stopped_at_its_own_limit_and_the_run_goes_on(bench: &Bench) {
    let set = |w: &mut warren_runtime::Worker| w.limits.statement_timeout = SHORT;
    let pool = bench.host.faulty(set).await;
    let statements = json!({"do": "sql-run", "statements": [ENDLESS, "SELECT 1"]});
    // More often than there are connections: each is good for the next run.
    for _ in 0..20 {
        let run = order(&pool, statements.clone()).await;
        assert!(run.took < SHORT * 10, "{:?}", run.took);
    }
    let answers = run(&pool, &[ENDLESS, "SELECT 1"]).await;
    is_error(&answers[0], "unavailable", "statement_timeout");
    assert_eq!(answers[1]["rows"], json!([[1]]));
}

async fn a_statement_that_takes_too_long_ends_its_transaction(bench: &Bench) {
    let set = |w: &mut warren_runtime::Worker| w.limits.statement_timeout = SHORT;
    let pool = bench.host.faulty(set).await;
    rows(&pool, &["CREATE TABLE t (n INTEGER)"]).await;
    let statements = [
        "INSERT INTO t VALUES (1)",
        ENDLESS,
        "INSERT INTO t VALUES (2)",
    ];
    let order = json!({"do": "sql-transaction", "statements": statements});
    let answers = reply(&pool, order).await;
    is_error(&answers[1], "unavailable", "rolled back");
    is_error(&answers[2], "invalid", "over");
    is_error(&answers[3], "invalid", "over");
    assert_eq!(rows(&pool, &["SELECT count(*) FROM t"]).await, json!([[0]]));
}

async fn no_update_is_lost(bench: &Bench) {
    const N_JOBS: usize = 60;
    const AT_ONCE: usize = 6;
    let pool = bench.host.faulty(|_| ()).await;
    let tables = [
        "CREATE TABLE sums (id INTEGER PRIMARY KEY, n BIGINT NOT NULL)",
        "CREATE TABLE jobs (job TEXT PRIMARY KEY)",
        "INSERT INTO sums VALUES (1, 0)",
    ];
    rows(&pool, &tables).await;
    let add = async |first: usize| {
        let mut n_done = 0;
        for n in (first..N_JOBS).step_by(AT_ONCE) {
            n_done += usize::from(super::host::add(&pool, &format!("job-{n}")).await);
        }
        n_done
    };
    let done = tokio::join!(add(0), add(1), add(2), add(3), add(4), add(5));
    let n_done = done.0 + done.1 + done.2 + done.3 + done.4 + done.5;
    // What has failed was in another one's way, and is tried again by the bus.
    assert!(n_done > 0);
    let select = ["SELECT n, (SELECT count(*) FROM jobs) FROM sums"];
    assert_eq!(rows(&pool, &select).await, json!([[n_done, n_done]]));
    // A second run of a job changes nothing.
    for n in 0..N_JOBS {
        while !super::host::add(&pool, &format!("job-{n}")).await {}
    }
    assert_eq!(rows(&pool, &select).await, json!([[N_JOBS, N_JOBS]]));
}
