//! What a bus promises, as one list of cases that both implementations pass: the embedded bus and
//! RabbitMQ. On a shared broker the cases keep apart by worker types of their own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod waiting;
mod world;

use std::collections::BTreeSet;

use futures_util::future::join_all;
use waiting::*;
use warren_bus::{Epitaph, JoinError, Kind, Message, PublishError};
use warren_protocol::{Address, Encoding};
use warren_tests::soon;
use world::*;

/// Makes a test of each case on each bus.
macro_rules! cases {
    ($($case:ident)*) => {
        mod embedded {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    super::$case(super::World::embedded()).await;
                }
            )*
        }
        mod rabbitmq {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    super::$case(super::World::rabbitmq().await).await;
                }
            )*
        }
    };
}

cases! {
    a_job_arrives_with_everything_it_carries
    a_type_that_nobody_has_served_is_unroutable
    of_many_publishes_at_once_exactly_the_unroutable_ones_are_refused
    jobs_wait_while_nobody_serves_their_type
    two_hosts_share_the_jobs_of_a_type
    the_prefetch_bounds_what_a_subscription_holds
    what_is_dropped_or_given_back_is_delivered_again
    what_is_acknowledged_is_not_delivered_again
    a_message_by_id_reaches_that_worker_s_host_only
    a_reply_does_not_wait_behind_jobs
    leaving_stops_new_jobs_and_loses_none
    an_id_is_reachable_after_leaving_and_unroutable_when_forgotten
    a_buried_job_is_kept_with_its_epitaph
    a_host_serves_a_type_once
    closing_gives_back_what_nobody_has_started
    a_body_of_five_megabytes_arrives_whole
    the_jobs_of_one_sender_arrive_in_order
    a_body_above_the_limit_is_refused
    a_closed_bus_takes_nothing
    a_parked_job_comes_when_its_time_has_come_and_not_before
    a_parked_job_that_nobody_takes_is_buried
    what_nobody_has_started_is_put_back_for_another_host
    what_is_put_back_goes_behind_the_others
    a_paused_worker_gets_nothing_and_goes_on_with_what_waited
    a_type_whose_workers_have_all_left_is_absent
    a_bundle_arrives_whole
    the_time_of_the_first_publish_is_kept
}

async fn a_job_arrives_with_everything_it_carries(world: World) {
    let host = world.host().await;
    let worker = new_worker();
    let mut jobs = host.join(&worker, 10).await.unwrap();
    let sent = Message {
        encoding: Encoding::MessagePack,
        correlation_id: Some("call-1".to_owned()),
        reply_to: Some(new_worker()),
        attempt: 4,
        deadline_ms: Some(1_795_220_940_610),
        first_ms: Some(1_795_220_900_123),
        trace_parent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
        ..job(&worker, "body")
    };
    host.publish(sent.clone()).await.unwrap();
    let delivery = next(&mut jobs).await;
    assert_eq!(delivery.message, sent);
    assert!(!delivery.redelivered);
    assert!(!delivery.lost.is_cancelled());
    delivery.ack().await.unwrap();
    host.close().await;
}

async fn a_type_that_nobody_has_served_is_unroutable(world: World) {
    let host = world.host().await;
    let message = job(&new_worker(), "x");
    let address = message.to.to_string();
    let refused = host.publish(message).await;
    assert_eq!(refused, Err(PublishError::Unroutable(address)));
    host.close().await;
}

async fn of_many_publishes_at_once_exactly_the_unroutable_ones_are_refused(world: World) {
    let host = world.host().await;
    let (known, unknown) = (new_worker(), new_worker());
    let _jobs = host.join(&known, 200).await.unwrap();
    let publishes = (0..100).map(|n| {
        let worker = if n % 2 == 0 { &known } else { &unknown };
        host.publish(job(worker, n.to_string()))
    });
    for (n, result) in join_all(publishes).await.into_iter().enumerate() {
        if n % 2 == 0 {
            assert_eq!(result, Ok(()), "publish {n}");
        } else {
            assert!(
                matches!(result, Err(PublishError::Unroutable(_))),
                "publish {n}: {result:?}"
            );
        }
    }
    host.close().await;
}

async fn jobs_wait_while_nobody_serves_their_type(world: World) {
    let (first, second) = (world.host().await, world.host().await);
    let worker = new_worker();
    let _jobs = first.join(&worker, 10).await.unwrap();
    first.leave(&worker).await;
    second.publish(job(&worker, "waits")).await.unwrap();
    let mut jobs = second.join(&another(&worker), 10).await.unwrap();
    let delivery = next(&mut jobs).await;
    assert_eq!(text(&delivery), "waits");
    delivery.ack().await.unwrap();
    first.close().await;
    second.close().await;
}

async fn two_hosts_share_the_jobs_of_a_type(world: World) {
    let (first, second) = (world.host().await, world.host().await);
    let worker = new_worker();
    let mut at_first = first.join(&worker, 1).await.unwrap();
    let mut at_second = second.join(&another(&worker), 1).await.unwrap();
    publish_all(&first, &worker, 20).await;
    let mut seen = BTreeSet::new();
    for _ in 0..10 {
        // Neither goes on before the other has had its share.
        let (one, other) = (next(&mut at_first).await, next(&mut at_second).await);
        assert!(seen.insert(text(&one)) && seen.insert(text(&other)));
        one.ack().await.unwrap();
        other.ack().await.unwrap();
    }
    assert_eq!(seen.len(), 20);
    first.close().await;
    second.close().await;
}

async fn the_prefetch_bounds_what_a_subscription_holds(world: World) {
    let (first, second) = (world.host().await, world.host().await);
    let worker = new_worker();
    let mut at_first = first.join(&worker, 3).await.unwrap();
    publish_all(&first, &worker, 10).await;
    let held = take(&mut at_first, 3).await;
    let mut at_second = second.join(&another(&worker), 10).await.unwrap();
    let rest = take(&mut at_second, 7).await;
    assert!(
        at_first.try_recv().is_err(),
        "a fourth delivery with a prefetch of three"
    );
    for delivery in held.into_iter().chain(rest) {
        delivery.ack().await.unwrap();
    }
    first.close().await;
    second.close().await;
}

async fn what_is_dropped_or_given_back_is_delivered_again(world: World) {
    let host = world.host().await;
    let worker = new_worker();
    let mut jobs = host.join(&worker, 1).await.unwrap();
    host.publish(job(&worker, "again")).await.unwrap();
    let first = next(&mut jobs).await;
    assert!(!first.redelivered);
    first.give_back();
    let second = next(&mut jobs).await;
    assert!(second.redelivered);
    drop(second);
    let third = next(&mut jobs).await;
    assert!(third.redelivered);
    assert_eq!(text(&third), "again");
    third.ack().await.unwrap();
    host.close().await;
}

async fn what_is_acknowledged_is_not_delivered_again(world: World) {
    let (first, second) = (world.host().await, world.host().await);
    let worker = new_worker();
    let mut jobs = first.join(&worker, 10).await.unwrap();
    publish_all(&first, &worker, 2).await;
    for delivery in take(&mut jobs, 2).await {
        if text(&delivery) == "0" {
            delivery.ack().await.unwrap();
        }
    }
    first.close().await;
    let mut jobs = second.join(&another(&worker), 10).await.unwrap();
    let again = next(&mut jobs).await;
    assert_eq!(text(&again), "1");
    again.ack().await.unwrap();
    assert!(jobs.try_recv().is_err());
    second.close().await;
}

async fn a_message_by_id_reaches_that_worker_s_host_only(world: World) {
    let (mut first, second) = (world.host().await, world.host().await);
    let here = new_worker();
    let there = another(&here);
    let mut at_first = first.join(&here, 10).await.unwrap();
    let mut at_second = second.join(&there, 10).await.unwrap();
    for n in 0..10 {
        let message = Message {
            to: Address::One(here.clone()),
            ..job(&here, n.to_string())
        };
        second.publish(message).await.unwrap();
    }
    for n in 0..10 {
        let delivery = next(&mut first.inbox).await;
        assert_eq!(text(&delivery), n.to_string());
        assert_eq!(delivery.message.to, Address::One(here.clone()));
        delivery.ack().await.unwrap();
    }
    assert!(at_first.try_recv().is_err() && at_second.try_recv().is_err());
    first.close().await;
    second.close().await;
}

async fn a_reply_does_not_wait_behind_jobs(world: World) {
    let mut host = world.host().await;
    let worker = new_worker();
    let mut jobs = host.join(&worker, 2).await.unwrap();
    publish_all(&host, &worker, 1000).await;
    let _busy = take(&mut jobs, 2).await;
    let reply = Message {
        to: Address::One(worker.clone()),
        kind: Kind::Reply,
        ..job(&worker, "reply")
    };
    host.publish(reply).await.unwrap();
    let delivery = next(&mut host.inbox).await;
    assert_eq!(
        (delivery.message.kind, text(&delivery)),
        (Kind::Reply, "reply".to_owned())
    );
    delivery.ack().await.unwrap();
    host.close().await;
}

async fn leaving_stops_new_jobs_and_loses_none(world: World) {
    let (first, second) = (world.host().await, world.host().await);
    let worker = new_worker();
    let mut jobs = first.join(&worker, 5).await.unwrap();
    publish_all(&first, &worker, 20).await;
    let started = next(&mut jobs).await;
    let mut seen = BTreeSet::from([text(&started)]);
    first.leave(&worker).await;
    // What had been handed out stays readable, then the subscription ends.
    while let Some(delivery) = soon("the subscription ends", jobs.recv()).await {
        assert!(seen.insert(text(&delivery)));
        delivery.ack().await.unwrap();
    }
    assert!(seen.len() <= 5, "{seen:?}");
    // What was started before the end is settled after it.
    started.ack().await.unwrap();
    let mut jobs = second.join(&another(&worker), 20).await.unwrap();
    while seen.len() < 20 {
        let delivery = next(&mut jobs).await;
        assert!(seen.insert(text(&delivery)));
        delivery.ack().await.unwrap();
    }
    first.close().await;
    second.close().await;
}

async fn an_id_is_reachable_after_leaving_and_unroutable_when_forgotten(world: World) {
    let mut host = world.host().await;
    let worker = new_worker();
    let _jobs = host.join(&worker, 1).await.unwrap();
    host.leave(&worker).await;
    let reply = Message {
        to: Address::One(worker.clone()),
        kind: Kind::Reply,
        ..job(&worker, "late")
    };
    host.publish(reply.clone()).await.unwrap();
    next(&mut host.inbox).await.ack().await.unwrap();
    host.forget(&worker).await;
    let refused = host.publish(reply).await;
    assert_eq!(refused, Err(PublishError::Unroutable(worker.to_string())));
    host.close().await;
}

async fn a_buried_job_is_kept_with_its_epitaph(world: World) {
    let host = world.host().await;
    let worker = new_worker();
    let _jobs = host.join(&worker, 1).await.unwrap();
    let message = job(&worker, "hopeless");
    let epitaph = Epitaph {
        reason: "permanent",
        error: "it will never work".to_owned(),
        plugin: Some("worker 1.0.0 sha256:00".to_owned()),
        stack: None,
        host: "host-1".to_owned(),
    };
    host.bury(message.clone(), epitaph).await.unwrap();
    let grave = world.dead_letter(worker.worker_type()).await;
    assert_eq!(
        grave,
        Grave {
            id: message.id,
            body: b"hopeless".to_vec(),
            reason: "permanent".to_owned(),
            error: "it will never work".to_owned(),
            plugin: "worker 1.0.0 sha256:00".to_owned(),
            host: "host-1".to_owned(),
        }
    );
    host.close().await;
}

async fn a_host_serves_a_type_once(world: World) {
    let host = world.host().await;
    let worker = new_worker();
    let _jobs = host.join(&worker, 1).await.unwrap();
    let taken = host.join(&another(&worker), 1).await.unwrap_err();
    assert_eq!(taken, JoinError::Taken(worker.worker_type().clone()));
    host.leave(&worker).await;
    host.join(&another(&worker), 1).await.unwrap();
    host.close().await;
}

async fn closing_gives_back_what_nobody_has_started(world: World) {
    let (first, second) = (world.host().await, world.host().await);
    let worker = new_worker();
    let mut jobs = first.join(&worker, 10).await.unwrap();
    publish_all(&first, &worker, 10).await;
    let started = next(&mut jobs).await;
    first.close().await;
    // Closing takes everything back: the job runs elsewhere, so this run must stop.
    assert!(started.lost.is_cancelled());
    assert!(started.ack().await.is_err());
    let mut jobs = second.join(&another(&worker), 10).await.unwrap();
    let seen: BTreeSet<_> = take(&mut jobs, 10).await.iter().map(text).collect();
    assert_eq!(seen.len(), 10);
    second.close().await;
}

async fn a_body_of_five_megabytes_arrives_whole(world: World) {
    let host = world.host().await;
    let worker = new_worker();
    let mut jobs = host.join(&worker, 1).await.unwrap();
    let body: Vec<u8> = (0..5 * 1024 * 1024)
        .map(|n: u32| n.to_le_bytes()[1])
        .collect();
    host.publish(job(&worker, body.clone())).await.unwrap();
    let delivery = next(&mut jobs).await;
    assert!(delivery.message.body == body);
    delivery.ack().await.unwrap();
    host.close().await;
}

async fn the_jobs_of_one_sender_arrive_in_order(world: World) {
    let host = world.host().await;
    let worker = new_worker();
    let mut jobs = host.join(&worker, 10).await.unwrap();
    for n in 0..50 {
        host.publish(job(&worker, n.to_string())).await.unwrap();
    }
    for n in 0..50 {
        let delivery = next(&mut jobs).await;
        assert_eq!(text(&delivery), n.to_string());
        delivery.ack().await.unwrap();
    }
    host.close().await;
}

async fn a_body_above_the_limit_is_refused(world: World) {
    let host = world.host().await;
    let worker = new_worker();
    let _jobs = host.join(&worker, 1).await.unwrap();
    let (size, limit) = (16 * 1024 * 1024 + 1, 16 * 1024 * 1024);
    let refused = host.publish(job(&worker, vec![0; size])).await;
    assert_eq!(refused, Err(PublishError::TooLarge { size, limit }));
    host.close().await;
}

async fn a_closed_bus_takes_nothing(world: World) {
    let mut host = world.host().await;
    let worker = new_worker();
    let mut jobs = host.join(&worker, 1).await.unwrap();
    host.close().await;
    assert!(soon("the subscription ends", jobs.recv()).await.is_none());
    assert!(soon("the inbox ends", host.inbox.recv()).await.is_none());
    assert!(matches!(
        host.join(&new_worker(), 1).await,
        Err(JoinError::Closed)
    ));
    assert!(host.publish(job(&worker, "x")).await.is_err());
    assert!(!host.health().borrow().connected);
}
