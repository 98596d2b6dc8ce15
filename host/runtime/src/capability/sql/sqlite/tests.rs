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
    same(&connection.here("SELECT n FROM t").unwrap().rows, &one(7));
    let long = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r LIMIT 300000) \
                SELECT sum(n) FROM r";
    let begun = Instant::now();
    assert!(connection.here(long).is_none());
    assert!(begun.elapsed() < Duration::from_millis(200));
    let rows = connection.query_now(long).await.unwrap();
    same(&rows.rows, &one(45_000_150_000));
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
    assert!(connection.here(large).is_none());
    assert_eq!(connection.query_now(large).await.unwrap().rows.len(), 1);
}

#[tokio::test]
async fn who_reads_does_not_wait_for_who_writes() {
    let file = File::new().await;
    let mut writer = file.connection().await;
    writer.control(Control::Begin, &bounds()).await.unwrap();
    writer
        .execute_now("INSERT INTO t VALUES (1)")
        .await
        .unwrap();
    let reader = file.connection().await;
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
    let (ours, other) = (file.connection().await, file.other());
    let mut other = Connection::acquire(&other).await.unwrap();
    let columns = || ours.here(SELECT).unwrap().columns;
    assert_eq!(columns(), ["n"]);
    other
        .execute_now("ALTER TABLE t ADD COLUMN m DEFAULT 3")
        .await
        .unwrap();
    assert_eq!(columns(), ["n", "m"]);
    other
        .execute_now("INSERT INTO t (n) VALUES (1)")
        .await
        .unwrap();
    let rows = ours.here(SELECT).unwrap();
    same(&rows.rows, &[vec![Value::Integer(1), Value::Integer(3)]]);
    let again = "DROP TABLE t; CREATE TABLE IF NOT EXISTS u (x)";
    other.execute_now(again).await.unwrap();
    other.execute_now("CREATE TABLE t (x)").await.unwrap();
    other.execute_now("INSERT INTO t VALUES (8)").await.unwrap();
    let rows = ours.here(SELECT).unwrap();
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
