//! Transactions of one run: one at a time, and each handle stands for the one that it began.

use wasmtime::component::Resource;

use super::Control;
use crate::{
    bindings::warren::worker::sql::{Error, HostTransaction, Rows, Value},
    state::State,
};

/// The guest's handle to a transaction: its number among those of the run. A guest may keep it
/// when the transaction is over and another one has begun.
#[allow(unreachable_pub, reason = "the generated bindings name it in public")]
pub struct Transaction(u64);

/// Which transaction of a run is open on its connection.
#[derive(Debug, Default)]
pub(super) struct Transactions {
    n_begun: u64,
    open: Option<u64>,
}

impl Transactions {
    pub(super) fn is_any_open(&self) -> bool {
        self.open.is_some()
    }

    /// None is open any more.
    pub(super) fn forget(&mut self) {
        self.open = None;
    }

    fn begin(&mut self) -> Transaction {
        self.n_begun = self.n_begun.wrapping_add(1);
        self.open = Some(self.n_begun);
        Transaction(self.n_begun)
    }

    fn check(&self, transaction: &Transaction) -> Result<(), Error> {
        if self.open == Some(transaction.0) {
            Ok(())
        } else {
            Err(Error::Invalid("the transaction is over".to_owned()))
        }
    }
}

impl State {
    /// Whether this is the handle of the open transaction. The outer error is a handle that the
    /// guest made up.
    fn check(&self, handle: &Resource<Transaction>) -> wasmtime::Result<Result<(), Error>> {
        Ok(self.run.sql.transactions.check(self.table.get(handle)?))
    }

    /// Ends the open transaction. It is over whatever comes of that.
    async fn end(&mut self, control: Control) -> Result<(), Error> {
        self.run.sql.transactions.open = None;
        let ended = self.sql_control(control).await;
        if ended.is_err() {
            self.abandon().await;
        }
        ended
    }

    /// Ends the open transaction without its effects, if there is one.
    pub(super) async fn roll_back_open(&mut self) -> bool {
        let was_open = self.run.sql.transactions.open.take().is_some();
        if was_open {
            self.abandon().await;
        }
        was_open
    }

    /// SQLite keeps a transaction open that it cannot commit, and what the run executes next would
    /// be lost with it.
    async fn abandon(&mut self) {
        if self.run.sql.connection.is_some() && self.control_now(Control::RollBack).await.is_err() {
            // The database has rolled back by itself, or cannot: closing makes sure of it.
            self.sql_forget().await;
        }
    }
}

impl HostTransaction for State {
    async fn begin(&mut self) -> wasmtime::Result<Result<Resource<Transaction>, Error>> {
        if self.run.sql.transactions.is_any_open() {
            return Ok(Err(Error::Invalid(
                "a transaction is open already: commit or roll it back first".to_owned(),
            )));
        }
        if let Err(error) = self.sql_control(Control::Begin).await {
            return Ok(Err(error));
        }
        let transaction = self.run.sql.transactions.begin();
        Ok(Ok(self.table.push(transaction)?))
    }

    async fn query(
        &mut self,
        transaction: Resource<Transaction>,
        statement: String,
        parameters: Vec<Value>,
    ) -> wasmtime::Result<Result<Rows, Error>> {
        Ok(match self.check(&transaction)? {
            Ok(()) => self.sql_query(statement, parameters).await,
            Err(error) => Err(error),
        })
    }

    async fn execute(
        &mut self,
        transaction: Resource<Transaction>,
        statement: String,
        parameters: Vec<Value>,
    ) -> wasmtime::Result<Result<u64, Error>> {
        Ok(match self.check(&transaction)? {
            Ok(()) => self.sql_execute(statement, parameters).await,
            Err(error) => Err(error),
        })
    }

    async fn commit(
        &mut self,
        transaction: Resource<Transaction>,
    ) -> wasmtime::Result<Result<(), Error>> {
        Ok(match self.check(&transaction)? {
            Ok(()) => self.end(Control::Commit).await,
            Err(error) => Err(error),
        })
    }

    async fn rollback(
        &mut self,
        transaction: Resource<Transaction>,
    ) -> wasmtime::Result<Result<(), Error>> {
        Ok(match self.check(&transaction)? {
            Ok(()) => self.end(Control::RollBack).await,
            Err(error) => Err(error),
        })
    }

    async fn drop(&mut self, transaction: Resource<Transaction>) -> wasmtime::Result<()> {
        let transaction = self.table.delete(transaction)?;
        if self.run.sql.transactions.check(&transaction).is_ok() {
            // Nobody is left to be told, and a connection that cannot roll back is closed.
            let _ = self.end(Control::RollBack).await;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        sync::Arc,
        time::{Duration, Instant},
    };

    use futures_util::FutureExt;
    use prometheus::Registry;
    use tempfile::TempDir;
    use tokio_util::sync::CancellationToken;
    use warren_protocol::{CallError, Encoding, WorkerId, WorkerType};

    use super::*;
    use crate::{
        Call, Databases, GuestMetrics, InstanceMetrics, KeyValueStore, Limits, Occasion, Outgoing,
        Reach, Worker, bindings::warren::worker::sql, state::Run,
    };

    /// A worker whose runs do what a test says, without a guest.
    struct Fixture {
        worker: Arc<Worker>,
        _folder: TempDir,
    }

    impl Fixture {
        async fn new(tables: &[&str]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let call = |call: Call| {
                let address = call.slip.stops[0].as_str().to_owned();
                async move { Err(CallError::NoLiveWorker { address }) }.boxed()
            };
            let worker = Arc::new(Worker {
                id: WorkerId::draw(&WorkerType::new("FX").unwrap()),
                limits: Limits::default(),
                config: BTreeMap::new(),
                call: Arc::new(call),
                call_timeout: Duration::from_secs(1),
                metrics: Arc::new(GuestMetrics::new(Registry::new()).unwrap()),
                databases: Arc::new(Databases::new(folder.path().to_owned())),
                keyvalue: KeyValueStore::default(),
                reuse: None,
                instances: Arc::new(InstanceMetrics::new(&Registry::new()).unwrap()),
                reach: Reach::default(),
                outgoing: Arc::new(Outgoing::new(&Registry::new()).unwrap()),
            });
            let fixture = Self {
                worker,
                _folder: folder,
            };
            let mut run = fixture.run();
            for table in tables {
                execute(&mut run, table).await.unwrap();
            }
            fixture
        }

        fn run(&self) -> State {
            let occasion = Occasion {
                job_id: "J1".to_owned(),
                attempt: 1,
                correlation_id: None,
                trace_parent: None,
            };
            let now = Instant::now();
            let (deadline, stop) = (now + Duration::from_secs(20), CancellationToken::new());
            let run = Run::new(&self.worker, occasion, now, deadline, stop);
            State::new(self.worker.clone(), Encoding::Json, run)
        }

        /// The numbers in `t`, as the next run sees them.
        async fn numbers(&self) -> Vec<i64> {
            let statement = "SELECT n FROM t ORDER BY n".to_owned();
            let rows = sql::Host::query(&mut self.run(), statement, Vec::new()).await;
            let rows = rows.unwrap().unwrap().rows.into_iter().flatten();
            rows.map(|value| match value {
                Value::Integer(number) => number,
                other => panic!("{other:?}"),
            })
            .collect()
        }
    }

    /// Executes a statement outside of the handles.
    async fn execute(run: &mut State, statement: &str) -> Result<u64, Error> {
        sql::Host::execute(run, statement.to_owned(), Vec::new())
            .await
            .unwrap()
    }

    async fn begin(run: &mut State) -> Resource<Transaction> {
        HostTransaction::begin(run).await.unwrap().unwrap()
    }

    /// The handle once more: each call takes one.
    fn lend(handle: &Resource<Transaction>) -> Resource<Transaction> {
        Resource::new_borrow(handle.rep())
    }

    async fn insert(
        run: &mut State,
        handle: &Resource<Transaction>,
        number: i64,
    ) -> Result<u64, Error> {
        let statement = "INSERT INTO t VALUES (?)".to_owned();
        HostTransaction::execute(run, lend(handle), statement, vec![Value::Integer(number)])
            .await
            .unwrap()
    }

    async fn commit(run: &mut State, handle: &Resource<Transaction>) -> Result<(), Error> {
        HostTransaction::commit(run, lend(handle)).await.unwrap()
    }

    #[track_caller]
    fn is_over<T: std::fmt::Debug>(result: Result<T, Error>) {
        assert!(
            matches!(&result, Err(Error::Invalid(text)) if text == "the transaction is over"),
            "{result:?}"
        );
    }

    #[tokio::test]
    async fn a_transaction_that_cannot_be_committed_is_over_and_the_run_goes_on() {
        let fixture = Fixture::new(&[
            "CREATE TABLE parents (id INTEGER PRIMARY KEY)",
            "CREATE TABLE t (n REFERENCES parents DEFERRABLE INITIALLY DEFERRED)",
        ])
        .await;
        let mut run = fixture.run();
        let orphan = begin(&mut run).await;
        insert(&mut run, &orphan, 1).await.unwrap();
        let refused = commit(&mut run, &orphan).await;
        assert!(matches!(refused, Err(Error::Constraint(_))), "{refused:?}");
        is_over(commit(&mut run, &orphan).await);
        execute(&mut run, "INSERT INTO parents VALUES (2)")
            .await
            .unwrap();
        execute(&mut run, "INSERT INTO t VALUES (2)").await.unwrap();
        // It commits by itself: others see it while the run goes on.
        assert_eq!(fixture.numbers().await, [2]);
        let next = begin(&mut run).await;
        insert(&mut run, &next, 2).await.unwrap();
        commit(&mut run, &next).await.unwrap();
        assert_eq!(fixture.numbers().await, [2, 2]);
    }

    #[tokio::test]
    async fn a_transaction_that_sqlite_has_ended_itself_leaves_the_run_a_good_connection() {
        let fixture = Fixture::new(&["CREATE TABLE t (n UNIQUE)"]).await;
        let mut run = fixture.run();
        let broken = begin(&mut run).await;
        insert(&mut run, &broken, 1).await.unwrap();
        let conflict = "INSERT OR ROLLBACK INTO t VALUES (1)".to_owned();
        let conflict = HostTransaction::execute(&mut run, lend(&broken), conflict, Vec::new());
        conflict.await.unwrap().unwrap_err();
        commit(&mut run, &broken).await.unwrap_err();
        execute(&mut run, "INSERT INTO t VALUES (2)").await.unwrap();
        assert_eq!(fixture.numbers().await, [2]);
    }

    #[tokio::test]
    async fn the_handle_of_an_earlier_transaction_does_not_reach_the_next() {
        let fixture = Fixture::new(&["CREATE TABLE t (n)"]).await;
        let mut run = fixture.run();
        let old = begin(&mut run).await;
        insert(&mut run, &old, 1).await.unwrap();
        commit(&mut run, &old).await.unwrap();
        let new = begin(&mut run).await;
        is_over(insert(&mut run, &old, 2).await);
        let select = "SELECT n FROM t".to_owned();
        let read = HostTransaction::query(&mut run, lend(&old), select, Vec::new()).await;
        is_over(read.unwrap());
        is_over(commit(&mut run, &old).await);
        let undone = HostTransaction::rollback(&mut run, lend(&old)).await;
        is_over(undone.unwrap());
        insert(&mut run, &new, 3).await.unwrap();
        HostTransaction::drop(&mut run, old).await.unwrap();
        insert(&mut run, &new, 4).await.unwrap();
        commit(&mut run, &new).await.unwrap();
        assert_eq!(fixture.numbers().await, [1, 3, 4]);
    }

    #[tokio::test]
    async fn a_handle_that_is_dropped_rolls_its_transaction_back() {
        let fixture = Fixture::new(&["CREATE TABLE t (n)"]).await;
        let mut run = fixture.run();
        let dropped = begin(&mut run).await;
        insert(&mut run, &dropped, 1).await.unwrap();
        HostTransaction::drop(&mut run, dropped).await.unwrap();
        execute(&mut run, "INSERT INTO t VALUES (2)").await.unwrap();
        assert_eq!(fixture.numbers().await, [2]);
    }

    #[tokio::test]
    async fn a_statement_that_takes_too_long_ends_its_transaction() {
        let mut fixture = Fixture::new(&["CREATE TABLE t (n)"]).await;
        let worker = Arc::get_mut(&mut fixture.worker).unwrap();
        worker.limits.statement_timeout = Duration::from_millis(100);
        let mut run = fixture.run();
        let slow = begin(&mut run).await;
        insert(&mut run, &slow, 1).await.unwrap();
        let endless = "INSERT INTO t WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 \
                       FROM r) SELECT count(*) FROM r"
            .to_owned();
        let stopped = HostTransaction::execute(&mut run, lend(&slow), endless, Vec::new()).await;
        let stopped = stopped.unwrap();
        assert!(
            matches!(&stopped, Err(Error::Unavailable(text)) if text.contains("rolled back")),
            "{stopped:?}"
        );
        // What comes next must not be taken for a part of it.
        is_over(insert(&mut run, &slow, 2).await);
        is_over(commit(&mut run, &slow).await);
        execute(&mut run, "INSERT INTO t VALUES (3)").await.unwrap();
        assert_eq!(fixture.numbers().await, [3]);
    }
}
