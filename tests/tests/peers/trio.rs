//! REST, Pilot, DB and manager without any host: what their users have today.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use warren_protocol::Encoding;
use warren_tests::{NodePeer, NodeTrio, VirtualHost, eventually};

#[tokio::test]
async fn the_trio_answers_in_json() {
    the_trio_answers(Encoding::Json).await;
}

#[tokio::test]
async fn the_trio_answers_in_bson() {
    the_trio_answers(Encoding::Bson).await;
}

#[tokio::test]
async fn the_trio_answers_in_messagepack() {
    the_trio_answers(Encoding::MessagePack).await;
}

async fn the_trio_answers(encoding: Encoding) {
    let host = VirtualHost::new().await;
    let mut trio = NodeTrio::start(host.url(), encoding).await;
    let answer = trio.rest.get("/movies/?title=Alien").await;
    assert_eq!(answer.status, 200);
    let text = answer.text();
    assert!(
        text.starts_with("time: ") && text.ends_with(" []"),
        "{text}"
    );
    for path in ["/", "/movies", "/movies/1"] {
        assert_eq!(trio.rest.get(path).await.status, 404, "{path}");
    }
    for peer in [
        &mut trio.rest,
        &mut trio.pilot,
        &mut trio.db,
        &mut trio.manager,
    ] {
        assert!(peer.is_well());
    }
}

#[tokio::test]
async fn what_is_posted_to_an_address_of_the_right_form_is_found_afterwards() {
    let host = VirtualHost::new().await;
    let start = |role| NodePeer::start(host.url(), Encoding::Json, role);
    let (rest, _pilot, _db) =
        tokio::join!(start("rest --post-to WD:*"), start("pilot"), start("db"));
    for title in ["Alien", "Brazil"] {
        let movie = json!({"title": title}).to_string();
        assert_eq!(rest.post("/movies/", &movie).await.status, 200);
    }
    let answer = rest.get("/movies/?title=Brazil").await.text();
    let brazil = r#" [{"id":2,"title":"Brazil","description":null}]"#;
    assert!(answer.ends_with(brazil), "{answer}");
}

/// The example's REST worker sends POST to `WD`, which is the address of nobody; the manager's
/// errors reach nobody either.
#[tokio::test]
async fn a_post_to_the_address_of_nobody_fails_after_ten_seconds() {
    let host = VirtualHost::new().await;
    let trio = NodeTrio::start(host.url(), Encoding::Json).await;
    let begun = Instant::now();
    let answer = trio.rest.post("/movies/", r#"{"title":"Alien"}"#).await;
    let took = begun.elapsed();
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (500, ""));
    let expected = Duration::from_secs(10)..Duration::from_secs(15);
    assert!(expected.contains(&took), "{took:?}");
    assert_eq!(trio.manager.count("complained"), 5);
    let errors = trio.rest.events();
    let errors = errors.iter().filter(|event| event["event"] == "error");
    let matched: Vec<bool> = errors.map(|event| event["matched"] == true).collect();
    assert_eq!(matched, [false; 5]);
}

#[tokio::test]
async fn a_manager_complains_only_about_jobs_that_nobody_it_knows_can_take() {
    let host = VirtualHost::new().await;
    let start = |role| NodePeer::start(host.url(), Encoding::Json, role);
    let (mut manager, mut sender, worker) =
        tokio::join!(start("manager"), start("worker --type TY"), start("worker"));
    let announced = json!({"id": "TZ:9000000000001", "type": "TZ"}).to_string();
    sender
        .publish("worker.new.resend", announced.as_bytes())
        .await;
    manager.wait_for_list(3).await;
    let mut complaints = Vec::new();
    for stop in ["TX:*", worker.id(), "TZ:*", "TZ:9000000000001"] {
        sender.send([stop], &json!({})).await;
    }
    for stop in ["TX", "TW:*", "TX:9000000000001"] {
        complaints.push(sender.send([stop], &json!({})).await);
    }
    worker.leave().await;
    manager.wait_for_list(2).await;
    complaints.push(sender.send(["TX:*"], &json!({})).await);
    // Those of before have been looked at by then. A job is complained about each time it is sent.
    let is_last = |event: &Value| {
        event["event"] == "complained"
            && event["id"].as_str() == complaints.last().map(String::as_str)
    };
    manager.wait_for("the last complaint", is_last).await;
    let events = manager.events();
    let complained = events.iter().filter(|event| event["event"] == "complained");
    let ids: BTreeSet<&str> = complained
        .map(|event| event["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, complaints.iter().map(String::as_str).collect());
}

/// The turn moves with the sender's type, and a DB's answers move nothing.
#[tokio::test]
async fn of_two_dbs_the_last_one_gets_every_job() {
    let host = VirtualHost::new().await;
    let trio = NodeTrio::start(host.url(), Encoding::Json).await;
    let last = NodePeer::start(host.url(), Encoding::Json, "db").await;
    let mut first = trio.db;
    // Who knows of the newcomer has lost its turn to it.
    first.wait_for_list(2).await;
    for _ in 0..10 {
        assert_eq!(trio.rest.get("/movies/").await.status, 200);
    }
    assert_eq!((first.count("taken"), last.count("taken")), (0, 10));
}

#[tokio::test]
async fn two_pilots_take_turns() {
    let host = VirtualHost::new().await;
    let trio = NodeTrio::start(host.url(), Encoding::Json).await;
    let mut first = trio.pilot;
    let second = NodePeer::start(host.url(), Encoding::Json, "pilot").await;
    first.wait_for_list(2).await;
    let mut pilots = [second, first];
    for n_requests in 1..=6 {
        assert_eq!(trio.rest.get("/movies/").await.status, 200);
        // Both must have heard of it before the next request.
        let [second, first] = &mut pilots;
        let is_second = n_requests % 2 == 0;
        eventually("the turn has moved", async || {
            let turns = (second.is_next().await, first.is_next().await);
            (turns == (is_second, !is_second)).then_some(())
        })
        .await;
    }
    assert_eq!(pilots.map(|pilot| pilot.count("taken")), [3, 3]);
}
