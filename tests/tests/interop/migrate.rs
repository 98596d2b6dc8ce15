//! `examples/migrate/run`, the story of its README: three Node workers are replaced one after the
//! other, and come back, under the requests of a client that goes on asking.

use std::{env, path::Path, process::Stdio, time::Duration};

use tokio::process::Command;
use warren_tests::{VirtualHost, host::repository};

/// What the script prints, line by line: what runs then.
const STEPS: [&str; 16] = [
    "Node REST, Pilot, DB and manager",
    "warren manager beside them",
    "no Node manager, and a host without plugins",
    "db.wasm beside the Node db",
    "db.wasm alone",
    "pilot.wasm beside the Node pilot",
    "pilot.wasm alone",
    "rest.wasm beside the Node rest",
    "rest.wasm alone: no Node worker is left",
    "the Node db beside db.wasm",
    "the Node db alone",
    "the Node pilot beside pilot.wasm",
    "the Node pilot alone",
    "the Node rest beside rest.wasm",
    "the Node rest alone: no plugin is left",
    "no Warren any more",
];

/// Below what stops a test that hangs, so that the script can still end what it started.
const LONGEST: Duration = Duration::from_secs(150);

#[tokio::test]
async fn three_node_workers_are_replaced_one_after_the_other_and_come_back_in_json() {
    let shares = the_story("json").await;
    // Both kinds of a type have their part of the work, whichever came first.
    assert!(
        shares.iter().all(|share| (10..=90).contains(share)),
        "{shares:?}"
    );
}

#[tokio::test]
async fn three_node_workers_are_replaced_one_after_the_other_and_come_back_in_messagepack() {
    let shares = the_story("msgpack").await;
    assert!(
        shares.iter().all(|share| (10..=90).contains(share)),
        "{shares:?}"
    );
}

#[tokio::test]
async fn three_node_workers_are_replaced_one_after_the_other_and_come_back_in_bson() {
    let shares = the_story("bson").await;
    // What Node workers send goes to Node workers, as long as there are any.
    assert_eq!(shares[..2], [0, 0]);
    assert!(
        shares[2..].iter().all(|share| (10..=90).contains(share)),
        "{shares:?}"
    );
}

/// Plays it, and returns how many of a hundred jobs the plugin ran wherever both kinds served a type.
async fn the_story(encoding: &str) -> Vec<u32> {
    let vhost = VirtualHost::new().await;
    let (code, out, err) = run(&["--broker", vhost.url(), "--encoding", encoding]).await;
    assert_eq!(code, Some(0), "{out}\n{err}");
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(lines.len(), STEPS.len() + 2, "{out}");
    for (line, step) in lines[1..].iter().zip(STEPS) {
        assert!(line.starts_with(step), "{step:?}: {line}");
        assert!(line.contains(" answered   0 failed, "), "{line}");
    }
    let last = lines[STEPS.len() + 1];
    let end = " answered, 0 failed, 0 run twice; 0 Node workers lost their connection";
    assert!(last.ends_with(end), "{last}");
    let both = lines.iter().filter(|line| line.contains(" beside "));
    both.filter_map(|line| {
        let (_, share) = line.split_once(".wasm ran ")?;
        share.strip_suffix(" of 100")?.parse().ok()
    })
    .collect()
}

#[tokio::test]
async fn the_script_of_the_migration_says_what_it_needs() {
    let (code, out, _) = run(&["--help"]).await;
    assert_eq!(code, Some(0));
    for word in [
        "--broker URL",
        "--encoding",
        "cargo build --release",
        "npm ci",
    ] {
        assert!(out.contains(word), "{word}: {out}");
    }
    let (code, _, err) = run(&["--encoding", "xml"]).await;
    assert_eq!(code, Some(64));
    assert!(err.contains("json, bson or msgpack"), "{err}");
    // No broker listens there.
    let (code, _, err) = run(&["--broker", "amqp://guest:guest@127.0.0.1:1"]).await;
    assert_eq!(code, Some(2));
    assert!(err.contains("ECONNREFUSED"), "{err}");
}

/// Runs the script to its end: its exit code, and what it wrote.
async fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    // <target>/release/deps/<test>, as cargo lays it out.
    let test = env::current_exe().unwrap();
    let target = test.ancestors().nth(3).map(Path::to_owned).unwrap();
    let script = Command::new(repository().join("examples/migrate/run"))
        .args(arguments)
        .env("CARGO_TARGET_DIR", target)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = script.id().unwrap().to_string();
    let output = script.wait_with_output();
    tokio::pin!(output);
    let ended = match tokio::time::timeout(LONGEST, &mut output).await {
        Ok(ended) => ended,
        Err(_) => {
            // It ends its processes first.
            let told = Command::new("kill").arg(&pid).status().await;
            assert!(told.unwrap().success());
            output.await
        }
    };
    let ended = ended.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        ended.status.code(),
        text(&ended.stdout),
        text(&ended.stderr),
    )
}
