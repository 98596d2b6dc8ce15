//! A plugin that does its worst, beside one that works.

use std::time::{Duration, Instant};

use serde_json::json;
use warren_tests::{
    Host,
    faults::{Ground, LEDGER, Load, Plan, Row, names},
    try_within,
};

use crate::secs;

const ATTACKER: &str = "attacker";
const DEADLINE: Duration = Duration::from_secs(2);

/// What a job of the attacker does, what ends it, and the reason in its dead letter.
const ATTACKS: [(&str, &str, &str); 8] = [
    ("trap", "panic", "trap"),
    ("infinite loop", "loop", "timeout"),
    ("memory bomb", "grow", "oom"),
    ("memory bomb at once", "grow-giant", "oom"),
    ("stack overflow", "recurse", "stack"),
    ("giant output", "result", "decode"),
    ("blocking import", "sleep", "timeout"),
    ("flood of host calls", "host-calls", "host_calls"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f29_poison_is_killed_in_time_with_its_reason() {
    let mut row = Row::new(
        "F29",
        "poison plugin: trap, endless loop, memory bomb, stack overflow, giant output, blocking import, flood of calls",
    );
    let ground = Ground::new().await;
    let config = "[limits]\nbreaker = 0\n[workers.FK]\nattempts = 1\nconcurrency = 1\ndeadline = \
                  \"2s\"\nmemory = \"64MiB\"\n";
    let host = ground.host("a", [LEDGER, ATTACKER], config).start().await;
    let n_neighbours = Row::sized(1500, 4000);
    let neighbours = ground.load(Plan::new("neighbour", n_neighbours).rate(100.0));

    let mut slowest = Duration::ZERO;
    let n_rounds = Row::sized(1, 3);
    for _ in 0..n_rounds {
        for (name, order, reason) in ATTACKS {
            let before = n_failed(&host, reason).await;
            let plan = Plan::new(order, 1).of(["FK:*"], json!({"do": order}));
            let sent = Instant::now();
            let killed = try_within(secs(30), async || {
                (n_failed(&host, reason).await > before).then(|| sent.elapsed())
            });
            // The end of the producers is not the host's: it may take longer than the kill.
            let (_, killed) = tokio::join!(attack(&ground, plan).finish(), killed);
            match killed {
                Some(took) => {
                    slowest = slowest.max(took);
                    row.check(
                        took <= DEADLINE + secs(1),
                        format!("{name} was killed after {:.1} s", took.as_secs_f64()),
                    );
                }
                None => row.check(false, format!("{name} did not end with {reason}")),
            }
        }
    }
    let sent = neighbours.finish().await;
    let figures = ground.checker().settle(&sent, secs(60)).await;
    let n_attacks = n_rounds * ATTACKS.len();
    let dead = names::dead("FK");
    let of_attacker = ground.checker().of("FK");
    let buried = try_within(secs(20), async || {
        (of_attacker.n_ready(&dead).await? as usize >= n_attacks).then_some(())
    });
    row.check(
        buried.await.is_some(),
        format!("fewer than {n_attacks} dead letters"),
    );
    row.check_ok(crate::readiness(&host, true, secs(5)).await);
    row.injected(format!("{n_attacks} jobs of {} kinds", ATTACKS.len()));
    row.figures(&figures);
    row.allow_duplicates(0);
    row.note(format!(
        "slowest kill {:.1} s after the job was sent, deadline {:.0} s; {n_attacks} dead letters, each \
         with its reason",
        slowest.as_secs_f64(),
        DEADLINE.as_secs_f64()
    ));
    row.finish();
}

fn attack(ground: &Ground, plan: Plan) -> Load {
    ground.load(plan.concurrency(1).rate(1000.0))
}

/// How many runs of the attacker have failed for this reason.
async fn n_failed(host: &Host, reason: &str) -> u64 {
    let series = format!(r#"warren_job_failures_total{{reason="{reason}",worker="FK"}} "#);
    let metrics = host.admin("/metrics").await.text();
    let value = metrics.lines().find_map(|line| line.strip_prefix(&series));
    value.map_or(0, |value| value.parse().unwrap())
}
