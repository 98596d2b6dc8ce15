//! Jobs that are given up, and the workers that sent them, which are told (`errors.treat-error`).
//!
//! `FS` sends what a test asks for and writes down what it is told.

use std::time::Duration;

use serde_json::{Value, json};
use warren_tests::{Command, Host, Setup, Site, eventually};

use crate::has;

/// Failed jobs are run again soon.
const IMPATIENT: &str = "[limits]\nretry_base = \"50ms\"\nattempts = 2\n";
/// Long enough for news that should not come.
const A_WHILE: Duration = Duration::from_secs(2);

on_both_buses! {
    a_sender_is_told_of_a_job_that_is_rejected_or_fails_too_often
    a_sender_is_told_of_a_job_that_nobody_takes
    a_worker_that_sent_its_own_job_on_is_told
    who_waits_for_a_reply_is_told_and_nobody_else
    a_failure_to_treat_an_error_is_counted_and_makes_no_further_one
}

fn warren(site: &Site, host: &Host, arguments: &str) -> Command {
    let command = Command::new(site.url(), arguments);
    match site.url() {
        Some(_) => command,
        None => command.with_variable("WARREN_ADMIN", &host.admin.to_string()),
    }
}

async fn start(site: &Site) -> Host {
    let setup = Setup::new(site).with_plugins(["faulty", "sender"]);
    setup.with_config(IMPATIENT).start().await
}

/// Has FS do something, and returns when it has.
async fn order(site: &Site, host: &Host, order: &Value) {
    let send = warren(site, host, "send FS").with(&order.to_string());
    send.run().await.ended_with(0);
}

/// All that FS has been told.
async fn told(site: &Site, host: &Host) -> Vec<Value> {
    let call = warren(site, host, "call FS").with(r#"{"do":"told"}"#);
    let [told] = <[Value; 1]>::try_from(call.run().await.ended_with(0).json()).unwrap();
    told.as_array().unwrap().clone()
}

/// The first that FS is told.
async fn first_told(site: &Site, host: &Host) -> Value {
    eventually("FS is told", async || {
        told(site, host).await.first().cloned()
    })
    .await
}

async fn a_sender_is_told_of_a_job_that_is_rejected_or_fails_too_often(site: &Site) {
    let host = start(site).await;
    let data = json!({"do": "reject", "reason": "the disk is full", "n": 7});
    order(site, &host, &json!({"do": "send", "data": data})).await;
    let news = first_told(site, &host).await;
    assert_eq!(
        (
            &news["cause"],
            &news["stop"],
            &news["attempts"],
            &news["attempt"]
        ),
        (&json!("rejected"), &json!("FX:*"), &json!(1), &json!(1))
    );
    assert_eq!(
        (&news["data"], &news["text"]),
        (&data, &json!("the disk is full"))
    );
    if let Some(letter) = site.dead_letter("FX").await {
        assert_eq!(
            (letter.id.as_str(), letter.reason.as_str()),
            (news["id"].as_str().unwrap(), "permanent")
        );
    }

    let data = json!({"do": "retry", "reason": "the disk is away"});
    order(site, &host, &json!({"do": "send", "data": data})).await;
    let data = json!({"do": "panic", "reason": "the disk is on fire"});
    order(site, &host, &json!({"do": "send", "data": data})).await;
    let news = eventually("FS is told of all three", async || {
        let told = told(site, &host).await;
        (told.len() == 3).then_some(told)
    })
    .await;
    for (what, text) in [
        ("retry", "the disk is away"),
        ("panic", "the disk is on fire"),
    ] {
        let news = news.iter().find(|news| news["data"]["do"] == what).unwrap();
        assert_eq!(
            (&news["cause"], &news["attempts"]),
            (&json!("failed"), &json!(2)),
            "{news}"
        );
        has(news["text"].as_str().unwrap(), [text]);
    }
    let metrics = host.admin("/metrics").await.text();
    has(
        &metrics,
        [
            r#"warren_errors_treated_total{outcome="treated",worker="FS"} 3"#,
            r#"microservices_messages_received_total{service="worker-FS",type="error"} 3"#,
        ],
    );
    // What went well is no news.
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(told(site, &host).await.len(), 3);
}

async fn a_sender_is_told_of_a_job_that_nobody_takes(site: &Site) {
    let host = start(site).await;
    let order_to = |to: &str| json!({"do": "send", "to": to, "data": {"n": 1}});
    order(site, &host, &order_to("FS-NOBODY:*")).await;
    let news = first_told(site, &host).await;
    assert_eq!(
        (
            &news["cause"],
            &news["stop"],
            &news["attempts"],
            &news["data"]
        ),
        (
            &json!("undeliverable"),
            &json!("FS-NOBODY:*"),
            &json!(0),
            &json!({"n": 1})
        )
    );
    order(site, &host, &order_to("FX:2999999999999")).await;
    eventually("FS is told of the second", async || {
        let told = told(site, &host).await;
        told.iter()
            .any(|news| news["stop"] == "FX:2999999999999")
            .then_some(())
    })
    .await;
}

async fn a_worker_that_sent_its_own_job_on_is_told(site: &Site) {
    let host = start(site).await;
    let data = json!({"do": "reject", "reason": "not for me"});
    order(site, &host, &json!({"do": "route", "data": data})).await;
    let news = first_told(site, &host).await;
    assert_eq!((&news["cause"], &news["data"]), (&json!("rejected"), &data));
}

async fn who_waits_for_a_reply_is_told_and_nobody_else(site: &Site) {
    let host = start(site).await;
    let data = json!({"do": "reject", "reason": "not for me"});
    let route = json!({"do": "route", "data": data}).to_string();
    let ran = warren(site, &host, "call FS").with(&route).run().await;
    has(&ran.ended_with(2).err, ["not for me"]);
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(told(site, &host).await, [Value::Null; 0]);
}

async fn a_failure_to_treat_an_error_is_counted_and_makes_no_further_one(site: &Site) {
    let host = start(site).await;
    for then in ["fail", "panic", "send"] {
        let data = json!({"do": "reject", "then": then});
        order(site, &host, &json!({"do": "send", "data": data})).await;
    }
    let counted = eventually("all three are counted", async || {
        let metrics = host.admin("/metrics").await.text();
        let counts = |outcome: &str| {
            metrics.contains(&format!(
                r#"warren_errors_treated_total{{outcome="{outcome}",worker="FS"}} 1"#
            ))
        };
        (counts("failed") && counts("trap") && counts("treated")).then_some(metrics)
    });
    counted.await;
    host.logged(
        "treat-error failed; the job is still among the dead letters",
        ["the test asked for an error"],
    )
    .await;
    host.logged(
        "treat-error failed; the job is still among the dead letters",
        ["the test asked for a panic"],
    )
    .await;
    // Neither run again, nor told of what it has sent itself. A trap undoes nothing in the database.
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(told(site, &host).await.len(), 3);
    assert_eq!(host.worker("FS").await.unwrap()["in_flight"], 0);
}

/// Named like the cases on both buses, so that it takes its turn with those.
mod two_hosts_on {
    mod rabbitmq {
        use super::super::*;

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn the_error_of_another_host_reaches_the_one_that_sent() {
            let site = Site::rabbitmq().await;
            let sender = Setup::new(&site).with_plugins(["sender"]).start().await;
            let faulty = Setup::new(&site).with_plugins(["faulty"]).start().await;
            let data = json!({"do": "reject", "reason": "not for me"});
            order(&site, &sender, &json!({"do": "send", "data": data})).await;
            assert_eq!(first_told(&site, &sender).await["cause"], "rejected");
            // A sender that is gone needs no news: the dead letter is there.
            site.dead_letter("FX").await;
            faulty.stop().await;
            sender.stop().await;
        }
    }
}
