//! What cannot be done is said at once, and without a password.

use std::time::Duration;

use warren_tests::Command;

#[tokio::test]
async fn the_bus_inside_a_host_has_nothing_to_look_at() {
    for command in ["dlq ls", "topology check"] {
        let ran = Command::new(None, command).run().await.ended_with(1);
        assert!(ran.err.contains("no broker is configured"), "{}", ran.err);
        assert!(ran.err.contains("--broker"), "{}", ran.err);
    }
}

#[tokio::test]
async fn a_broker_that_is_not_there_or_never_answers_is_told_within_ten_seconds() {
    // It accepts, and never speaks.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().unwrap().port();
    for (port, part) in [(1, "nothing listens there"), (silent, "no answer")] {
        let url = format!("amqp://user:hunter2@127.0.0.1:{port}");
        let ran = Command::new(Some(&url), "dlq ls").run().await.ended_with(1);
        assert!(ran.err.contains(part), "{}", ran.err);
        assert!(
            ran.err.contains(&format!("user@127.0.0.1:{port}")),
            "{}",
            ran.err
        );
        assert!(!ran.err.contains("hunter2"), "{}", ran.err);
        assert!(ran.took < Duration::from_secs(11), "{:?}", ran.took);
    }
}

#[tokio::test]
async fn a_mistake_in_an_option_is_misuse() {
    for (command, part) in [
        ("dlq ls --since yesterday", "how long ago"),
        ("dlq ls --where method=GET", "slash: /method"),
        ("dlq ls 1WB", "not a worker type"),
        ("dlq replay", "TYPE"),
        ("dlq replay WB --to nobody:x", "not a stop"),
        ("dlq replay WB --rate 0", "in a second"),
        ("dlq drop WB", "--yes"),
        ("topology prune WB", "--yes"),
        ("dlq ls --broker http://h", "amqp://"),
    ] {
        let ran = Command::new(None, command).run().await.ended_with(64);
        assert!(ran.err.contains(part), "{command}: {}", ran.err);
    }
}
