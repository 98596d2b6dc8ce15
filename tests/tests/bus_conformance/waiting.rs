//! Cases of what waits: parked jobs, paused workers, jobs that are put back, callers of workers that
//! are not there.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::time::timeout;
use warren_bus::{ABSENCE_GRACE, Kind, Message};
use warren_tests::{eventually, soon};

use crate::world::*;

/// Long enough to see that nothing comes.
const A_WHILE: Duration = Duration::from_millis(500);

pub(crate) async fn a_parked_job_comes_when_its_time_has_come_and_not_before(world: World) {
    let host = world.host().await;
    let worker = new_worker();
    let mut jobs = host.join(&worker, 10).await.unwrap();
    let (sent, start) = (job(&worker, "later"), Instant::now());
    // Less than a second, and more than the shortest tier of RabbitMQ.
    for wait in [300, 2300] {
        let parked = Message {
            id: format!("{}-{wait}", sent.id),
            attempt: 3,
            ..sent.clone()
        };
        host.park(parked, now_ms() + wait).await.unwrap();
    }
    for wait in [300, 2300] {
        let delivery = next(&mut jobs).await;
        let waited = u64::try_from(start.elapsed().as_millis()).unwrap();
        assert_eq!(delivery.message.id, format!("{}-{wait}", sent.id));
        assert_eq!(
            (delivery.message.attempt, text(&delivery).as_str()),
            (3, "later")
        );
        // Milliseconds are cut off when the moment is written.
        assert!(
            waited + 2 >= wait,
            "{wait} ms were asked for, it came after {waited} ms"
        );
        delivery.ack().await.unwrap();
    }
}

pub(crate) async fn a_parked_job_that_nobody_takes_is_buried(world: World) {
    let host = world.host().await;
    // The type is known; the worker that is named is not.
    let worker = new_worker();
    let _jobs = host.join(&worker, 1).await.unwrap();
    let stranger = another(&worker);
    let parked = Message {
        to: warren_protocol::Address::One(stranger),
        ..job(&worker, "for nobody")
    };
    host.park(parked.clone(), now_ms() + 1200).await.unwrap();
    let grave = world.dead_letter(worker.worker_type()).await;
    assert_eq!((grave.id, grave.reason.as_str()), (parked.id, "unrouted"));
}

pub(crate) async fn what_nobody_has_started_is_put_back_for_another_host(world: World) {
    let (one, other) = (world.host().await, world.host().await);
    let worker = new_worker();
    let mut jobs = one.join(&worker, 10).await.unwrap();
    publish_all(&one, &worker, 5).await;
    let taken = take(&mut jobs, 5).await;
    one.leave(&worker).await;
    let mut elsewhere = other.join(&another(&worker), 10).await.unwrap();
    for delivery in taken {
        one.put_back(delivery).await;
    }
    let mut bodies = Vec::new();
    for delivery in take(&mut elsewhere, 5).await {
        assert_eq!(delivery.message.attempt, 1);
        bodies.push(text(&delivery));
        delivery.ack().await.unwrap();
    }
    bodies.sort();
    assert_eq!(bodies, ["0", "1", "2", "3", "4"]);
    assert!(timeout(A_WHILE, elsewhere.recv()).await.is_err());
}

pub(crate) async fn what_is_put_back_goes_behind_the_others(world: World) {
    let host = world.host().await;
    let worker = new_worker();
    let mut jobs = host.join(&worker, 1).await.unwrap();
    let first = job(&worker, "first");
    host.publish(first).await.unwrap();
    let first = next(&mut jobs).await;
    host.publish(job(&worker, "second")).await.unwrap();
    host.put_back(first).await;
    for expected in ["second", "first"] {
        let delivery = next(&mut jobs).await;
        assert_eq!(text(&delivery), expected);
        delivery.ack().await.unwrap();
    }
}

pub(crate) async fn a_paused_worker_gets_nothing_and_goes_on_with_what_waited(world: World) {
    let host = world.host().await;
    let worker = new_worker();
    let mut jobs = host.join(&worker, 10).await.unwrap();
    publish_all(&host, &worker, 1).await;
    let held = next(&mut jobs).await;
    host.set_prefetch(&worker, 0).await;
    eventually("the pause begins", async || {
        // What is delivered before the pause begins is ours, and goes back.
        host.publish(job(&worker, "x")).await.unwrap();
        let came = timeout(A_WHILE, jobs.recv()).await;
        came.is_err().then_some(())
    })
    .await;
    // What it had stays its own.
    held.ack().await.unwrap();
    host.set_prefetch(&worker, 1).await;
    let first = next(&mut jobs).await;
    host.publish(job(&worker, "y")).await.unwrap();
    assert!(
        timeout(A_WHILE, jobs.recv()).await.is_err(),
        "one at a time"
    );
    first.ack().await.unwrap();
    host.set_prefetch(&worker, 10).await;
    next(&mut jobs).await.ack().await.unwrap();
}

pub(crate) async fn a_type_whose_workers_have_all_left_is_absent(world: World) {
    let host = world.host().await;
    let worker = new_worker();
    let _jobs = host.join(&worker, 1).await.unwrap();
    let absence = host.absence(worker.worker_type());
    assert!(timeout(A_WHILE, absence).await.is_err());
    host.leave(&worker).await;
    let left = Instant::now();
    soon("it is told", host.absence(worker.worker_type())).await;
    assert!(left.elapsed() >= ABSENCE_GRACE, "{:?}", left.elapsed());
    // Known by now.
    let at_once = timeout(A_WHILE, host.absence(worker.worker_type()));
    assert!(at_once.await.is_ok());
    let _jobs = host.join(&another(&worker), 1).await.unwrap();
    eventually("it is there again", async || {
        let absence = host.absence(worker.worker_type());
        timeout(A_WHILE, absence).await.is_err().then_some(())
    })
    .await;
}

pub(crate) async fn a_bundle_arrives_whole(world: World) {
    let host = world.host().await;
    let worker = new_worker();
    let mut jobs = host.join(&worker, 1).await.unwrap();
    let parts = [job(&worker, "one\nline"), job(&worker, vec![0, 10, 255])];
    let bundle = Message::bundle(worker.worker_type().clone(), "b".to_owned(), &parts);
    host.publish(bundle).await.unwrap();
    let delivery = next(&mut jobs).await;
    assert_eq!(
        (delivery.message.kind, delivery.message.id.as_str()),
        (Kind::Bundle, "b")
    );
    assert_eq!(delivery.message.unbundle().unwrap(), parts);
    delivery.ack().await.unwrap();
}

pub(crate) async fn the_time_of_the_first_publish_is_kept(world: World) {
    let host = world.host().await;
    let worker = new_worker();
    let mut jobs = host.join(&worker, 1).await.unwrap();
    let before = now_ms();
    host.publish(job(&worker, "x")).await.unwrap();
    let delivery = next(&mut jobs).await;
    let first = delivery.message.first_ms.unwrap();
    assert!((before..=now_ms()).contains(&first), "{first}");
    let again = Message {
        attempt: 2,
        ..delivery.message.clone()
    };
    delivery.ack().await.unwrap();
    host.park(again, now_ms() + 1100).await.unwrap();
    assert_eq!(next(&mut jobs).await.message.first_ms, Some(first));
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap()
}
