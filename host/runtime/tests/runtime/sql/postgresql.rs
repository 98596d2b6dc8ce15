//! What only PostgreSQL has: types, roles, sessions, and a server that can go away.

use std::time::{Duration, Instant};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use warren_runtime::Pool;

use super::{Bench, ENDLESS, fails, is_error, rows, run};
use crate::runtime::{
    host::{Host, SHORT, order, reply},
    postgres::{Database, Postgres},
};

/// More runs than there are connections.
const MANY: usize = 20;

fn host(database: &Database) -> Host {
    let mut host = Host::new();
    host.database = Some(database.url().parse().unwrap());
    host
}

async fn with(pool: &Pool, statement: &str, parameters: Value) -> Value {
    let order = json!({"do": "sql-run", "statements": [statement], "parameters": parameters});
    reply(pool, order).await[0].clone()
}

#[tokio::test]
async fn values_fit_the_types_of_the_columns() {
    let bench = Bench::postgresql();
    let pool = bench.host.faulty(|_| ()).await;
    let table = "CREATE TABLE t (a smallint, b integer, c bigint, d boolean, e real, \
         f double precision, g numeric(20, 4), h text, i varchar(5), j uuid, k json, l jsonb, \
         m timestamptz, n timestamp, o date, p time, q bytea)";
    rows(&pool, &[table]).await;
    let uuid = "67e55044-10b1-426f-9247-bb680e5fe0c8";
    let given = json!([
        1, 2, 3, true, 0.5, 0.25, "12.3456", "words", "five5", uuid, "{\"k\":1}", "{\"l\":2}",
        "2026-11-22T01:02:03.5+01:00", "2026-11-22 01:02:03", "2026-11-22", "01:02:03",
        {"blob": [0, 255]}
    ]);
    let places: Vec<_> = (1..=17).map(|n| format!("${n}")).collect();
    let insert = format!("INSERT INTO t VALUES ({}) RETURNING *", places.join(", "));
    let stored = with(&pool, &insert, given).await;
    let expected = json!([[
        1,
        2,
        3,
        true,
        "Value::Real(0.5)",
        "Value::Real(0.25)",
        "12.3456",
        "words",
        "five5",
        uuid,
        "{\"k\":1}",
        "{\"l\": 2}",
        "2026-11-22T00:02:03.5Z",
        "2026-11-22T01:02:03",
        "2026-11-22",
        "01:02:03",
        "Value::Blob([0, 255])"
    ]]);
    assert_eq!(stored["rows"], expected, "{stored}");
    // What came back fits there again.
    let back = stored["rows"][0].clone();
    let back = json!([
        back[0], back[1], back[2], back[3], 0.5, 0.25, back[6], back[7], back[8], back[9],
        back[10], back[11], back[12], back[13], back[14], back[15], {"blob": [0, 255]}
    ]);
    assert_eq!(with(&pool, &insert, back).await["rows"], expected);
    let nulls = with(&pool, &insert, json!(vec![Value::Null; 17])).await;
    assert_eq!(nulls["rows"], json!([vec![Value::Null; 17]]));
    let found = "SELECT count(*) FROM t WHERE j = $1 AND l @> $2 AND m < $3 AND l ? 'l'";
    let found = with(
        &pool,
        found,
        json!([uuid, "{\"l\": 2}", "2027-01-01T00:00:00Z"]),
    )
    .await;
    assert_eq!(found["rows"], json!([[2]]), "{found}");
}

#[tokio::test]
async fn a_value_that_does_not_fit_is_an_error_that_names_it() {
    let bench = Bench::postgresql();
    let pool = bench.host.faulty(|_| ()).await;
    rows(
        &pool,
        &["CREATE TABLE t (a smallint, j uuid, m timestamptz, i varchar(3), v interval)"],
    )
    .await;
    for (column, value, says) in [
        ("a", json!(70_000), "70000, which is no int2"),
        ("a", json!("x"), "no int2"),
        ("j", json!("x"), "no uuid"),
        ("j", json!(7), "integer 7, which is no uuid"),
        ("m", json!("2026-11-22T00:00:00"), "2000-12-31T23:59:59Z"),
        ("i", json!("four"), "too long"),
        ("i", json!("a\0b"), "0x00"),
        ("v", json!("1 day"), "CAST(CAST($n AS text) AS interval)"),
    ] {
        let insert = format!("INSERT INTO t ({column}) VALUES ($1)");
        is_error(&with(&pool, &insert, json!([value])).await, "invalid", says);
    }
    fails(
        &pool,
        &["SELECT interval '1 day' AS long"],
        "invalid",
        "CAST(long AS text)",
    )
    .await;
    let cast = "SELECT CAST(CAST(CAST($1 AS text) AS interval) AS text)";
    assert_eq!(
        with(&pool, cast, json!(["1 day"])).await["rows"],
        json!([["1 day"]])
    );
    let old = "SELECT timestamp '0044-03-15 BC' AS old";
    fails(&pool, &[old], "invalid", "`old` holds a date outside").await;
    is_error(
        &with(&pool, "SELECT ?", json!([1])).await,
        "invalid",
        "$1, $2",
    );
}

#[tokio::test]
async fn types_of_the_users_own_are_texts_where_they_can() {
    let bench = Bench::postgresql();
    let pool = bench.host.faulty(|_| ()).await;
    let tables = [
        "CREATE TYPE mood AS ENUM ('good', 'bad')",
        "CREATE DOMAIN short AS varchar(3)",
        "CREATE TABLE t (m mood, s short)",
    ];
    rows(&pool, &tables).await;
    let insert = "INSERT INTO t VALUES ($1, $2) RETURNING m, s";
    assert_eq!(
        with(&pool, insert, json!(["bad", "abc"])).await["rows"],
        json!([["bad", "abc"]])
    );
    is_error(
        &with(&pool, insert, json!(["ugly", "abc"])).await,
        "invalid",
        "mood",
    );
}

#[tokio::test]
async fn a_statement_that_fails_is_told_again_when_its_transaction_is_committed() {
    let bench = Bench::postgresql();
    let pool = bench.host.faulty(|_| ()).await;
    rows(
        &pool,
        &[
            "CREATE TABLE t (n integer UNIQUE)",
            "INSERT INTO t VALUES (1)",
        ],
    )
    .await;
    let transaction = async |statements: &[&str]| {
        let order = json!({"do": "sql-transaction", "statements": statements});
        reply(&pool, order).await
    };
    let insert = [
        "INSERT INTO t VALUES (2)",
        "INSERT INTO t VALUES (1)",
        "SELECT 1",
    ];
    let answers = transaction(&insert).await;
    for answer in &answers.as_array().unwrap()[1..] {
        is_error(answer, "constraint", "t_n_key");
    }
    // With a savepoint the transaction goes on.
    let answers = transaction(&[
        "SAVEPOINT before",
        "INSERT INTO t VALUES (1)",
        "ROLLBACK TO SAVEPOINT before",
        "INSERT INTO t VALUES (3)",
    ])
    .await;
    assert_eq!(answers[4], "committed", "{answers}");
    // One that the guest has ended by a statement is not taken for committed.
    let answers = transaction(&["INSERT INTO t VALUES (4)", "ROLLBACK"]).await;
    is_error(&answers[2], "invalid", "");
    assert_eq!(
        rows(&pool, &["SELECT n FROM t ORDER BY n"]).await,
        json!([[1], [3]])
    );
}

#[tokio::test]
async fn nothing_of_a_run_is_left_on_its_connection() {
    let bench = Bench::postgresql();
    let database = bench.host.database.clone().unwrap().to_string();
    assert!(database.contains("127.0.0.1"), "{database}");
    let pool = bench.host.faulty(|_| ()).await;
    let before = [
        "CREATE TABLE t (n integer)",
        "CREATE ROLE other NOLOGIN",
        "GRANT ALL ON t TO other",
    ];
    let answers = run(&pool, &before).await;
    assert_eq!(answers[0].get("error"), None, "{answers:?}");
    for statements in [
        &["SET search_path = nowhere", "SET statement_timeout = 1"][..],
        &["SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"],
        &["SET ROLE other"],
        &["SET SESSION AUTHORIZATION other"],
        &["CREATE TEMP TABLE t (other text)"],
        &["LISTEN news"],
        &["SELECT pg_advisory_lock(7)"],
        &["SELECT n FROM t", "DEALLOCATE ALL"],
        &["DISCARD ALL"],
        &[
            "PREPARE sqlx_s_1 AS SELECT 'mine'",
            "PREPARE sqlx_s_2 AS SELECT 'mine'",
        ],
        &["DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; EXECUTE 'PREPARE sqlx_s_1 AS SELECT 7'; END $$"],
        &["DECLARE c CURSOR WITH HOLD FOR SELECT 1"],
        &["COPY t FROM STDIN"],
        &["COPY t TO STDOUT"],
        &["BEGIN", "INSERT INTO t VALUES (1)"],
        &["SAVEPOINT s"],
        &["COMMIT"],
    ] {
        for _ in 0..MANY {
            run(&pool, statements).await;
        }
        let after = [
            "SELECT n FROM t",
            "INSERT INTO t SELECT 1 WHERE false",
            "SELECT current_user::text, session_user::text, current_setting('search_path'), \
             current_setting('statement_timeout'), \
             (SELECT count(*) FROM pg_prepared_statements WHERE from_sql), \
             (SELECT count(*) FROM pg_cursors WHERE is_holdable), \
             (SELECT count(*) FROM pg_listening_channels()), \
             (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()), \
             current_setting('transaction_read_only')",
        ];
        for _ in 0..MANY {
            let found = rows(&pool, &after).await;
            let expected = json!([[
                "postgres",
                "postgres",
                "\"$user\", public",
                "10s",
                0,
                0,
                0,
                0,
                "off"
            ]]);
            assert_eq!(found, expected, "after {statements:?}");
        }
    }
}

#[tokio::test]
async fn a_run_that_is_stopped_leaves_no_statement_at_work() {
    let database = Database::new();
    let host = host(&database);
    let hasty = host.faulty(|w| w.limits.deadline = SHORT).await;
    let at_work = || {
        let statement = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND state <> 'idle' \
             AND pid <> pg_backend_pid()",
            database.name()
        );
        database.sql(&statement)
    };
    let run = tokio::spawn(async move {
        order(&hasty, json!({"do": "sql-run", "statements": [ENDLESS]})).await
    });
    let begun = Instant::now();
    while at_work() != "1" {
        assert!(begun.elapsed() < Duration::from_secs(10), "it never began");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    run.await.unwrap();
    let stopped = Instant::now();
    while at_work() != "0" {
        assert!(stopped.elapsed() < Duration::from_secs(5), "it goes on");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn what_the_role_may_not_do_is_denied() {
    let database = Database::new();
    let (name, role) = (database.name(), format!("role_{}", database.name()));
    let made = format!(
        "DROP ROLE IF EXISTS {role}; CREATE ROLE {role} LOGIN; CREATE TABLE hidden (n integer); \
         GRANT CONNECT ON DATABASE {name} TO {role}"
    );
    assert_eq!(database.sql(&made), "");
    let mut host = host(&database);
    let url = database.url().replacen("postgres@", &format!("{role}@"), 1);
    host.database = Some(url.parse().unwrap());
    let pool = host.faulty(|_| ()).await;
    for statement in [
        "SELECT n FROM hidden",
        "COPY (SELECT 1) TO PROGRAM 'true'",
        "SELECT pg_read_file('/etc/passwd')",
        "CREATE ROLE another",
        "SET ROLE postgres",
    ] {
        fails(&pool, &[statement], "denied", "").await;
    }
}

#[tokio::test]
async fn a_server_that_is_restarted_is_missed_and_found_again() {
    let mut server = Postgres::start();
    let database = Database::on(&server.url());
    let host = host(&database);
    let pool = host.faulty(|_| ()).await;
    rows(&pool, &["CREATE TABLE t (n integer)"]).await;
    server.stop();
    let begun = Instant::now();
    fails(&pool, &["SELECT n FROM t"], "unavailable", "no connection").await;
    assert!(
        begun.elapsed() < Duration::from_secs(8),
        "{:?}",
        begun.elapsed()
    );
    server.start_again();
    assert_eq!(rows(&pool, &["SELECT n FROM t"]).await, json!([]));
    // One that ends in the middle of a run costs the run its transaction, and nobody else anything.
    let end = "SELECT pg_terminate_backend(pg_backend_pid())";
    let order = json!({"do": "sql-transaction", "statements": ["INSERT INTO t VALUES (1)", end]});
    let answers = reply(&pool, order).await;
    is_error(&answers[1], "unavailable", "");
    is_error(&answers[2], "invalid", "over");
    assert_eq!(rows(&pool, &["SELECT n FROM t"]).await, json!([]));
}

fn pem(what: &str, der: &[u8]) -> String {
    let content = BASE64_STANDARD.encode(der);
    let lines: Vec<_> = content
        .as_bytes()
        .chunks(64)
        .map(String::from_utf8_lossy)
        .collect();
    let lines = lines.join("\n");
    format!("-----BEGIN {what}-----\n{lines}\n-----END {what}-----\n")
}

#[tokio::test]
async fn the_certificate_of_a_server_is_checked() {
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let mut server = Postgres::start();
    server.stop();
    server.give_certificate(
        &pem("CERTIFICATE", own.cert.der()),
        &pem("PRIVATE KEY", &own.signing_key.serialize_der()),
    );
    server.start_again();
    let database = Database::on(&server.url());
    let mut host = host(&database);
    let authority = host.folder.path().join("authority.pem");
    std::fs::write(&authority, pem("CERTIFICATE", own.cert.der())).unwrap();
    let authority = authority.to_str().unwrap().to_owned();
    let by_name = database.url().replacen("127.0.0.1", "localhost", 1);
    let encrypted = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";

    let mut at = async |url: String| {
        host.database = Some(url.parse().unwrap());
        host.faulty(|_| ()).await
    };
    let checked = format!("{by_name}?sslmode=verify-full&sslrootcert={authority}");
    let pool = at(checked).await;
    assert_eq!(rows(&pool, &[encrypted]).await, json!([[true]]));
    // Nobody vouches for it.
    let pool = at(format!("{by_name}?sslmode=verify-full")).await;
    fails(&pool, &[encrypted], "unavailable", "certificate").await;
    // It is another's.
    let (url, options) = (database.url(), "sslmode=verify-full&sslrootcert");
    let pool = at(format!("{url}?{options}={authority}")).await;
    fails(&pool, &[encrypted], "unavailable", "certificate").await;
}

#[tokio::test]
async fn an_address_at_which_nobody_is_keeps_its_password() {
    let mut host = Host::new();
    host.database = Some("postgres://u:s3cret@127.0.0.1:1/d".parse().unwrap());
    let pool = host.faulty(|_| ()).await;
    let answers = run(&pool, &["SELECT 1"]).await;
    is_error(&answers[0], "unavailable", "no connection");
    let shown = format!("{answers:?} {:?} {:?}", host.databases, host.database);
    assert!(!shown.contains("s3cret"), "{shown}");
    let database = Database::new();
    let elsewhere = database.url().replace(database.name(), "nowhere");
    host.database = Some(elsewhere.parse().unwrap());
    let pool = host.faulty(|_| ()).await;
    fails(&pool, &["SELECT 1"], "unavailable", "nowhere").await;
}

#[tokio::test]
async fn tables_that_change_in_another_run_spoil_no_prepared_statement() {
    let bench = Bench::postgresql();
    let pool = bench.host.faulty(|_| ()).await;
    rows(
        &pool,
        &["CREATE TABLE t (n integer)", "INSERT INTO t VALUES (1)"],
    )
    .await;
    let other = bench.host.faulty(|_| ()).await;
    let select = "SELECT * FROM t";
    let insert = "INSERT INTO t (n) VALUES ($1)";
    for statement in [
        "ALTER TABLE t ADD COLUMN m integer",
        "ALTER TABLE t ALTER COLUMN n TYPE text USING n::text",
        "ALTER TABLE t ALTER COLUMN n TYPE bigint USING n::bigint",
        "ALTER TABLE t RENAME COLUMN m TO k",
    ] {
        for _ in 0..3 {
            rows(&pool, &[select]).await;
            with(&pool, insert, json!([2])).await;
        }
        rows(&other, &[statement]).await;
        for _ in 0..3 {
            rows(&pool, &[select]).await;
            let inserted = with(&pool, insert, json!([2])).await;
            assert_eq!(inserted.get("error"), None, "after {statement}: {inserted}");
        }
    }
}

#[tokio::test]
async fn two_that_create_the_same_table_at_once_are_in_conflict_at_most() {
    let bench = Bench::postgresql();
    let pool = bench.host.faulty(|_| ()).await;
    for n in 0..10 {
        let create = format!("CREATE TABLE IF NOT EXISTS t{n} (n integer)");
        let statements = [create.as_str()];
        let all = tokio::join!(
            run(&pool, &statements),
            run(&pool, &statements),
            run(&pool, &statements),
            run(&pool, &statements)
        );
        for answers in [all.0, all.1, all.2, all.3] {
            let error = answers[0].get("error").and_then(Value::as_str);
            assert!(matches!(error, None | Some("conflict")), "{answers:?}");
        }
    }
}
