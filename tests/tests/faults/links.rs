//! What happens between a host and its broker: the broker restarts or dies, connections are reset,
//! go silent, flap, or never come to be.

use std::time::{Duration, Instant};

use serde_json::json;
use warren_tests::{
    Broker, Setup, Site,
    faults::{
        Direction, Ground, LEDGER, Load, Method, Plan, Proxy, Row, Who, limits, prefetch, usage,
    },
    try_within,
};

use crate::{readiness, secs, until_next_effect};

const CONCURRENCY: u16 = 16;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f05_a_broker_that_restarts_loses_no_job() {
    let row = Row::new(
        "F05",
        "broker restarted at 1/3 and 1/2 of the jobs, 100 publishers",
    );
    let n = Row::sized(1500, 10_000);
    restarts(
        row,
        n,
        [n / 3, n / 2].to_vec(),
        "restarts",
        secs(5),
        Broker::stop,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f06_a_broker_that_is_killed_loses_nothing_that_it_confirmed() {
    let row = Row::new("F06", "broker killed with -9 under load, 100 publishers");
    // Killing takes two seconds: there must be jobs left after the last one.
    let n = 24_000;
    restarts(
        row,
        n,
        [n / 4, n / 2, n * 3 / 4].to_vec(),
        "kill -9",
        secs(31),
        Broker::kill,
    )
    .await;
}

/// Ends the broker when this many jobs have been confirmed, and starts it again.
async fn restarts(
    mut row: Row,
    n: usize,
    at: Vec<usize>,
    what: &str,
    mut bound: Duration,
    end: impl AsyncFn(&mut Broker),
) {
    let mut ground = Ground::new().await;
    let host = ground
        .host("a", [LEDGER], &limits(CONCURRENCY, ""))
        .start()
        .await;
    // Counts what the producers send again on their own account.
    let proxy = ground.proxy().await;
    let plan = Plan::new("r", n).rate(400.0).concurrency(100);
    let load = Load::start(&[proxy.url()], plan);
    let mut slowest = Duration::ZERO;
    for n_confirmed in &at {
        load.acknowledged(*n_confirmed).await;
        let ended = Instant::now();
        end(&mut ground.broker).await;
        ground.broker.start_again().await;
        // Hosts wait longer the longer it lasts: on a machine on which a broker needs its time to
        // start they do so too.
        bound = bound.max(ended.elapsed());
        slowest = slowest.max(until_next_effect(&ground.ledger, |_| true).await);
    }
    let sent = load.finish().await;
    let checker = ground.checker();
    row.injected(format!("{} {what}", at.len()));
    row.figures(&checker.settle(&sent, secs(90)).await);
    let n_frames = proxy.n_frames(Direction::ToServer, Method::BASIC_PUBLISH, Who::All);
    let n_again = n_frames.saturating_sub(sent.attempted.len());
    row.note(format!("{n_again} sent again by the producers' bus"));
    row.allow_duplicates(at.len() * usize::from(prefetch(CONCURRENCY)) + n_again);
    row.recovery(slowest, bound);
    row.note("recovery: from the open port to the next effect");
    row.check_ok(checker.at_rest(1, prefetch(CONCURRENCY)).await);
    drop(host);
    row.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f07_a_reset_of_any_connection_is_recovered_from_at_once() {
    let mut row = Row::new("F07", "TCP reset of each connection of a host");
    let ground = Ground::new().await;
    let proxy = ground.proxy().await;
    let host = through(&ground, &proxy, "a").start().await;
    let load = ground.load(Plan::new("f07", Row::sized(1500, 3000)).rate(100.0));
    load.acknowledged(50).await;
    let mut n_resets = 0;
    let mut slowest = Duration::ZERO;
    for role in ["consume", "publish", "manage", "janitor", "peers"] {
        let n_before = proxy.n_accepted();
        let n = proxy.rst(role);
        if n == 0 {
            continue;
        }
        n_resets += n;
        let took = until_next_effect(&ground.ledger, |_| true).await;
        slowest = slowest.max(took);
        tokio::time::sleep(secs(2)).await;
        host.ready().await;
        let n_new = proxy.n_accepted() - n_before;
        row.note(format!(
            "{role}: {:.1} s, {n_new} connections made anew",
            took.as_secs_f64()
        ));
    }
    let sent = load.finish().await;
    row.check(n_resets >= 2, format!("{n_resets} connections were reset"));
    row.injected(format!("{n_resets} RST"));
    row.figures(&ground.checker().settle(&sent, secs(60)).await);
    row.allow_duplicates(n_resets * usize::from(prefetch(CONCURRENCY)));
    row.recovery(slowest, secs(2));
    row.check_ok(ground.checker().at_rest(1, prefetch(CONCURRENCY)).await);
    row.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f08_a_link_that_goes_silent_is_noticed_and_replaced() {
    let mut row = Row::new("F08", "link silent for 60 s (half-open)");
    let ground = Ground::new().await;
    let proxy = ground.proxy().await;
    let cut_off = through(&ground, &proxy, "cut-off").start().await;
    let spare = ground
        .host("spare", [LEDGER], &limits(CONCURRENCY, ""))
        .start()
        .await;
    let load = ground.load(
        Plan::new("f08", 4500)
            .rate(50.0)
            .of(["FL:*"], json!({"work_ms": 20})),
    );
    load.acknowledged(100).await;
    let hole = Instant::now();
    proxy.blackhole(Who::All);
    let noticed = readiness(&cut_off, false, secs(40)).await;
    if let Ok(took) = &noticed {
        row.note(format!("noticed after {:.1} s", took.as_secs_f64()));
        row.check(*took <= secs(24), format!("noticed after {took:?}"));
    }
    row.check_ok(noticed);
    tokio::time::sleep(secs(60).saturating_sub(hole.elapsed())).await;
    proxy.pass(Who::All);
    let back = until_next_effect(&ground.ledger, |run| run.slot == "cut-off").await;
    let sent = load.finish().await;
    row.injected("1 blackhole of 60 s, both ways, all connections of a host");
    row.figures(&ground.checker().settle(&sent, secs(60)).await);
    row.allow_duplicates(usize::from(prefetch(CONCURRENCY)));
    row.recovery(back, secs(40));
    row.note("recovery: a connect that hangs (10 s) and the longest backoff (30 s)");
    let n_locked = cut_off.log().matches("RESOURCE_LOCKED").count();
    row.check(
        n_locked <= 3,
        format!("{n_locked} lines with RESOURCE_LOCKED"),
    );
    row.check_ok(ground.checker().at_rest(2, prefetch(CONCURRENCY)).await);
    drop(spare);
    row.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f09_a_link_that_flaps_costs_no_job_and_no_thread() {
    const FOR: Duration = Duration::from_secs(75);
    let mut row = Row::new(
        "F09",
        "all connections reset every 3 s for 75 s (not 5 min)",
    );
    let ground = Ground::new().await;
    let proxy = ground.proxy().await;
    let host = through(&ground, &proxy, "a").start().await;
    let load = ground.load(Plan::new("f09", 2800).rate(35.0));
    load.acknowledged(100).await;
    let before = usage(host.pid());
    let (since, n_before) = (Instant::now(), proxy.n_accepted());
    let mut n_cuts = 0;
    while since.elapsed() < FOR {
        tokio::time::sleep(secs(3)).await;
        proxy.rst(Who::All);
        n_cuts += 1;
    }
    let n_effects = ground.ledger.effects("FL").await.len();
    let n_connects = proxy.n_accepted() - n_before;
    let sent = load.finish().await;
    let figures = ground.checker().settle(&sent, secs(90)).await;
    host.ready().await;
    // Connections that were reset may be on their way out.
    let rest = try_within(secs(20), async || {
        let after = usage(host.pid());
        (after.n_io_loops <= before.n_io_loops
            && after.n_threads <= before.n_threads + 1
            && after.n_sockets <= before.n_sockets + 1)
            .then_some(after)
    });
    let rest = rest.await;
    let after = rest.unwrap_or_else(|| usage(host.pid()));
    row.injected(format!("{n_cuts} resets of all connections"));
    row.figures(&figures);
    row.allow_duplicates(n_cuts * usize::from(prefetch(CONCURRENCY)));
    row.check(
        n_effects > 150,
        format!("{n_effects} effects while it flapped"),
    );
    row.check(
        rest.is_some(),
        format!("before {before:?}, after {after:?}"),
    );
    row.check(
        after.rss_kib < before.rss_kib * 6 / 5 + 20_000,
        format!(
            "memory went from {} to {} KiB",
            before.rss_kib, after.rss_kib
        ),
    );
    row.note(format!(
        "{n_connects} connects; threads {} → {}, sockets {} → {}, {} → {} MiB",
        before.n_threads,
        after.n_threads,
        before.n_sockets,
        after.n_sockets,
        before.rss_kib / 1024,
        after.rss_kib / 1024
    ));
    row.check_ok(ground.checker().at_rest(1, prefetch(CONCURRENCY)).await);
    row.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f10_a_broker_that_comes_later_is_found() {
    let absent = secs(Row::sized(8, 60));
    let mut row = Row::new("F10", "broker absent at the start of a host");
    let mut ground = Ground::new().await;
    ground.broker.stop().await;
    let host = ground.host("a", [LEDGER], &limits(CONCURRENCY, ""));
    let host = host.start_unready().await;
    row.check_ok(readiness(&host, false, secs(10)).await);
    let said = host.admin("/readyz").await.text();
    row.check(said.contains("bus: "), format!("readiness says: {said}"));
    tokio::time::sleep(absent).await;
    ground.broker.start_again().await;
    let found = Instant::now();
    row.check_ok(readiness(&host, true, secs(60)).await);
    let found = found.elapsed();
    let sent = ground.load(Plan::new("f10", 100)).finish().await;
    row.injected(format!(
        "1 start, {} s before the broker's",
        absent.as_secs()
    ));
    row.figures(&ground.checker().settle(&sent, secs(30)).await);
    row.allow_duplicates(0);
    row.recovery(found, secs(31));
    row.note("recovery: from the open port to ready, bounded by the backoff (30 s)");
    row.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f11_what_is_wrong_with_an_account_is_said_clearly_and_soon() {
    let mut row = Row::new("F11", "wrong password, wrong virtual host");
    let ground = Ground::new().await;
    let port = ground.broker.port();
    let mut slowest = Duration::ZERO;
    for (url, words) in [
        (
            format!("amqp://guest:hunter2@127.0.0.1:{port}"),
            "check the password of `guest`",
        ),
        (
            format!("amqp://nobody:hunter2@127.0.0.1:{port}"),
            "check the password of `nobody`",
        ),
        (
            format!("amqp://guest:guest@127.0.0.1:{port}/elsewhere"),
            "create the virtual host `elsewhere`",
        ),
    ] {
        let setup = Setup::new(&Site::of(&ground.broker)).with_broker(&url);
        let since = Instant::now();
        let host = setup.with_plugins([LEDGER]).start_unready().await;
        let mut said = String::new();
        let clear = try_within(secs(10), async || {
            said = host.admin("/readyz").await.text();
            said.contains(words).then_some(())
        });
        let clear = clear.await;
        slowest = slowest.max(since.elapsed());
        row.check(clear.is_some(), format!("{words:?} is not said: {said}"));
        let log = host.log();
        row.check(log.contains(words), format!("{words:?} is not in the log"));
        row.check(!(log + &said).contains("hunter2"), "the password is shown");
    }
    row.injected("3 wrong URLs");
    row.recovery(slowest, secs(10));
    row.note("recovery: from the start to the words; TLS has rows of its own");
    row.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f12_a_broker_that_never_speaks_is_passed_over() {
    let mut row = Row::new(
        "F12",
        "broker that accepts and never speaks, another one beside it",
    );
    let ground = Ground::new().await;
    let proxy = ground.proxy().await;
    proxy.mute();
    let urls = format!("{},{}", proxy.url(), ground.broker.url());
    let setup = ground
        .host("a", [LEDGER], &limits(CONCURRENCY, ""))
        .with_broker(&urls);
    let since = Instant::now();
    let host = setup.start_unready().await;
    row.check_ok(readiness(&host, true, secs(40)).await);
    let took = since.elapsed();
    let sent = ground.load(Plan::new("f12", 100)).finish().await;
    row.injected("1 mute node of 2");
    row.figures(&ground.checker().settle(&sent, secs(30)).await);
    row.allow_duplicates(0);
    row.recovery(took, secs(13));
    row.note("recovery: from the start to ready, the 10 s of a connect included");
    row.check(proxy.n_accepted() > 0, "the mute node was not tried");
    row.finish();
}

/// A host whose link is the proxy.
pub(crate) fn through(ground: &Ground, proxy: &Proxy, slot: &str) -> Setup {
    let setup = ground.host(slot, [LEDGER], &limits(CONCURRENCY, ""));
    setup.with_broker(&proxy.url())
}
