//! Limits that a run can hit, and that each says which it was.

use std::time::Duration;

use serde_json::json;
use warren_protocol::Outcome;
use warren_runtime::{Fault, Pool};

use super::host::{Host, guest, order, reply};

/// The guest `attacker` under these limits, with room for long runs.
async fn attacker(host: &Host, set: impl FnOnce(&mut warren_runtime::Limits)) -> Pool {
    let mut worker = host.worker("FK");
    set(&mut worker.limits);
    Pool::new(host.load(guest("attacker")).await.unwrap(), worker)
}

#[tokio::test]
async fn a_run_that_computes_for_too_long_is_stopped_before_its_deadline() {
    let host = Host::new();
    let cpu = Duration::from_millis(200);
    let pool = host.faulty(|worker| worker.limits.cpu = cpu).await;
    let run = order(&pool, json!({"do": "loop"})).await;
    assert_eq!(run.verdict, Err(Fault::Cpu(cpu)));
    assert!(run.took >= cpu && run.took < 10 * cpu, "{:?}", run.took);
    // Where it was does not show without names, but that it was somewhere does.
    assert!(run.stack.unwrap().starts_with("0: function "));
}

#[tokio::test]
async fn what_a_run_waits_for_is_not_charged() {
    let host = Host::new();
    let cpu = Duration::from_millis(100);
    let pool = host.faulty(|worker| worker.limits.cpu = cpu).await;
    let waited = reply(&pool, json!({"do": "wait", "ms": 400})).await;
    assert_eq!(waited, json!({"waited": 400}));
}

#[tokio::test]
async fn a_run_that_calls_the_host_too_often_is_stopped() {
    let host = Host::new();
    let pool = host.faulty(|worker| worker.limits.host_calls = 1000).await;
    let run = order(&pool, json!({"do": "host-calls"})).await;
    assert_eq!(run.verdict, Err(Fault::HostCalls { limit: 1000 }));
    // So do those of WASI, of which a line on standard output is one or more.
    let run = order(&pool, json!({"do": "write", "n": 5000})).await;
    assert_eq!(run.verdict, Err(Fault::HostCalls { limit: 1000 }));
    assert_eq!(
        order(&pool, json!({"do": "done"})).await.verdict,
        Ok(Outcome::Done)
    );
}

#[tokio::test]
async fn a_trap_of_a_guest_with_debug_information_is_told_by_file_and_line() {
    let host = Host::new();
    let pool = attacker(&host, |_| ()).await;
    let run = order(&pool, json!({"do": "panic"})).await;
    assert_eq!(run.verdict.unwrap_err().reason(), "trap");
    let stack = run.stack.unwrap();
    let source = include_str!("../../../../tests/guests/attacker/src/lib.rs");
    let (line, _) = source
        .lines()
        .enumerate()
        .find(|(_, line)| line.contains("panic!("))
        .unwrap();
    let place = format!("src/lib.rs:{}:", line + 1);
    let call = stack
        .lines()
        .find(|line| line.contains("attacker::panic_at_length"));
    assert!(call.is_some_and(|call| call.contains(&place)), "{stack}");
    assert!(
        stack.len() <= 4096 && stack.lines().count() <= 16,
        "{stack}"
    );
}

#[tokio::test]
async fn endless_recursion_is_told_by_the_call_that_it_is() {
    let host = Host::new();
    let pool = attacker(&host, |_| ()).await;
    let run = order(&pool, json!({"do": "recurse"})).await;
    assert_eq!(run.verdict, Err(Fault::Stack));
    let stack = run.stack.unwrap();
    assert_eq!(stack.matches("attacker::recurse").count(), 16, "{stack}");
}

#[tokio::test]
async fn a_guest_that_keeps_what_the_host_gives_it_is_stopped() {
    let host = Host::new();
    let pool = attacker(&host, |_| ()).await;
    let run = order(&pool, json!({"do": "resources"})).await;
    assert_eq!(run.verdict, Err(Fault::Resources));
}

/// Looking up lines takes a thousand times as long as a trap: it must not be done for each.
#[tokio::test]
async fn a_storm_of_traps_costs_about_the_same_with_debug_information_as_without() {
    const N: u32 = 300;
    let host = Host::new();
    let pools = [host.faulty(|_| ()).await, attacker(&host, |_| ()).await];
    let mut took = [Duration::ZERO; 2];
    for _ in 0..N {
        for (pool, took) in pools.iter().zip(&mut took) {
            let run = order(pool, json!({"do": "abort"})).await;
            assert!(matches!(run.verdict, Err(Fault::Trap(_))));
            *took += run.took;
        }
    }
    let [without, with] = took.map(|took| took / N);
    assert!(with < 10 * without, "{with:?} with, {without:?} without");
}

/// What a component says that does this while the host asks what it is.
async fn described(items: &str, start: &str) -> String {
    let component = format!(
        r#"(component
            {items}
            (core module $m
                (import "host" "new" (func $new (param i32) (result i32)))
                (table $table 1 funcref)
                (func (export "run"))
                (func $start {start})
                (start $start))
            (core instance $i (instantiate $m (with "host" (instance (export "new" (func $new))))))
            (func $run (canon lift (core func $i "run")))
            (instance $descriptor (export "describe" (func $run)))
            (export "warren:worker/descriptor@0.1.0" (instance $descriptor))
            (instance $handler (export "handle" (func $run)))
            (export "warren:worker/handler@0.1.0" (instance $handler)))"#
    );
    let bytes = wat::parse_str(component).unwrap();
    Host::new().load(bytes).await.unwrap_err().to_string()
}

const OWN_RESOURCE: &str = r#"
    (type $thing (resource (rep i32)))
    (core func $new (canon resource.new $thing))"#;

#[tokio::test]
async fn a_table_that_grows_without_end_is_told_by_its_limit() {
    let start = r#"
        (loop $more
            (br_if $more (i32.ne (i32.const -1)
                (table.grow $table (ref.null func) (i32.const 1000)))))
        unreachable"#;
    let said = described(OWN_RESOURCE, start).await;
    assert!(
        said.contains("tables of more than 100000 elements"),
        "{said}"
    );
    assert!(said.contains("raise `tables`"), "{said}");
}

#[tokio::test]
async fn resources_of_a_guests_own_are_bounded_too() {
    let start = "(loop $more (drop (call $new (i32.const 1))) (br $more))";
    let said = described(OWN_RESOURCE, start).await;
    assert!(said.contains("too many resources"), "{said}");
}
