//! A virtual host of a test's own on the shared broker: the exchanges and queues in it are nobody
//! else's, so the test waits for no turn.
//!
//! RabbitMQ's own tools need more than a second for each command. `erl_call`, which comes with
//! Erlang, asks the node itself, within milliseconds.

#![allow(clippy::panic, reason = "a test without its broker has failed")]

use std::{
    env,
    io::Write,
    process::{self, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};

use crate::{broker, node};

/// The environment variable by which `with_broker` says where the node of [`broker::SHARED_BROKER`]
/// listens to other Erlang nodes, such as `127.0.0.1:25672`. Its cookie is that of all our nodes.
pub const SHARED_NODE: &str = "WARREN_TEST_BROKER_NODE";

static NEXT: AtomicU32 = AtomicU32::new(1);

/// An empty virtual host. Dropping it deletes it with all that is in it, and ends its connections.
pub struct VirtualHost {
    name: String,
    url: String,
    node: String,
}

impl VirtualHost {
    /// Makes one.
    ///
    /// # Panics
    /// When there is no broker for it and none can be started; the text says what to do.
    pub async fn new() -> Self {
        let (url, node) = match (env::var(broker::SHARED_BROKER), env::var(SHARED_NODE)) {
            (Ok(url), Ok(node)) => (url, node),
            // A broker that somebody has named does not show its node to us.
            _ => {
                let own = broker::own().await;
                (own.url(), own.node_address())
            }
        };
        let name = unique("test");
        let made = erlang(
            &node,
            &format!(
                "ok = rabbit_vhost:add(<<\"{name}\">>, <<\"tests\">>), \
                 ok = rabbit_auth_backend_internal:set_permissions(<<\"guest\">>, <<\"{name}\">>, \
                 <<\".*\">>, <<\".*\">>, <<\".*\">>, <<\"tests\">>)."
            ),
        );
        if let Err(error) = made {
            panic!("no virtual host for this test: {error:#}");
        }
        Self {
            url: format!("{url}/{name}"),
            name,
            node,
        }
    }

    /// Where a client connects to.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for VirtualHost {
    /// What is left behind ends with the broker.
    fn drop(&mut self) {
        let name = &self.name;
        let _ = erlang(
            &self.node,
            &format!("rabbit_vhost:delete(<<\"{name}\">>, <<\"tests\">>)."),
        );
    }
}

/// A name that is nobody else's, also where an earlier process with our number was killed.
fn unique(what: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now_ms = now.unwrap_or_default().as_millis();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{what}-{}-{now_ms}-{number}", process::id())
}

/// Has a node run expressions of Erlang.
fn erlang(node: &str, expressions: &str) -> Result<()> {
    let mut child = Command::new("erl_call")
        .args(["-address", node, "-c", node::COOKIE])
        // Its own name: the node talks to one at a time of each.
        .args(["-h", &unique("caller"), "-e"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("erl_call comes with Erlang")?;
    if let Some(mut input) = child.stdin.take() {
        writeln!(input, "{expressions}")?;
    }
    let output = child.wait_with_output()?;
    let printed = String::from_utf8_lossy(&output.stdout);
    let is_done = output.status.success() && printed.starts_with("{ok,");
    ensure!(is_done, "the broker's node answers {printed}: {output:?}");
    Ok(())
}
