//! `warren bench`, on both buses: what it counts is what the host has run, what it promises to programs is
//! there, and what goes wrong is told. How fast anything is, is no business of a test.

use std::{process::Output, time::Duration};

use serde_json::{Value, json};
use tokio::process::Child;
use warren_tests::{Broker, Command, Host, Setup, Site, eventually, soon};

use crate::has;

const ECHO: &str = r#"{"do":"echo"}"#;

on_both_buses! {
    each_job_is_in_one_of_the_counts_and_the_host_has_run_as_many
    without_a_rate_half_of_what_was_reached_is_the_rate
    a_person_sees_what_will_be_sent_and_then_a_table
    a_first_job_that_is_not_answered_is_the_only_one
    jobs_that_are_not_answered_in_time_are_counted_and_told
    a_host_that_stands_still_shows_in_the_percentiles_of_an_open_loop
    an_interrupted_run_prints_what_was_measured_until_then
    a_worker_that_leaves_ends_the_run
    without_replies_a_job_ends_when_it_is_stored
    what_contradicts_itself_is_misuse
}

/// A command that finds the bus of this host.
fn bench(site: &Site, host: &Host, data: &str, options: &str) -> Command {
    let command = Command::new(site.url(), "bench FX --data").with(data);
    let command = options.split_whitespace().fold(command, Command::with);
    match site.url() {
        Some(_) => command,
        None => command.with_variable("WARREN_ADMIN", &host.admin.to_string()),
    }
}

async fn faulty(site: &Site) -> Host {
    Setup::new(site).with_plugins(["faulty"]).start().await
}

/// How many jobs the host has finished, in whatever way.
async fn n_finished(host: &Host) -> u64 {
    let metrics = host.admin("/metrics").await.text();
    let lines = metrics.lines().filter_map(|line| {
        let rest = line.strip_prefix("warren_jobs_finished_total")?;
        let (labels, n) = rest.split_once("} ")?;
        labels.contains(r#"worker="FX""#).then_some(n)
    });
    lines.map(|n| n.parse::<u64>().unwrap()).sum()
}

async fn has_finished(host: &Host, n_jobs: u64) {
    eventually("the jobs have run", async || {
        (n_finished(host).await >= n_jobs).then_some(())
    })
    .await;
}

fn number(value: &Value) -> u64 {
    value
        .as_u64()
        .unwrap_or_else(|| panic!("{value} is no number"))
}

/// Fails unless every job of a measurement is in one of its counts.
#[track_caller]
fn adds_up(measurement: &Value) {
    let failed = measurement["failed"].as_object().unwrap();
    let failed: u64 = failed.values().map(number).sum();
    let ended = number(&measurement["answered"]) + failed + number(&measurement["unanswered"]);
    assert_eq!(number(&measurement["sent"]), ended, "{measurement}");
}

fn interrupt(child: &Child) {
    let pid = child.id().unwrap().to_string();
    let sent = std::process::Command::new("kill")
        .args(["-INT", &pid])
        .status();
    assert!(sent.unwrap().success());
}

async fn end_of(child: Child) -> (Output, Value) {
    let output = soon("the run ends", child.wait_with_output())
        .await
        .unwrap();
    let said = serde_json::from_slice(&output.stdout);
    let said = said.unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (output, said)
}

async fn each_job_is_in_one_of_the_counts_and_the_host_has_run_as_many(site: &Site) {
    let host = faulty(site).await;
    let options = "--rate 50 --duration 1s --warm-up 200ms --json";
    let ran = bench(site, &host, ECHO, options).run().await.ended_with(0);
    let [said] = <[Value; 1]>::try_from(ran.json()).unwrap();
    assert_eq!(said["outcome"], "measured");
    assert_eq!(
        (&said["to"], &said["ends_with"]),
        (&json!("FX:*"), &json!("reply"))
    );
    let bus = if site.url().is_some() {
        "rabbitmq"
    } else {
        "embedded"
    };
    assert_eq!(said["bus"], bus);
    assert!(said["id_prefix"].as_str().unwrap().starts_with("bench-"));
    assert_eq!(said["n_strays"], 0);

    let warm_up = &said["warm_up"];
    let [measured] = said["measurements"].as_array().unwrap().as_slice() else {
        panic!("{said}")
    };
    for measurement in [warm_up, measured] {
        adds_up(measurement);
        assert_eq!(measurement["loop"], "open");
        assert_eq!(measurement["wanted_per_second"], 50.0);
        for times in ["latency_us", "sent_late_us"] {
            for figure in ["p50", "p90", "p99", "p99_9", "max"] {
                assert!(
                    measurement[times][figure].is_u64(),
                    "{times} {figure} in {said}"
                );
            }
            assert!(measurement[times]["mean"].is_number(), "{said}");
        }
        assert!(measurement["answered_per_second"].is_number(), "{said}");
        assert!(measurement["kept_up"].is_boolean(), "{said}");
    }
    assert_eq!(
        (&measured["due"], &measured["duration_ms"]),
        (&json!(50), &json!(1000))
    );
    // The first job, by which it is known that somebody answers.
    assert_eq!(number(&said["n_before"]), 1 + number(&warm_up["sent"]));
    let n_sent = number(&said["n_before"]) + number(&measured["sent"]);
    assert_eq!(n_finished(&host).await, n_sent);
}

async fn without_a_rate_half_of_what_was_reached_is_the_rate(site: &Site) {
    let host = faulty(site).await;
    let options = "--duration 6s --warm-up 0s --json";
    let ran = bench(site, &host, ECHO, options).run().await.ended_with(0);
    let [said] = <[Value; 1]>::try_from(ran.json()).unwrap();
    let [most, half] = said["measurements"].as_array().unwrap().as_slice() else {
        panic!("{said}")
    };
    let n_open = if site.url().is_some() { 64 } else { 24 };
    assert_eq!(
        (&most["loop"], &most["concurrency"]),
        (&json!("closed"), &json!(n_open))
    );
    assert_eq!(
        (&most["duration_ms"], &half["duration_ms"]),
        (&json!(3000), &json!(6000))
    );
    let reached = most["answered_per_second"].as_f64().unwrap();
    assert_eq!(half["loop"], "open");
    assert!((half["wanted_per_second"].as_f64().unwrap() - reached / 2.0).abs() < 1e-6);
    assert_eq!(said["warm_up"], Value::Null);
    adds_up(most);
    adds_up(half);
    let n_sent = 1 + number(&most["sent"]) + number(&half["sent"]);
    assert_eq!(n_finished(&host).await, n_sent);
}

async fn a_person_sees_what_will_be_sent_and_then_a_table(site: &Site) {
    let host = faulty(site).await;
    let options = "--rate 20 --duration 1s --warm-up 0s";
    let ran = bench(site, &host, ECHO, options).run().await.ended_with(0);
    let place = match site.url() {
        Some(_) => "amqp://".to_owned(),
        None => format!("on the bus inside the host at {}", host.admin),
    };
    has(&ran.err, ["to FX:*", &place, "20 jobs, 20/s for 1 s"]);
    // No terminal, no progress.
    assert_eq!(ran.err.lines().count(), 1, "{}", ran.err);
    let text = ran.text();
    has(
        &text,
        [
            "measured",
            "jobs/s",
            "p50",
            "p99.9",
            "at 20/s",
            "20 sent: 20 answered, 0 failed",
        ],
    );
}

async fn a_first_job_that_is_not_answered_is_the_only_one(site: &Site) {
    let host = faulty(site).await;
    let reject = r#"{"do":"reject","reason":"the disk is full"}"#;
    let ran = bench(site, &host, reject, "").run().await.ended_with(2);
    has(
        &ran.err,
        ["the disk is full", "nothing else was sent", "warren call"],
    );
    assert_eq!((n_finished(&host).await, ran.text().as_str()), (1, ""));

    let elsewhere = match site.url() {
        Some(url) => Command::new(Some(url), "bench FXX --json"),
        None => Command::new(None, "bench FXX --json")
            .with_variable("WARREN_ADMIN", &host.admin.to_string()),
    };
    let ran = elsewhere.run().await.ended_with(4);
    has(&ran.err, ["FXX", "check the type"]);
    assert_eq!(ran.json()[0]["outcome"], "unknown-type");

    let sleep = r#"{"do":"sleep"}"#;
    let ran = bench(site, &host, sleep, "--timeout 300ms").run().await;
    has(
        &ran.ended_with(3).err,
        ["FX:*", "300 ms", "nothing else was sent"],
    );
}

async fn jobs_that_are_not_answered_in_time_are_counted_and_told(site: &Site) {
    let one = "[workers.FX]\nconcurrency = 1\n";
    let setup = Setup::new(site).with_plugins(["faulty"]).with_config(one);
    let host = setup.start().await;
    // Ten at a time, of which one is worked on: the sixth has waited for too long.
    let wait = r#"{"do":"wait","ms":1000}"#;
    let options = "--concurrency 10 --duration 500ms --warm-up 0s --timeout 5s --json";
    let ran = bench(site, &host, wait, options).run().await.ended_with(1);
    let [said] = <[Value; 1]>::try_from(ran.json()).unwrap();
    let measured = &said["measurements"][0];
    adds_up(measured);
    assert_eq!(measured["sent"], 10, "{said}");
    let failed = measured["failed"].as_object().unwrap();
    assert_eq!(failed.keys().collect::<Vec<_>>(), ["timeout"]);
    assert!(number(&failed["timeout"]) >= 5, "{said}");
}

async fn a_host_that_stands_still_shows_in_the_percentiles_of_an_open_loop(site: &Site) {
    const STALL: Duration = Duration::from_secs(1);
    let host = faulty(site).await;
    let options = "--rate 20 --duration 5s --warm-up 0s --json";
    let (child, _folder) = bench(site, &host, ECHO, options).spawn();
    has_finished(&host, 5).await;
    host.signal("STOP");
    tokio::time::sleep(STALL).await;
    host.signal("CONT");
    let (output, said) = end_of(child).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let measured = &said["measurements"][0];
    // None was left out, so the 20 that were due meanwhile have waited, the first of them for all of it.
    assert_eq!(measured["answered"], 100, "{said}");
    let p99 = number(&measured["latency_us"]["p99"]);
    assert!(p99 > 500_000, "{said}");
}

async fn an_interrupted_run_prints_what_was_measured_until_then(site: &Site) {
    let host = faulty(site).await;
    let options = "--rate 50 --duration 1h --warm-up 0s --json";
    let (child, _folder) = bench(site, &host, ECHO, options).spawn();
    has_finished(&host, 5).await;
    interrupt(&child);
    let (output, said) = end_of(child).await;
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    assert_eq!(said["outcome"], "interrupted");
    let measured = &said["measurements"][0];
    adds_up(measured);
    assert!(number(&measured["answered"]) >= 4, "{said}");
    assert!(number(&measured["duration_ms"]) < 3_600_000, "{said}");
}

async fn a_worker_that_leaves_ends_the_run(site: &Site) {
    let host = faulty(site).await;
    let options = "--rate 20 --duration 1h --warm-up 0s --timeout 1m --json";
    let (child, _folder) = bench(site, &host, ECHO, options).spawn();
    has_finished(&host, 5).await;
    host.take_out("faulty.wasm");
    let (output, said) = end_of(child).await;
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    assert_eq!(said["outcome"], "no-live-worker");
    has(said["error"].as_str().unwrap(), ["FX:*", "start one"]);
    let measured = &said["measurements"][0];
    adds_up(measured);
    assert!(number(&measured["failed"]["no-live-worker"]) > 0, "{said}");
}

async fn without_replies_a_job_ends_when_it_is_stored(site: &Site) {
    let host = faulty(site).await;
    let done = r#"{"do":"done"}"#;
    let options = "--no-reply --rate 50 --duration 1s --warm-up 0s --json";
    let ran = bench(site, &host, done, options).run().await.ended_with(0);
    let [said] = <[Value; 1]>::try_from(ran.json()).unwrap();
    assert_eq!(said["ends_with"], "confirm");
    let measured = &said["measurements"][0];
    adds_up(measured);
    assert_eq!(
        (&measured["sent"], &measured["answered"]),
        (&json!(50), &json!(50))
    );
    has_finished(&host, 51).await;
    assert_eq!(n_finished(&host).await, 51);
}

async fn what_contradicts_itself_is_misuse(site: &Site) {
    let host = faulty(site).await;
    for (data, options, part) in [
        (ECHO, "--rate 5 --concurrency 5", "--concurrency"),
        (ECHO, "--no-reply --timeout 1s", "--timeout"),
        (ECHO, "--concurrency 20000", "10000"),
        (ECHO, "--duration soon", "such as 500ms"),
        ("hello", "", "not JSON"),
        ("@nowhere.json", "", "nowhere.json"),
    ] {
        let ran = bench(site, &host, data, options).run().await;
        has(&ran.ended_with(64).err, [part]);
    }
    if site.url().is_none() {
        let ran = bench(site, &host, ECHO, "--concurrency 25").run().await;
        has(
            &ran.ended_with(64).err,
            ["--concurrency 25", "at most 24", "inside the host"],
        );
    }
    assert_eq!(n_finished(&host).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn own_broker_keeps_nothing_of_a_run() {
    let broker = Broker::start().await;
    let site = Site::of(&broker);
    let host = faulty(&site).await;
    let queues = async || -> Vec<String> {
        let queues = broker.ctl(&["list_queues", "name", "--silent"]).await;
        let mut queues: Vec<_> = queues.lines().map(str::to_owned).collect();
        queues.sort();
        queues
    };
    let before = queues().await;
    let options = "--concurrency 4 --duration 500ms --warm-up 0s";
    let ran = bench(&site, &host, ECHO, options).run().await;
    ran.ended_with(0);
    assert_eq!(queues().await, before);

    let options = "--concurrency 4 --duration 1h --warm-up 0s --json";
    let (child, _folder) = bench(&site, &host, ECHO, options).spawn();
    let so_far = n_finished(&host).await;
    has_finished(&host, so_far + 5).await;
    interrupt(&child);
    let (output, _) = end_of(child).await;
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    assert_eq!(queues().await, before);
}

#[tokio::test]
async fn a_host_that_is_not_there_is_told_with_what_to_do() {
    let ran = Command::new(None, "bench WD --admin 127.0.0.1:1")
        .run()
        .await;
    has(
        &ran.ended_with(7).err,
        ["127.0.0.1:1", "nothing listens there", "--broker"],
    );
}
