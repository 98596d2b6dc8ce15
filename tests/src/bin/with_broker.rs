//! Runs a command beside a private RabbitMQ node and a private PostgreSQL that every test of it
//! shares: `with_broker -- cargo test …`. Ends with the command's exit code.

use std::{
    env,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result};
use warren_tests::{
    Broker,
    broker::SHARED_BROKER,
    postgres::{Postgres, SHARED_POSTGRES},
    vhost::SHARED_NODE,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode> {
    let mut words = env::args_os().skip(1).skip_while(|word| word == "--");
    let program = words
        .next()
        .context("usage: with_broker -- command [argument…]")?;
    let mut command = Command::new(&program);
    command.args(words);
    // One that the caller has named is used as it is.
    let broker = match env::var_os(SHARED_BROKER) {
        Some(_) => None,
        None => Some(Broker::start().await),
    };
    if let Some(broker) = &broker {
        command.env(SHARED_BROKER, broker.url());
        command.env(SHARED_NODE, broker.node_address());
    }
    let postgres = match env::var_os(SHARED_POSTGRES) {
        Some(_) => None,
        None => Some(Postgres::start()),
    };
    if let Some(postgres) = &postgres {
        command.env(SHARED_POSTGRES, postgres.url());
    }
    let status = command
        .status()
        .with_context(|| format!("running {}", program.display()))?;
    if let Some(mut broker) = broker {
        broker.stop().await;
    }
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}
