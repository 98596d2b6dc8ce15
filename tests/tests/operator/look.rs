//! Looking at dead letters: it finds everything, and disturbs nothing.

use bytes::Bytes;
use lapin::types::AMQPValue;
use serde_json::{Value, json};
use warren_protocol::Encoding;
use warren_tests::{Command, Setup, Site};

use crate::bench::{Bench, headers, id_of};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn looking_at_dead_letters_disturbs_nothing_in_their_queue() {
    let bench = Bench::new().await;
    for n in 0..100 {
        let job = bench.job(&format!("m{n:03}"), Encoding::Json, &json!({"n": n}));
        bench.bury(job, "permanent", "no").await;
    }
    let own = bench.own.clone();
    for look in [
        "dlq ls".to_owned(),
        format!("dlq ls {own}"),
        format!("dlq show m050 --type {own}"),
        format!("dlq show m050 --type {own} --raw"),
        format!("dlq export {own}"),
        format!("dlq replay {own} --dry-run"),
        format!("dlq drop {own} --dry-run"),
        format!("topology check --type {own}"),
        format!("topology plan --type {own}"),
        format!("topology prune {own} --dry-run"),
    ] {
        bench.warren(&look).await.ended_with(0);
    }
    assert_eq!(bench.n_ready(&bench.queue("dlq")).await, Some(100));
    let all = bench.take_all(&bench.queue("dlq")).await;
    let ids: Vec<_> = all.iter().map(|letter| id_of(&letter.properties)).collect();
    let expected: Vec<_> = (0..100).map(|n| format!("m{n:03}")).collect();
    assert_eq!(ids, expected);
    for letter in all {
        assert!(!letter.redelivered);
        let n_deliveries = headers(&letter.properties).remove("x-delivery-count");
        assert!(
            matches!(n_deliveries, None | Some(AMQPValue::LongLongInt(0))),
            "{n_deliveries:?}"
        );
    }
    bench.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_are_counted_by_type_and_reason() {
    let bench = Bench::new().await;
    for (id, reason, error) in [
        ("a", "trap", "unreachable"),
        ("b", "trap", "unreachable"),
        ("c", "trap", "out of bounds\nsecond line"),
        ("d", "expired", "too late"),
    ] {
        let job = bench.job(id, Encoding::Json, &json!(null));
        bench.bury(job, reason, error).await;
    }
    let listed = bench.warren("dlq ls --json").await.ended_with(0);
    let groups: Vec<_> = listed
        .json()
        .into_iter()
        .filter(|line| line["kind"] == "group" && line["type"] == bench.own.as_str())
        .map(|group| {
            assert!(group["oldest"].as_str().unwrap() <= group["newest"].as_str().unwrap());
            json!([
                group["reason"],
                group["count"],
                group["error"],
                group["error_count"]
            ])
        })
        .collect();
    assert_eq!(
        groups,
        [
            json!(["expired", 1, "too late", 1]),
            json!(["trap", 3, "unreachable", 2])
        ]
    );
    // For a person: the same, with the first line of an error only.
    let told = bench
        .warren(&format!("dlq ls {}", bench.own))
        .await
        .ended_with(0)
        .text();
    let line = told.lines().find(|line| line.starts_with("c ")).unwrap();
    assert!(
        line.contains("trap") && line.ends_with("out of bounds"),
        "{line}"
    );
    assert!(
        line.contains(" 3 ") && line.contains("test.wasm 0.1.0"),
        "{line}"
    );
    bench.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_differs_from_the_log_is_told() {
    let bench = Bench::new().await;
    let job = bench.job("a", Encoding::Json, &json!(null));
    bench.bury(job, "trap", "ouch").await;
    let list = format!("dlq ls {}", bench.own);
    let told = bench.warren(&list).await.ended_with(0).text();
    assert!(!told.contains("note: warren.v1.dlq"), "{told}");
    // By hand, so that nothing is noted.
    bench.take_all(&bench.queue("dlq")).await;
    let told = bench.warren(&list).await.ended_with(0).text();
    assert!(told.contains("has 0 ready, the log knows 1"), "{told}");
    bench.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_about_a_dead_letter_is_shown_whatever_its_encoding() {
    let bench = Bench::new().await;
    let data = json!({"title": "Alien", "year": 1979});
    for (id, encoding) in [
        ("j", Encoding::Json),
        ("b", Encoding::Bson),
        ("m", Encoding::MessagePack),
    ] {
        let job = bench.job(id, encoding, &data);
        let body = job.body.clone();
        bench
            .bury(job, "max_attempts", "first line\nsecond line")
            .await;
        let show = format!("dlq show {id} --type {}", bench.own);
        let told = bench.warren(&show).await.ended_with(0).text();
        for part in [
            "max_attempts",
            "first line\n            second line",
            "stack       0: test::inner at src/lib.rs:7:9\n            1: test::outer",
            "attempts    3",
            "test.wasm 0.1.0 abab",
            "host        bench",
            &format!("[{}:*] > ZZ:*", bench.own),
            "WA:9123456789012",
            "\"title\": \"Alien\"",
            "\"year\": 1979",
            &encoding.to_string(),
        ] {
            assert!(told.contains(part), "{part:?} is not in {told}");
        }
        let raw = bench.warren(&format!("{show} --raw")).await.ended_with(0);
        assert_eq!(Bytes::from(raw.out), body);
        let line = bench
            .warren(&format!("{show} --json"))
            .await
            .ended_with(0)
            .json();
        assert_eq!(line[0]["job"]["data"], data);
    }
    let missing = format!("dlq show nobody --type {}", bench.own);
    let missing = bench.warren(&missing).await.ended_with(1);
    assert!(missing.err.contains("nobody"), "{}", missing.err);
    bench.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminal_is_not_told_what_to_do_by_the_error_of_a_plugin() {
    let bench = Bench::new().await;
    let job = bench.job("evil", Encoding::Json, &json!("\u{1b}[2J"));
    bench.bury(job, "trap", "\u{1b}]0;owned\u{7}").await;
    for look in [
        format!("dlq ls {}", bench.own),
        format!("dlq show evil --type {}", bench.own),
    ] {
        let ran = bench.warren(&look).await.ended_with(0);
        assert!(
            ran.text().contains("owned") && !ran.out.contains(&0x1b),
            "{ran:?}"
        );
    }
    bench.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_has_one_readable_line_for_each_dead_letter_that_is_there() {
    let bench = Bench::new().await;
    let jobs = [
        bench.job("one", Encoding::Bson, &json!({"n": 1})),
        bench.job("gone", Encoding::Json, &json!({"n": 2})),
        bench.message("junk", Encoding::Json, Bytes::from_static(b"{no job")),
    ];
    for job in jobs {
        bench.bury(job, "permanent", "no").await;
    }
    let own = &bench.own;
    let drop = format!("dlq drop {own} --id gone --yes");
    bench.warren(&drop).await.ended_with(0);
    let exported = bench
        .warren(&format!("dlq export {own}"))
        .await
        .ended_with(0);
    let lines = exported.json();
    let ids: Vec<_> = lines
        .iter()
        .map(|line| line["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, ["one", "junk"]);
    assert_eq!(lines[0]["job"]["data"], json!({"n": 1}));
    assert_eq!(
        lines[0]["job"]["route"],
        json!([format!("{own}:*"), "ZZ:*"])
    );
    assert_eq!(
        (&lines[0]["attempts"], &lines[0]["encoding"]),
        (&json!(3), &json!("BSON"))
    );
    // `{no job` in base64.
    assert_eq!(lines[1]["body_base64"], "e25vIGpvYg==");
    assert_eq!(lines[1].get("job"), None);

    let (mut child, folder) = Command::new(
        Some(&bench.url),
        &format!("dlq export {own} --base64 --output letters.jsonl"),
    )
    .spawn();
    assert!(child.wait().await.unwrap().success());
    let text = std::fs::read_to_string(folder.path().join("letters.jsonl")).unwrap();
    let first: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert!(
        first["body_base64"].is_string() && first.get("job").is_none(),
        "{first}"
    );
    bench.leave().await;
}

/// Named like the end-to-end tests that take turns on the shared broker.
mod rabbitmq {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_a_host_gives_up_is_listed_and_a_replay_that_fails_again_ends() {
        let site = Site::rabbitmq().await;
        let url = site.url().unwrap().to_owned();
        let setup = Setup::new(&site).with_plugins(["faulty", "http_faulty"]);
        let host = setup.start().await;
        let order = json!({"do": "reject", "reason": "never ever"}).to_string();
        let sent = host.post("/faulty/?do=send&to=FX:*", order).await;
        assert_eq!(sent.status, 200);
        let letters = async || {
            let ran = Command::new(Some(&url), "dlq ls FX --since 5m --json")
                .run()
                .await;
            let letters = ran.ended_with(0).json().into_iter();
            letters
                .filter(|line| line["kind"] == "letter" && line["error"] == "never ever")
                .collect::<Vec<_>>()
        };
        let first =
            warren_tests::eventually("the job is given up", async || letters().await.pop()).await;
        assert_eq!(first["reason"], "permanent");
        assert!(
            first["plugin"]
                .as_str()
                .unwrap()
                .starts_with("faulty.wasm 0.1.0")
        );
        // It comes back at once, and is not replayed again.
        let id = first["id"].as_str().unwrap();
        let replay = format!("dlq replay FX --id {id} --json");
        let ran = Command::new(Some(&url), &replay).run().await.ended_with(0);
        assert_eq!(ran.line("summary")["replayed"], 1);
        let again = warren_tests::eventually("the job is given up again", async || {
            let there = letters().await;
            there
                .into_iter()
                .find(|letter| letter["died"] != first["died"])
        })
        .await;
        assert_eq!(again["id"], first["id"]);
        assert_eq!(letters().await.len(), 1);
        assert_eq!(host.stop().await.code, Some(0));
    }
}
