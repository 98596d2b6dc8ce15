//! Who takes a job, and how often it is sent.

use serde_json::{Value, json};
use warren_protocol::Encoding;
use warren_tests::{NodePeer, VirtualHost};

#[tokio::test]
async fn a_job_for_one_worker_is_taken_by_it_whoever_has_the_turn() {
    let host = VirtualHost::new().await;
    let mut pool = pool_of::<2>(&host).await;
    let mut sender = NodePeer::start(host.url(), Encoding::Json, "worker --type TY").await;
    for worker in &mut pool {
        let job = sender.send([worker.id(), "TZ:*"], &json!({"n": 1})).await;
        let taken = worker.next("taken").await;
        assert_eq!(
            (
                &taken["id"],
                &taken["ignoreUpdate"],
                &taken["workers_list_id"]
            ),
            (&json!(job), &json!(true), &json!(1))
        );
        let acked = sender.next("acked").await;
        assert_eq!(
            (&acked["id"], &acked["ignoreUpdate"]),
            (&json!(job), &json!(true))
        );
    }
    assert_eq!(pool.map(|worker| worker.count("taken")), [1, 1]);
}

#[tokio::test]
async fn a_job_that_nobody_takes_is_sent_five_times_and_given_up() {
    let host = VirtualHost::new().await;
    let observer = NodePeer::start(host.url(), Encoding::Json, "observer").await;
    let mut sender = NodePeer::start(host.url(), Encoding::Json, "worker --type TY").await;
    let mut worker = NodePeer::start(host.url(), Encoding::Json, "worker").await;
    worker.hold().await;
    let job = sender.send(["TX:*"], &json!({"n": 1})).await;
    assert_eq!(sender.next("gaveup").await["id"], job.as_str());
    let sent = jobs(&observer.events());
    assert_eq!(sent.len(), 5);
    let pauses: Vec<u64> = sent
        .windows(2)
        .map(|pair| at(&pair[1]) - at(&pair[0]))
        .collect();
    assert!(
        pauses.iter().all(|pause| (1900..4000).contains(pause)),
        "{pauses:?}"
    );
    assert!(sent.iter().all(|message| message["hex"] == sent[0]["hex"]));
    worker.go().await;
    let job = sender.send(["TX:*"], &json!({"n": 2})).await;
    assert_eq!(worker.next("taken").await["id"], job.as_str());
    assert_eq!(sender.next("acked").await["id"], job.as_str());
}

/// PROTOCOL 6.3: two messages by which a gateway has every job of a type to itself.
#[tokio::test]
async fn a_pinned_pool_is_deaf_to_jobs_for_anyone_of_its_type() {
    let host = VirtualHost::new().await;
    let mut pool = pool_of::<2>(&host).await;
    let mut sender = NodePeer::start(host.url(), Encoding::Json, "worker --type TY").await;
    let entry =
        |id: &str, is_next: bool| json!({"worker": {"id": id, "type": "TX"}, "isNext": is_next});
    let [p1, p2, x] = ["TX:9000000000001", "TX:9000000000002", "TX:9000000000003"];
    let list = json!([entry(p1, true), entry(p2, false), entry(x, false)]);
    sender
        .publish("worker.list", list.to_string().as_bytes())
        .await;
    for worker in &mut pool {
        worker.wait_for_list(3).await;
    }
    let removal = json!({"id": x, "type": "TX"}).to_string();
    sender.publish("worker.del", removal.as_bytes()).await;
    for worker in &mut pool {
        let list = worker.wait_for_list(2).await;
        assert_eq!(list["isMyTurn"], false);
        assert_eq!(list["workers"], json!([entry(p1, false), entry(p2, true)]));
    }
    sender.send(["TX:*"], &json!({})).await;
    // Each has passed over that one when it takes the next.
    for worker in &mut pool {
        let direct = sender.send([worker.id()], &json!({})).await;
        assert_eq!(worker.next("taken").await["id"], direct.as_str());
    }
}

#[tokio::test]
async fn who_is_interrupted_says_goodbye_and_who_is_terminated_does_not() {
    let host = VirtualHost::new().await;
    let mut observer = NodePeer::start(host.url(), Encoding::Json, "observer").await;
    let [terminated, interrupted] = pool_of::<2>(&host).await;
    let id = interrupted.id().to_owned();
    terminated.stop().await;
    interrupted.leave().await;
    observer
        .wait_for("a goodbye", |event| event["key"] == "worker.del")
        .await;
    // A message sent now comes after a goodbye that was said before.
    observer.publish("worker.del", b"the end").await;
    observer
        .wait_for("the end", |event| event["text"] == "the end")
        .await;
    let events = observer.events();
    let goodbyes: Vec<_> = events
        .iter()
        .filter(|event| event["key"] == "worker.del")
        .collect();
    assert_eq!(goodbyes.len(), 2);
    assert_eq!(goodbyes[0]["value"]["id"], id.as_str());
}

#[tokio::test]
async fn a_peer_ends_with_its_input() {
    let host = VirtualHost::new().await;
    let mut worker = NodePeer::start(host.url(), Encoding::Json, "worker").await;
    worker.hold().await;
    worker.hang_up().await;
}

/// Workers of type `TX` who all know each other.
async fn pool_of<const N: usize>(host: &VirtualHost) -> [NodePeer; N] {
    let mut pool = Vec::new();
    for _ in 0..N {
        pool.push(NodePeer::start(host.url(), Encoding::Json, "worker").await);
        let n_workers = pool.len();
        for worker in &mut pool {
            worker.wait_for_list(n_workers).await;
        }
    }
    pool.try_into().ok().unwrap()
}

fn jobs(events: &[Value]) -> Vec<Value> {
    let jobs = events.iter().filter(|event| event["key"] == "worker.next");
    jobs.cloned().collect()
}

fn at(event: &Value) -> u64 {
    event["at"].as_u64().unwrap()
}
