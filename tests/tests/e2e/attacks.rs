//! A plugin that attacks its host (`tests/guests/attacker`, type `FK`). Whatever it does: the host
//! lives, each job of the plugin is settled with the reason, the jobs of another worker go on
//! meanwhile, and the memory comes back.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use warren_tests::{Host, Setup, Site, eventually, faults::usage};

use crate::{
    has,
    jobs::{call, call_at_once, figure, send},
};

on_both_buses! {
    an_endless_loop_ends_at_its_limit_of_cpu_time
    an_endless_wait_ends_at_its_deadline
    endless_recursion_ends_at_the_stack
    endless_recursion_in_linear_memory_ends_in_a_trap
    memory_taken_step_by_step_ends_at_its_limit
    memory_taken_at_once_ends_at_its_limit
    a_giant_result_is_not_taken
    a_flood_of_log_lines_ends_at_the_limit_of_host_calls
    a_flood_on_standard_output_ends_at_the_limit_of_host_calls
    a_flood_on_standard_error_ends_at_the_limit_of_host_calls
    a_flood_of_host_calls_ends_at_its_limit
    a_flood_of_resources_ends_at_its_limit
    an_exit_is_a_trap
    a_long_panic_is_told_by_its_end
    an_explosion_of_metrics_is_dropped
    a_transaction_held_open_is_over_at_the_deadline
    a_plugin_that_calls_itself_without_end_comes_to_one
    a_plugin_that_sends_itself_keeps_nobody_from_work
}

/// Small limits, so that the attacks end soon. One attempt: what comes of a job is decided at once.
const CONFIG: &str = r#"
[limits]
attempts = 1
[workers.FK]
concurrency = 4
deadline = "2s"
cpu = "500ms"
host_calls = 50000
memory = "32MiB"
"#;
/// Jobs of each attack at the same time: as many as the plugin may run.
const N_ATTACKS: u64 = 4;
/// What the host may have more of after an attack than before: allocators keep some.
const KEPT_KIB: u64 = 64 << 10;

async fn an_endless_loop_ends_at_its_limit_of_cpu_time(site: &Site) {
    // Four of them share the processors with everybody else: it takes a while to use up so much.
    let deadline = "deadline = \"20s\"\ncpu = \"200ms\"";
    let config = CONFIG.replace("deadline = \"2s\"\ncpu = \"500ms\"", deadline);
    let says = ["200ms of CPU time", "raise `cpu`"];
    let host = survives(site, &config, &json!({"do": "loop"}), "cpu", says).await;
    shows_where(&host, site, ["attacker::compute"]).await;
}

async fn an_endless_wait_ends_at_its_deadline(site: &Site) {
    let says = ["deadline of 2s", "raise `deadline`"];
    survives(site, CONFIG, &json!({"do": "sleep"}), "timeout", says).await;
}

async fn endless_recursion_ends_at_the_stack(site: &Site) {
    let says = ["512 KiB of its stack"];
    let host = survives(site, CONFIG, &json!({"do": "recurse"}), "stack", says).await;
    shows_where(&host, site, ["attacker::recurse"]).await;
}

async fn endless_recursion_in_linear_memory_ends_in_a_trap(site: &Site) {
    let order = json!({"do": "recurse-deep"});
    let host = survives(site, CONFIG, &order, "trap", ["trapped"]).await;
    shows_where(&host, site, ["attacker::recurse_deep"]).await;
}

async fn memory_taken_step_by_step_ends_at_its_limit(site: &Site) {
    let says = ["33554432 bytes of memory", "raise `memory`"];
    survives(site, CONFIG, &json!({"do": "grow"}), "oom", says).await;
}

async fn memory_taken_at_once_ends_at_its_limit(site: &Site) {
    let says = ["33554432 bytes of memory", "raise `memory`"];
    survives(site, CONFIG, &json!({"do": "grow-giant"}), "oom", says).await;
}

async fn a_giant_result_is_not_taken(site: &Site) {
    // It fits into the guest's memory, and not into a message.
    let config = CONFIG.replace("32MiB", "128MiB");
    let says = ["8388608 bytes", "raise `payload`"];
    survives(site, &config, &json!({"do": "result"}), "decode", says).await;
}

async fn a_flood_of_log_lines_ends_at_the_limit_of_host_calls(site: &Site) {
    a_flood_ends(site, "log").await;
}

async fn a_flood_on_standard_output_ends_at_the_limit_of_host_calls(site: &Site) {
    a_flood_ends(site, "stdout").await;
}

async fn a_flood_on_standard_error_ends_at_the_limit_of_host_calls(site: &Site) {
    a_flood_ends(site, "stderr").await;
}

async fn a_flood_ends(site: &Site, attack: &str) {
    // The limit that is tested here comes first, also where everything else wants the processors.
    let config = CONFIG.replace(
        "deadline = \"2s\"\ncpu = \"500ms\"",
        "deadline = \"30s\"\ncpu = \"20s\"",
    );
    let says = ["more than 50000 times", "raise `host_calls`"];
    let host = survives(site, &config, &json!({"do": attack}), "host_calls", says).await;
    host.logged(
        "the run has written more than `log` of its worker allows; the rest of it is dropped",
        [],
    )
    .await;
    // 64 KiB of each run, with what a line has beside its text.
    let flood: usize = host
        .log()
        .lines()
        .filter(|line| line.contains("flood flood"))
        .map(str::len)
        .sum();
    assert!(flood < N_ATTACKS as usize * (256 << 10), "{flood} bytes");
}

async fn a_flood_of_host_calls_ends_at_its_limit(site: &Site) {
    let says = ["more than 50000 times", "raise `host_calls`"];
    let order = json!({"do": "host-calls"});
    survives(site, CONFIG, &order, "host_calls", says).await;
}

async fn a_flood_of_resources_ends_at_its_limit(site: &Site) {
    let says = ["too many resources"];
    survives(site, CONFIG, &json!({"do": "resources"}), "resources", says).await;
}

async fn an_exit_is_a_trap(site: &Site) {
    survives(
        site,
        CONFIG,
        &json!({"do": "exit"}),
        "trap",
        ["called exit"],
    )
    .await;
}

async fn a_long_panic_is_told_by_its_end(site: &Site) {
    let says = ["its last words", "the end of a long text"];
    let host = survives(site, CONFIG, &json!({"do": "panic"}), "trap", says).await;
    let shown = ["attacker::panic_at_length", "src/lib.rs:"];
    shows_where(&host, site, shown).await;
    let line = host.logged("job failed for good", []).await.to_string();
    assert!(line.len() < 16 << 10, "{} bytes", line.len());
}

async fn an_explosion_of_metrics_is_dropped(site: &Site) {
    // It is allowed to count as often as it does.
    let config = CONFIG
        .replace("50000", "1000000")
        .replace("\"500ms\"", "\"2s\"");
    let host = attacked(site, &config).await;
    send(&host, "FK:*", &json!({"do": "labels"})).await;
    neighbours_go_on_until(&host, async || finished(&host, "ok").await == 1).await;
    let dropped = |reason: &str| {
        format!(r#"warren_guest_metrics_dropped_total{{reason="{reason}",worker="FK"}}"#)
    };
    // One of its hundred names is the one with the labels.
    assert_eq!(figure(&host, &dropped("too_many_metrics")).await, 49_901);
    assert_eq!(figure(&host, &dropped("too_many_series")).await, 49_900);
    // The other worker's figures are there all the same.
    call_at_once(&host, "FX:*", &json!({"do": "metrics"})).await;
    let counted = r#"warren_guest_deeds_total{kind="metrics",worker="FX"}"#;
    assert_eq!(figure(&host, counted).await, 2);
    let size = host.admin("/metrics").await.body.len();
    assert!(size < 256 << 10, "{size} bytes of metrics");
}

async fn a_transaction_held_open_is_over_at_the_deadline(site: &Site) {
    let config = CONFIG.replace("attempts = 1", "attempts = 10\nretry_base = \"200ms\"");
    let host = attacked(site, &config).await;
    // The table is there, so that it is the lock alone that the next one waits for.
    send(&host, "FK:*", &json!({"do": "write"})).await;
    neighbours_go_on_until(&host, async || finished(&host, "ok").await == 1).await;
    send(&host, "FK:*", &json!({"do": "hold"})).await;
    eventually("the transaction is open", async || {
        (host.worker("FK").await?["in_flight"] == 1).then_some(())
    })
    .await;
    let held = Instant::now();
    send(&host, "FK:*", &json!({"do": "write"})).await;
    // Both: the one that held the lock only does so at its first attempt.
    neighbours_go_on_until(&host, async || finished(&host, "ok").await == 3).await;
    // The deadline, and what is left of a wait for the lock or before another attempt.
    let took = held.elapsed();
    assert!(took < Duration::from_secs(8), "{took:?}");
}

async fn a_plugin_that_calls_itself_without_end_comes_to_one(site: &Site) {
    let host = attacked(site, CONFIG).await;
    for _ in 0..N_ATTACKS {
        send(&host, "FK:*", &json!({"do": "call-itself"})).await;
    }
    // A caller waits no longer than its own time, so each call in a call has less than the one
    // before, and what nobody waits for any more is not begun.
    neighbours_go_on_until(&host, async || finished(&host, "dead").await == N_ATTACKS).await;
    at_rest(&host).await;
}

async fn a_plugin_that_sends_itself_keeps_nobody_from_work(site: &Site) {
    let host = attacked(site, CONFIG).await;
    // Each of them sends two, eleven generations long.
    let order = json!({"do": "send-itself", "n": 2, "left": 10});
    send(&host, "FK:*", &order).await;
    neighbours_go_on_until(&host, async || finished(&host, "ok").await == (1 << 11) - 1).await;
    at_rest(&host).await;
}

/// A host with the attacker, a neighbour that has worked before, and who gives them orders.
async fn attacked(site: &Site, config: &str) -> Host {
    let setup = Setup::new(site).with_plugins(["attacker", "faulty", "http_faulty"]);
    let host = setup.with_config(config).start().await;
    for worker in ["FX:*", "FK:*"] {
        let reply = call(&host, worker, &json!({"do": "echo"})).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    host
}

#[tokio::test]
async fn a_file_whose_compiling_takes_memory_without_end_is_refused() {
    let says = ["more than 512 MiB of memory", "raise `compile_memory`"];
    is_not_compiled("compile_memory = \"512MiB\"\n", says).await;
}

#[tokio::test]
async fn a_file_whose_compiling_takes_for_ever_is_refused() {
    let config = "compile_memory = \"64GiB\"\ncompile_timeout = \"8s\"\n";
    let says = ["longer than 8s", "raise `compile_timeout`"];
    is_not_compiled(config, says).await;
}

/// The compiler names the culprit in full, and the host reads no more of that than it needs.
#[tokio::test]
async fn a_file_with_a_mistake_of_a_hundred_kilobytes_is_refused_at_once() {
    // A record with one field, whose name is none.
    let name = [b'_'; 100_000];
    let record = [&[1, 0x72, 1], sized(&name).as_slice(), &[0x7f]].concat();
    let component = [COMPONENT, section(7, &record).as_slice()].concat();
    let begun = Instant::now();
    let config = "compile_timeout = \"50s\"\n";
    let error = is_refused(config, component, ["record field name"]).await;
    assert!(error.len() < 5000, "{}", error.len());
    assert!(begun.elapsed() < Duration::from_secs(50));
}

/// Copies in a file that nobody can compile within these bounds. The neighbours go on meanwhile, and
/// the host's own memory stays what it was.
async fn is_not_compiled<const N: usize>(config: &str, says: [&str; N]) {
    is_refused(config, hard_to_compile(), says).await;
}

async fn is_refused<const N: usize>(config: &str, hostile: Vec<u8>, says: [&str; N]) -> String {
    let host = attacked(&Site::embedded(), &format!("{config}{CONFIG}")).await;
    let before = usage(host.pid()).rss_kib;
    host.drop_in("hostile.wasm", hostile);
    neighbours_go_on_until(&host, async || {
        let file = host.file("hostile.wasm").await;
        file.is_some_and(|file| file["state"] == "rejected")
    })
    .await;
    let file = host.file("hostile.wasm").await.unwrap();
    let error = file["error"].as_str().unwrap();
    has(error, says);
    let after = usage(host.pid()).rss_kib;
    assert!(after < before + KEPT_KIB, "{before} → {after} KiB");
    let processes = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", host.pid()));
    assert_eq!(processes.unwrap(), "", "the compiler goes on");
    error.to_owned()
}

const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

fn leb(mut n: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    while n > 0x7f {
        bytes.push(n as u8 | 0x80);
        n >>= 7;
    }
    bytes.push(n as u8);
    bytes
}

fn sized(bytes: &[u8]) -> Vec<u8> {
    [leb(bytes.len() as u32).as_slice(), bytes].concat()
}

fn section(id: u8, bytes: &[u8]) -> Vec<u8> {
    [&[id], sized(bytes).as_slice()].concat()
}

/// A component with one function of 20,000 loops, in which 2,000 variables are alive: a quarter of a
/// megabyte, of which wasmtime's compiler makes gigabytes and minutes.
fn hard_to_compile() -> Vec<u8> {
    const N_LOCALS: u32 = 2000;
    const N_LOOPS: u32 = 20_000;
    // One group of locals of type i32.
    let mut body = [&[1], leb(N_LOCALS).as_slice(), &[0x7f]].concat();
    for n in 0..N_LOOPS {
        let local = leb(n % N_LOCALS);
        // (loop (br_if 0 (local.tee $n (i32.add (local.get $n) (i32.const 1)))))
        body.extend(
            [
                &[0x03, 0x40, 0x20],
                local.as_slice(),
                &[0x41, 1, 0x6a, 0x22],
                &local,
            ]
            .concat(),
        );
        body.extend([0x0d, 0, 0x0b]);
    }
    body.push(0x0b);
    let module = [
        b"\0asm\x01\0\0\0".as_slice(),
        &section(1, &[1, 0x60, 0, 0]),
        &section(3, &[1, 0]),
        &section(10, &[&[1], sized(&body).as_slice()].concat()),
    ];
    [COMPONENT, &section(1, &module.concat())].concat()
}

/// Attacks, and checks all that a host owes its neighbours and its operator. `says`: what the error
/// must say.
async fn survives<const N: usize>(
    site: &Site,
    config: &str,
    order: &Value,
    reason: &str,
    says: [&str; N],
) -> Host {
    let host = attacked(site, config).await;
    let before = usage(host.pid()).rss_kib;
    for _ in 0..N_ATTACKS {
        send(&host, "FK:*", order).await;
    }
    let failed = format!(r#"warren_job_failures_total{{reason="{reason}",worker="FK"}}"#);
    neighbours_go_on_until(&host, async || figure(&host, &failed).await == N_ATTACKS).await;
    neighbours_go_on_until(&host, async || finished(&host, "dead").await == N_ATTACKS).await;

    let line = host.logged("job failed for good", []).await;
    assert_eq!(line["error.type"], reason, "{line}");
    has(line["reason"].as_str().unwrap(), says);
    if let Some(dead) = site.dead_letter("FK").await {
        assert_eq!((dead.reason.as_str(), dead.attempt), (reason, 1));
        has(&dead.error, says);
    }
    // It is still there, and so is the memory.
    call_at_once(&host, "FK:*", &json!({"do": "echo"})).await;
    eventually("the memory comes back", async || {
        (usage(host.pid()).rss_kib < before + KEPT_KIB).then_some(())
    })
    .await;
    host
}

/// The log and a dead letter show the call in which the guest was, bounded.
async fn shows_where<const N: usize>(host: &Host, site: &Site, calls: [&str; N]) {
    let line = host.logged("job failed for good", []).await;
    let stack = line["stack"].as_str().unwrap();
    has(stack, calls);
    assert!(
        stack.len() <= 4 << 10 && stack.lines().count() <= 16,
        "{stack}"
    );
    if let Some(dead) = site.dead_letter("FK").await {
        has(&dead.stack, calls);
        assert!(dead.stack.len() <= 4 << 10, "{}", dead.stack);
    }
}

/// Jobs of the other worker are answered at once, at least five, until this is so.
async fn neighbours_go_on_until(host: &Host, is_so: impl AsyncFn() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    let mut n_answered = 0;
    while n_answered < 5 || !is_so().await {
        assert!(Instant::now() < until, "the attack has not ended");
        let reply = call_at_once(host, "FX:*", &json!({"do": "echo"})).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        n_answered += 1;
    }
}

/// How many jobs of the attacker have ended in this way, those of [`attacked`] left out.
async fn finished(host: &Host, outcome: &str) -> u64 {
    let series = format!(r#"warren_jobs_finished_total{{outcome="{outcome}",worker="FK"}}"#);
    let n_before = u64::from(outcome == "ok");
    figure(host, &series).await.saturating_sub(n_before)
}

/// Nothing of the attacker runs or waits any more.
async fn at_rest(host: &Host) {
    eventually("the attacker is at rest", async || {
        (host.worker("FK").await?["in_flight"] == 0).then_some(())
    })
    .await;
    call_at_once(host, "FK:*", &json!({"do": "echo"})).await;
}
