//! Connections to one file, without a guest: where statements run, and what is left when nobody waits
//! for them any more.

use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::*;

/// Soon, on a busy machine; much less than a lock may take.
const SOON: Duration = Duration::from_secs(2);
/// Works for hours.
const ENDLESS: &str =
    "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT (n + 1) % 1000 FROM r) SELECT n FROM r";
const CREATE: &str = "CREATE TABLE IF NOT EXISTS t (n INTEGER)";

struct File {
    database: Database,
    folder: TempDir,
}

impl File {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = Self {
            database: Database::new(&folder.path().join("x.sqlite"), 1 << 30),
            folder,
        };
        file.connection().await.execute_now(CREATE).await.unwrap();
        file
    }

    async fn connection(&self) -> Connection {
        Connection::acquire(&self.database).await.unwrap()
    }

    /// The connections of another process.
    fn other(&self) -> Database {
        Database::new(&self.folder.path().join("x.sqlite"), 1 << 30)
    }

    /// The numbers in `t`, as everybody sees them.
    async fn numbers(&self) -> Vec<Vec<Value>> {
        let mut connection = self.connection().await;
        let rows = connection.query_now("SELECT n FROM t ORDER BY n").await;
        rows.unwrap().rows
    }

    async fn n_numbers(&self) -> String {
        let mut connection = self.connection().await;
        let rows = connection.query_now("SELECT count(*) FROM t").await;
        format!("{:?}", rows.unwrap().rows)
    }

    /// Checks that somebody may write soon, on every connection there is.
    async fn may_write(&self) {
        let mut all = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            all.push(timeout(SOON, self.connection()).await.unwrap());
        }
        for connection in &mut all {
            for control in [Control::Begin, Control::RollBack] {
                let bounds = bounds();
                let done = timeout(SOON, connection.control(control, &bounds));
                done.await.unwrap().unwrap();
            }
        }
    }
}

impl Connection {
    async fn query_now(&mut self, text: &str) -> Result<Rows, Failure> {
        self.query(text.to_owned(), Vec::new(), &bounds()).await
    }

    async fn execute_now(&mut self, text: &str) -> Result<u64, Failure> {
        self.execute(text.to_owned(), Vec::new(), &bounds()).await
    }

    /// What comes of a query on the thread that asks.
    fn here(&self, text: &str) -> Option<Rows> {
        let lease = self.lease.as_ref().unwrap();
        lease
            .here(|connection, watch| statement::read_here(connection, watch, text, &[], &bounds()))
    }
}

fn bounds() -> Bounds {
    let end = Instant::now() + Duration::from_secs(20);
    Bounds {
        most_rows: 10,
        most_bytes: 1 << 20,
        statement_end: end,
        deadline: end,
        cancelled: CancellationToken::new(),
    }
}

fn one(number: i64) -> Vec<Vec<Value>> {
    vec![vec![Value::Integer(number)]]
}

/// Compares without `PartialEq`, which the bindings do not have.
#[track_caller]
fn same(left: &[Vec<Value>], right: &[Vec<Value>]) {
    assert_eq!(format!("{left:?}"), format!("{right:?}"));
}

#[tokio::test]
async fn a_short_read_is_done_here_and_a_long_one_is_done_all_the_same() {
    let file = File::new().await;
    let mut connection = file.connection().await;
    connection
        .execute_now("INSERT INTO t VALUES (7)")
        .await
        .unwrap();
    assert!(connection.here("SELECT n FROM t").is_none());
    connection.query_now("SELECT n FROM t").await.unwrap();
    same(&connection.here("SELECT n FROM t").unwrap().rows, &one(7));
    let long = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r LIMIT 300000) \
                SELECT sum(n) FROM r";
    for _ in 0..2 {
        let begun = Instant::now();
        assert!(connection.here(long).is_none());
        assert!(begun.elapsed() < Duration::from_millis(200));
        let rows = connection.query_now(long).await.unwrap();
        same(&rows.rows, &one(45_000_150_000));
    }
    // It is not interrupted by the budget of the one before.
    same(&connection.here("SELECT n FROM t").unwrap().rows, &one(7));
}

#[tokio::test]
async fn what_may_take_long_in_one_step_is_not_done_here() {
    let file = File::new().await;
    let mut connection = file.connection().await;
    connection
        .execute_now("CREATE VIEW v AS SELECT 1")
        .await
        .unwrap();
    for text in [
        "SELECT count(*) FROM t",
        "SELECT instr('ab', 'b')",
        "SELECT 'ab' LIKE '%b'",
        "SELECT * FROM v",
        "SELECT value FROM json_each('[1]')",
        "SELECT name FROM pragma_table_list",
        "PRAGMA table_list",
        "SELECT strftime('%V', 0)",
        "BEGIN",
        "COMMIT",
        "SAVEPOINT s",
        "INSERT INTO t VALUES (1) RETURNING n",
        "SELECT 1; SELECT 2",
        "-- nothing",
        "",
    ] {
        assert!(connection.here(text).is_none(), "{text}");
        // Nor when it was prepared for elsewhere.
        let _ = connection.query_now(text).await;
        assert!(connection.here(text).is_none(), "{text}, once more");
    }
    let large = "SELECT zeroblob(200000)";
    for _ in 0..2 {
        assert!(connection.here(large).is_none());
        assert_eq!(connection.query_now(large).await.unwrap().rows.len(), 1);
    }
}

/// Preparing has no bound: what has not been prepared elsewhere, as it is now, is not done here.
#[tokio::test]
async fn nothing_is_prepared_here() {
    let file = File::new().await;
    let mut connection = file.connection().await;
    let mut other = Connection::acquire(&file.other()).await.unwrap();
    let (mut undone, undo) = (file.connection().await, Control::RollBack);
    for text in [
        "CREATE TABLE u (x)",
        "ANALYZE",
        "DROP TABLE u",
        "PRAGMA user_version = 3",
        "INSERT INTO nowhere VALUES (1)",
    ] {
        connection.query_now("SELECT n FROM t").await.unwrap();
        assert!(connection.here("SELECT n FROM t").is_some(), "{text}");
        let _ = connection.execute_now(text).await;
        assert!(connection.here("SELECT n FROM t").is_none(), "{text}");
    }
    connection.query_now("SELECT n FROM t").await.unwrap();
    other.execute_now("CREATE TABLE v (x)").await.unwrap();
    assert!(connection.here("SELECT n FROM t").is_none());
    // What a transaction has changed and undone.
    undone.query_now("SELECT n FROM t").await.unwrap();
    undone.control(Control::Begin, &bounds()).await.unwrap();
    undone.execute_now("CREATE TABLE w (x)").await.unwrap();
    undone.query_now("SELECT n FROM t").await.unwrap();
    assert!(undone.here("SELECT n FROM t").is_none());
    undone.control(undo, &bounds()).await.unwrap();
    assert!(undone.here("SELECT n FROM t").is_none());
    // More than a connection keeps.
    connection.query_now("SELECT n FROM t").await.unwrap();
    for number in 0..40 {
        let text = format!("SELECT {number}");
        connection.query_now(&text).await.unwrap();
        assert!(connection.here(&text).is_some(), "{text}");
    }
    assert!(connection.here("SELECT n FROM t").is_none());
}

/// Nobody is asked about the functions in them.
#[tokio::test]
async fn where_columns_are_computed_nothing_is_read_here() {
    let file = File::new().await;
    let mut connection = file.connection().await;
    for (column, is_read_here) in [("", true), (", m AS (instr(n, 7))", false)] {
        let create = format!("CREATE TABLE IF NOT EXISTS c{} (n{column})", column.len());
        connection.execute_now(&create).await.unwrap();
        for _ in 0..2 {
            connection.query_now("SELECT n FROM t").await.unwrap();
        }
        let here = connection.here("SELECT n FROM t");
        assert_eq!(here.is_some(), is_read_here, "{column}");
    }
}

/// Each nests a little, all of them together far more than the stack of a run has.
#[test]
fn what_nests_through_the_schema_does_not_overflow_the_stack() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_stack_size(crate::THREAD_STACK_BYTES)
        .enable_all()
        .build()
        .unwrap();
    let deep = |of: &str| format!("{of}{}", "+1".repeat(91));
    let task = runtime.spawn(async move {
        let file = File::new().await;
        let mut connection = file.connection().await;
        let columns: Vec<_> = (1..61)
            .map(|n| format!("c{n} AS ({})", deep(&format!("c{}", n - 1))))
            .collect();
        let create = format!("CREATE TABLE g (c0, {})", columns.join(", "));
        connection.execute_now(&create).await.unwrap();
        connection
            .execute_now("INSERT INTO g (c0) VALUES (1)")
            .await
            .unwrap();
        let rows = connection.query_now("SELECT c60 FROM g").await.unwrap();
        same(&rows.rows, &one(1 + 60 * 91));
        // It doubles with each: refused, and not tried for minutes.
        let columns: Vec<_> = (1..60)
            .map(|n| format!("d{n} AS (d{0} + d{0})", n - 1))
            .collect();
        let create = format!("CREATE TABLE h (d0, {})", columns.join(", "));
        let refused = connection.execute_now(&create).await;
        let Err(Failure::Told(Error::Invalid(says))) = &refused else {
            panic!("{refused:?}");
        };
        assert!(
            says.contains("more of SQLite's instructions than are allowed (at most 250000)"),
            "{says}"
        );
        connection
            .execute_now("CREATE VIEW v0 AS SELECT 1 AS x")
            .await
            .unwrap();
        connection.control(Control::Begin, &bounds()).await.unwrap();
        for n in 1..1000 {
            let inner = format!("(SELECT x FROM v{})", n - 1);
            let create = format!("CREATE VIEW v{n} AS SELECT {} AS x", deep(&inner));
            connection.execute_now(&create).await.unwrap();
        }
        connection
            .control(Control::Commit, &bounds())
            .await
            .unwrap();
        // Whether SQLite takes them is its own affair.
        for n in [10, 100, 300, 999] {
            let _ = connection.query_now(&format!("SELECT x FROM v{n}")).await;
        }
        assert_eq!(file.numbers().await.len(), 0);
    });
    runtime.block_on(task).unwrap();
}

#[tokio::test]
async fn a_text_of_many_short_statements_ends_with_its_time() {
    let file = File::new().await;
    let mut connection = file.connection().await;
    let text = "INSERT INTO t VALUES (1);".repeat(3900);
    let mut soon = bounds();
    soon.statement_end = Instant::now() + Duration::from_millis(50);
    let ended = connection.execute(text.clone(), Vec::new(), &soon).await;
    assert!(matches!(ended, Err(Failure::Stopped)), "{ended:?}");
    // Nor does one go on that nobody waits for.
    let soon = Duration::from_millis(50);
    timeout(soon, connection.execute_now(&text))
        .await
        .unwrap_err();
    file.may_write().await;
    let n_done = file.n_numbers().await;
    tokio::time::sleep(soon).await;
    assert_eq!(file.n_numbers().await, n_done);
}

#[tokio::test]
async fn what_is_over_before_it_begins_does_nothing() {
    let file = File::new().await;
    let mut connection = file.connection().await;
    let over = bounds();
    over.cancelled.cancel();
    let text = "INSERT INTO t VALUES (1)".to_owned();
    let ended = connection.execute(text, Vec::new(), &over).await;
    assert!(matches!(ended, Err(Failure::Stopped)), "{ended:?}");
    // The connection is as good as before.
    connection
        .execute_now("INSERT INTO t VALUES (2)")
        .await
        .unwrap();
    same(&file.numbers().await, &one(2));
}

#[tokio::test]
async fn who_reads_does_not_wait_for_who_writes() {
    let file = File::new().await;
    let (mut writer, mut reader) = (file.connection().await, file.connection().await);
    for connection in [&mut writer, &mut reader] {
        connection.query_now("SELECT n FROM t").await.unwrap();
    }
    writer.control(Control::Begin, &bounds()).await.unwrap();
    writer
        .execute_now("INSERT INTO t VALUES (1)")
        .await
        .unwrap();
    same(&reader.here("SELECT n FROM t").unwrap().rows, &[]);
    same(&writer.here("SELECT n FROM t").unwrap().rows, &one(1));
    writer.control(Control::Commit, &bounds()).await.unwrap();
    same(&reader.here("SELECT n FROM t").unwrap().rows, &one(1));
}

#[tokio::test]
async fn who_is_stopped_does_not_wait_for_a_lock() {
    let file = File::new().await;
    let mut writer = file.connection().await;
    writer.control(Control::Begin, &bounds()).await.unwrap();
    let mut waiting = file.connection().await;
    let bounds = bounds();
    let stop = bounds.cancelled.clone();
    let stopped = tokio::join!(waiting.control(Control::Begin, &bounds), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        stop.cancel();
        Instant::now()
    });
    stopped.0.unwrap_err();
    assert!(stopped.1.elapsed() < SOON);
}

#[tokio::test]
async fn a_write_that_nobody_waits_for_leaves_nothing() {
    let file = File::new().await;
    let soon = Duration::from_millis(50);
    // It works.
    let mut worker = file.connection().await;
    let endless = format!("INSERT INTO t {ENDLESS}");
    timeout(soon, worker.execute_now(&endless))
        .await
        .unwrap_err();
    file.may_write().await;
    // The run would go on: it has no connection any more.
    let gone = worker.execute_now("INSERT INTO t VALUES (1)").await;
    assert!(matches!(gone, Err(Failure::Lost(_))), "{gone:?}");
    // It waits for another one, in a transaction or outside.
    let mut writer = file.connection().await;
    writer.control(Control::Begin, &bounds()).await.unwrap();
    for text in ["INSERT INTO t VALUES (2)", "BEGIN IMMEDIATE"] {
        let mut waiting = file.connection().await;
        timeout(soon, waiting.execute_now(text)).await.unwrap_err();
    }
    drop(writer);
    file.may_write().await;
    same(&file.numbers().await, &[]);
}

#[tokio::test]
async fn a_transaction_that_is_left_is_rolled_back_before_the_connection_is_used_again() {
    let file = File::new().await;
    for _ in 0..20 {
        let mut left = file.connection().await;
        left.control(Control::Begin, &bounds()).await.unwrap();
        left.execute_now("INSERT INTO t VALUES (1)").await.unwrap();
    }
    file.may_write().await;
    same(&file.numbers().await, &[]);
}

#[tokio::test]
async fn a_statement_that_is_kept_sees_what_others_do_to_its_tables() {
    const SELECT: &str = "SELECT * FROM t";
    let file = File::new().await;
    let (mut ours, other) = (file.connection().await, file.other());
    let mut other = Connection::acquire(&other).await.unwrap();
    assert_eq!(ours.query_now(SELECT).await.unwrap().columns, ["n"]);
    other
        .execute_now("ALTER TABLE t ADD COLUMN m DEFAULT 3")
        .await
        .unwrap();
    assert_eq!(ours.query_now(SELECT).await.unwrap().columns, ["n", "m"]);
    other
        .execute_now("INSERT INTO t (n) VALUES (1)")
        .await
        .unwrap();
    let rows = ours.query_now(SELECT).await.unwrap();
    same(&rows.rows, &[vec![Value::Integer(1), Value::Integer(3)]]);
    let again = "DROP TABLE t; CREATE TABLE IF NOT EXISTS u (x)";
    other.execute_now(again).await.unwrap();
    other.execute_now("CREATE TABLE t (x)").await.unwrap();
    other.execute_now("INSERT INTO t VALUES (8)").await.unwrap();
    let rows = ours.query_now(SELECT).await.unwrap();
    assert_eq!(rows.columns, ["x"]);
    same(&rows.rows, &one(8));
}

#[tokio::test]
async fn what_was_dropped_is_created_again() {
    let file = File::new().await;
    let (mut ours, other) = (file.connection().await, file.other());
    let mut other = Connection::acquire(&other).await.unwrap();
    for _ in 0..3 {
        for _ in 0..3 {
            assert_eq!(ours.execute_now(CREATE).await.unwrap(), 0);
        }
        assert!(ours.is_created(CREATE));
        ours.execute_now("INSERT INTO t VALUES (1)").await.unwrap();
        other.execute_now("DROP TABLE t").await.unwrap();
        assert!(!ours.is_created(CREATE));
    }
    // Not from within a transaction, whose changes may come to nothing.
    ours.control(Control::Begin, &bounds()).await.unwrap();
    for _ in 0..3 {
        ours.execute_now(CREATE).await.unwrap();
    }
    ours.control(Control::RollBack, &bounds()).await.unwrap();
    assert!(!ours.is_created(CREATE));
    ours.execute_now(CREATE).await.unwrap();
    same(&file.numbers().await, &[]);
}

#[tokio::test]
async fn only_what_changes_rows_says_how_many() {
    let file = File::new().await;
    let mut connection = file.connection().await;
    for (text, n_changed) in [
        ("INSERT INTO t VALUES (1), (2), (3)", 3),
        ("CREATE TABLE u (n)", 0),
        ("SELECT n FROM t", 0),
        ("UPDATE t SET n = 0 WHERE n > 1", 2),
        ("DELETE FROM t WHERE n = 7", 0),
        ("INSERT INTO u VALUES (1); DELETE FROM t WHERE n = 0", 3),
        ("DROP TABLE u", 0),
        ("", 0),
    ] {
        let done = connection.execute_now(text).await.unwrap();
        assert_eq!(done, n_changed, "{text}");
    }
}

#[tokio::test]
async fn of_several_statements_none_runs_unless_all_are_right() {
    let file = File::new().await;
    let mut connection = file.connection().await;
    connection
        .execute_now("INSERT INTO t VALUES (1); INSERT INTO nowhere VALUES (1)")
        .await
        .unwrap_err();
    same(&file.numbers().await, &[]);
    let values = || vec![Value::Integer(1), Value::Integer(2)];
    let text = "INSERT INTO t VALUES (?); SELECT n, ? AS second FROM t".to_owned();
    let rows = connection.query(text, values(), &bounds()).await.unwrap();
    assert_eq!(rows.columns, ["n", "second"]);
    same(&rows.rows, &[values()]);
}

#[test]
fn only_short_statements_stay_prepared() {
    let long = format!("SELECT {} 1", "1, ".repeat(1000));
    for (text, kept) in [
        (" SELECT 1 ; \n", Some("SELECT 1")),
        ("SELECT 1; SELECT 2", None),
        ("SELECT ';'", None),
        ("-- SELECT 1", None),
        (";", None),
        (long.as_str(), None),
    ] {
        assert_eq!(statement::kept(text), kept, "{text}");
    }
}

#[tokio::test]
async fn closing_folds_the_log_into_the_file_and_waits_for_who_is_at_work() {
    let file = File::new().await;
    let log = file.folder.path().join("x.sqlite-wal");
    let mut at_work = file.connection().await;
    let closing = file.database.close();
    let work = async {
        at_work
            .execute_now("INSERT INTO t VALUES (1)")
            .await
            .unwrap();
        assert!(log.exists());
        drop(at_work);
    };
    tokio::join!(closing, work);
    let begun = Instant::now();
    while log.exists() {
        assert!(begun.elapsed() < SOON);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let refused = Connection::acquire(&file.database).await.err().unwrap();
    let is_told = matches!(&refused, Failure::Told(Error::Unavailable(_)));
    assert!(is_told, "{refused:?}");
}
