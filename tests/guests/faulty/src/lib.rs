//! Does what a job tells it to, however bad for the host: `{"do":"<word>", …}`.
//!
//! One file for each kind of deed. `README.md` lists the words and what a test gets back.

#![allow(
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "to misbehave is what this plugin is for"
)]

mod harm;
mod reach;
mod report;
mod statements;
mod talk;

use serde::Deserialize;
use serde_json::{Value, json};
use warren_sdk::{Error, Job, Outcome, Result, Worker, context};

/// A worker that a host must survive.
pub struct Faulty;

/// What a job says. Fields that a deed does not need are absent.
#[derive(Deserialize)]
struct Order {
    r#do: String,
    /// For `reject`, `retry`, `panic` and `murmur`.
    reason: Option<String>,
    /// For `retry`, `call` and `check-in`, in milliseconds; for `busy` and `wait`, how long.
    ms: Option<u64>,
    /// For the sends, `call`, `check-in` and `route`: one stop or more.
    to: Option<Stops>,
    /// For the sends: how many jobs; for `write`, `large`, `ones` and `grow`: how much; for `retry`: until which
    /// attempt.
    n: Option<u32>,
    /// For the sends, `call`, `check-in` and `route`: what they carry.
    data: Option<Value>,
    /// For the words that begin with `sql-`.
    #[serde(default)]
    statements: Vec<String>,
    /// For `sql-run`: the parameters of each statement.
    #[serde(default)]
    parameters: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Stops {
    One(String),
    Several(Vec<String>),
}

impl Worker for Faulty {
    const TYPE: &'static str = "FX";
    const SUMMARY: &'static str = "Misbehaves on request, for tests";

    fn handle(job: Job) -> Result<Outcome> {
        let order: Order = job.json()?;
        match order.r#do.as_str() {
            "echo" => Outcome::forward(job.data),
            "done" => Ok(Outcome::Done),
            "reject" => Err(Error::reject(order.reason())),
            "retry" => match order.n {
                Some(n) if context::attempt() >= n => {
                    Outcome::forward(&json!({ "attempt": context::attempt() }))
                }
                _ => Err(order.retry()),
            },

            "panic" => panic!("{}", order.reason()),
            "abort" => std::process::abort(),
            "exit" => std::process::exit(3),
            "loop" => harm::turn_for_ever(),
            "busy" => Outcome::forward(&harm::turn_for(order.ms.unwrap_or(100))),
            "sleep" => Outcome::forward(&harm::sleep_for_an_hour()),
            "wait" => Outcome::forward(&harm::wait_for(order.ms.unwrap_or(100))),
            "large" => Outcome::forward(&harm::large(order.n.unwrap_or(1))),
            "ones" => Outcome::forward(&harm::ones(order.n.unwrap_or(1))),
            "recurse" => Outcome::forward(&harm::recurse_for_ever(0)),
            "host-calls" => harm::ask_for_ever(),
            "allocate" => harm::allocate_for_ever(),
            "grow" => Outcome::forward(&harm::grow(order.n.unwrap_or(1))),
            "state" => Outcome::forward(&harm::count_runs_of_this_instance()),

            "send" => talk::send(&order).map(|()| Outcome::Done),
            "send-then-panic" => {
                talk::send(&order)?;
                panic!("the test asked for a panic after sending")
            }
            "send-then-reject" => {
                talk::send(&order)?;
                Err(Error::reject(order.reason()))
            }
            "call" => Outcome::forward(&talk::call(&order)),
            "check-in" => talk::check_in(&order).map(|()| Outcome::Done),
            "route" => Outcome::route(order.stops(), &order.data()),

            "env" => Outcome::forward(&reach::environment()),
            "fs" => Outcome::forward(&reach::files()),
            "net" => Outcome::forward(&reach::network()),

            "sql" => Outcome::forward(&report::sql_round_trip()?),
            "sql-run" => Outcome::forward(&statements::run(&order.statements, &order.parameters)),
            "sql-transaction" => Outcome::forward(&statements::transaction(&order.statements)),
            "sql-add" => statements::add(&job.id).and_then(|n| Outcome::forward(&n)),
            "sql-dialect" => Outcome::forward(&warren_sdk::sql::dialect()),
            "sql-hold" => statements::hold(&order.statements),
            "sql-leave" => statements::leave(&order.statements).map(|()| Outcome::Done),
            "sql-panic" => statements::panic(&order.statements),
            "metrics" => Outcome::forward(&report::metrics()),
            "log" => Outcome::forward(&report::log()),
            "write" => Outcome::forward(&harm::write(order.n.unwrap_or(1))),
            "murmur" => Outcome::forward(&report::murmur(&order.reason())),
            "print" => Outcome::forward(&report::print()),
            "context" => Outcome::forward(&report::context(&job)),
            "config" => Outcome::forward(&report::config()?),
            other => Err(Error::reject(format!("nothing is called {other}"))),
        }
    }
}

impl Order {
    fn reason(&self) -> String {
        let reason = self.reason.as_deref();
        reason.map_or_else(
            || format!("the test asked for {}", self.r#do),
            str::to_owned,
        )
    }

    fn retry(&self) -> Error {
        let error = Error::retry(self.reason());
        match self.ms {
            Some(ms) => error.after(std::time::Duration::from_millis(ms)),
            None => error,
        }
    }

    fn stops(&self) -> Vec<String> {
        match &self.to {
            Some(Stops::One(stop)) => vec![stop.clone()],
            Some(Stops::Several(stops)) => stops.clone(),
            None => vec![format!("{}:*", Faulty::TYPE)],
        }
    }

    fn data(&self) -> Value {
        let default = || json!({ "do": "done" });
        self.data.clone().unwrap_or_else(default)
    }
}

warren_sdk::export_worker!(Faulty);
