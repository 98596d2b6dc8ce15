//! The built `warren`, seen from outside: what a user sees, on both buses. One test binary, because
//! each would be linked anew.
//!
//! What these tests do not cover: the bus by itself (`bus_conformance`, `rabbitmq`), single faults of
//! guests (the unit tests of `warren-runtime`), and the meaning of each configuration key (those of
//! `warren`).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

/// Makes a test of each case on each bus. On the shared broker they take turns (see [`Site`]).
///
/// [`Site`]: warren_tests::Site
macro_rules! on_both_buses {
    ($($case:ident)*) => {
        mod embedded {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    super::$case(&warren_tests::Site::embedded()).await;
                }
            )*
        }
        mod rabbitmq {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    super::$case(&warren_tests::Site::rabbitmq().await).await;
                }
            )*
        }
    };
}

mod asking;
mod attacks;
mod bench;
mod cases;
mod databases;
mod dev;
mod errors;
mod everything;
mod examples;
mod given_up;
mod grants;
mod jobs;
mod keyvalue;
mod languages;
mod lifecycle;
mod making;
mod movies;
mod operator;
mod rabbit;
mod reload;
mod replacing;
mod reuse;
mod swap;
mod tutorial;
mod usage;
mod versions;

use warren_tests::http::Response;

/// The text of a problem document with this status.
#[track_caller]
fn problem(response: &Response, status: u16) -> String {
    assert_eq!(response.status.as_u16(), status, "{}", response.text());
    assert_eq!(response.content_type, "application/problem+json");
    let problem = response.json();
    assert_eq!(problem["status"], status);
    problem["detail"].as_str().unwrap().to_owned()
}

/// Fails unless `text` has each of `parts`.
#[track_caller]
fn has<const N: usize>(text: &str, parts: [&str; N]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}
