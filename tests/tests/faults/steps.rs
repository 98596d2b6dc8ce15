//! A host that is killed at one exact step of a job's way (RELIABILITY §2.12, the first column):
//! the proxy holds the frame of that step while the host dies.

use serde_json::{Value, json};
use warren_bus::{RabbitMq, RabbitMqConfig};
use warren_tests::{
    eventually, eventually_within,
    faults::{
        At, Direction, Ground, LEDGER, LEDGER_NEXT, Method, Proxy, Row, Who, job, limits,
        publish_until_stored,
    },
    soon,
};

use crate::secs;

/// A step, where the proxy stops it, and how many effects the two hops may have.
struct Step {
    name: &'static str,
    at: Option<At>,
    data: Value,
    /// Of the first hop, `FL`: at the least, at the most. Never none.
    first: (usize, usize),
    /// Of the second, `FM`.
    second: (usize, usize),
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f02_a_host_that_is_killed_at_any_step_leaves_what_the_table_says() {
    let mut row = Row::new("F02", "host killed with -9 at each step of a job");
    let ground = Ground::new().await;
    let proxy = ground.proxy().await;
    let next = ground
        .host("next", [LEDGER_NEXT], &limits(4, ""))
        .start()
        .await;
    let config = RabbitMqConfig::new(vec![ground.broker.url()], "caller");
    let (bus, _inbox) = RabbitMq::connect(config).unwrap();
    let mut told = Vec::new();
    for step in steps() {
        let key = format!("f02-{}", step.name);
        let outcome = run(&ground, &proxy, &bus, &step, &key).await;
        let (n_first, n_second) = outcome;
        told.push(format!("{} {n_first}/{n_second}", step.name));
        row.check(
            (step.first.0..=step.first.1).contains(&n_first)
                && (step.second.0..=step.second.1).contains(&n_second),
            format!(
                "{}: {n_first} effects of the first hop (wanted {:?}) and {n_second} of the second \
                 (wanted {:?})",
                step.name, step.first, step.second
            ),
        );
    }
    row.injected(format!("{} kill -9, each at a held frame", told.len()));
    row.note(format!("effects of hop 1/hop 2: {}", told.join(", ")));
    drop(next);
    row.finish();
}

fn steps() -> Vec<Step> {
    let idle = || json!({});
    let at = |at: At, role| Some(at.on(Who::Role(role)));
    vec![
        Step {
            name: "S3",
            at: at(At::to_client(Method::BASIC_DELIVER), "consume"),
            data: idle(),
            first: (1, 1),
            second: (1, 1),
        },
        Step {
            name: "S4",
            at: None,
            data: json!({"begin": true, "work_ms": 3000}),
            first: (1, 1),
            second: (1, 1),
        },
        Step {
            name: "S1=S5",
            at: at(At::to_server(Method::BASIC_PUBLISH), "publish"),
            data: idle(),
            first: (2, 2),
            second: (1, 1),
        },
        // The copy that the broker has is the one of the run before, with the same id.
        Step {
            name: "S1=S6",
            at: at(At::to_client(Method::BASIC_ACK), "publish"),
            data: idle(),
            first: (2, 2),
            second: (1, 2),
        },
        Step {
            name: "S7",
            at: at(At::to_server(Method::BASIC_ACK), "consume"),
            data: idle(),
            first: (2, 2),
            second: (1, 2),
        },
        Step {
            name: "S8",
            at: None,
            data: idle(),
            first: (1, 1),
            second: (1, 1),
        },
    ]
}

/// Takes one job to its step, kills the host there, and lets another finish. Returns how many
/// effects the hops had.
async fn run(
    ground: &Ground,
    proxy: &Proxy,
    bus: &RabbitMq,
    step: &Step,
    key: &str,
) -> (usize, usize) {
    let victim = ground.host("victim", [LEDGER], &limits(4, ""));
    let published = || {
        let (to, method) = (Direction::ToServer, Method::BASIC_PUBLISH);
        proxy.n_frames(to, method, Who::Role("publish"))
    };
    let before = published();
    let victim = victim.with_broker(&proxy.url()).start().await;
    // Its card and its greeting are no step of a job.
    eventually("the host has introduced itself", async || {
        (published() >= before + 2).then_some(())
    })
    .await;
    let job = job(key, &["FL:*", "FM:*"], step.data.clone());
    let effects = async |worker_type: &str| {
        let effects = ground.ledger.effects(worker_type).await;
        effects.iter().filter(|run| run.key == key).count()
    };
    match &step.at {
        Some(at) => {
            let point = proxy.hold(at.clone());
            publish_until_stored(bus, &job).await;
            point.reached().await;
            victim.kill().await;
        }
        None if step.name == "S4" => {
            publish_until_stored(bus, &job).await;
            eventually("the job runs", async || {
                let runs = ground.ledger.runs("FL").await;
                let mut runs = runs.iter();
                runs.any(|run| run.key == key && run.phase == "begun")
                    .then_some(())
            })
            .await;
            victim.kill().await;
        }
        None => {
            let point = proxy.cut_after(At::to_server(Method::BASIC_ACK).on("consume"));
            publish_until_stored(bus, &job).await;
            point.reached().await;
            victim.kill().await;
        }
    }
    let other = ground.host("other", [LEDGER], &limits(4, ""));
    let other = soon("another host starts", other.start()).await;
    eventually_within(
        secs(30),
        "both hops are done and nothing is open",
        async || {
            let done = effects("FL").await > 0 && effects("FM").await > 0;
            let mut n_open = 0;
            for worker_type in ["FL", "FM"] {
                let checker = ground.checker().of(worker_type);
                n_open += checker
                    .n_ready(&format!("warren.v1.q.{worker_type}"))
                    .await?;
            }
            (done && n_open == 0).then_some(())
        },
    )
    .await;
    // What is still to run is held by a host: it ends what it holds before it ends.
    other.stop().await;
    tokio::time::sleep(secs(1)).await;
    (effects("FL").await, effects("FM").await)
}
