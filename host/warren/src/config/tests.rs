//! The specification of the configuration: what is read, what is refused, and with which words.

mod broker_access;
mod microservices_js;
mod reach;
mod reads;
mod refuses;
mod shipped;
mod shows;
mod sources;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use warren_bus::BrokerFiles;
use warren_protocol::{Encoding, WorkerType};

use super::{
    Broker, Config, DatabaseSource, Given, Limits, LogFormat, Mistakes, Peers, Reuse, Source,
    Sources, WorkerConfig,
    keys::{self, BROKER_TLS, LIMITS, LOG, REUSE, WORKER},
    load::{VARIABLES, find_file, load, merge},
    reach::{REACH, read_database},
    read::{Report, names},
};

fn read_file(name: &str, content: &str) -> Result<Config, Mistakes> {
    merge(
        Some((name.into(), content.into())),
        &Sources::default(),
        Report::default(),
    )
}

fn read(toml: &str) -> Result<Config, Mistakes> {
    read_file("w.toml", toml)
}

fn good(toml: &str) -> Config {
    read(toml).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

fn with(environment: &[(&str, &str)], options: &[(&'static str, &'static str, &str)]) -> Sources {
    let own = |(name, text): &(&str, &str)| ((*name).to_owned(), (*text).to_owned());
    Sources {
        file: None,
        environment: environment.iter().map(own).collect(),
        options: options
            .iter()
            .map(|(option, key, text)| Given {
                option,
                key,
                text: (*text).to_owned(),
            })
            .collect(),
        without_secrets: false,
        alone: false,
    }
}

/// Place and message of each mistake, as a person sees them.
fn shown(read: Result<Config, Mistakes>) -> Vec<String> {
    let mistakes = read.expect_err("this should be refused").0;
    for mistake in &mistakes {
        assert!(!mistake.remedy.is_empty(), "no remedy: {mistake}");
    }
    mistakes
        .iter()
        .map(|mistake| format!("{}: {}", mistake.place, mistake.message))
        .collect()
}

#[track_caller]
fn check(toml: &str, expected: &[&str]) {
    assert_eq!(shown(read(toml)), expected);
}

#[track_caller]
fn remedy(toml: &str, expected: &str) {
    let mistakes = read(toml).expect_err("this should be refused");
    assert!(mistakes.0[0].remedy.contains(expected), "{mistakes}");
}

fn worker(config: &Config, worker_type: &str) -> WorkerConfig {
    config.workers[&WorkerType::new(worker_type).unwrap()].clone()
}

fn urls(broker: &Broker) -> Vec<&str> {
    match broker {
        Broker::Embedded => vec!["embedded"],
        Broker::RabbitMq(urls) => urls.iter().map(|url| url.expose()).collect(),
    }
}
