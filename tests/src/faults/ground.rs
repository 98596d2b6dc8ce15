//! What most rows need: a broker of the test's own, a ledger, and hosts that write into it.

use std::fmt::Write;

use super::{Checker, Ledger, Load, Plan, Proxy};
use crate::{Broker, Setup, Site};

/// The plugin of type `FL`.
pub const LEDGER: &str = "ledger";
/// The plugin of type `FM`, the second hop.
pub const LEDGER_NEXT: &str = "ledger_next";

/// Deliveries that a host may hold beyond its concurrency, as the host computes it.
const SETTLE_WINDOW: u16 = 64;

/// A broker and a ledger.
pub struct Ground {
    /// The test's own.
    pub broker: Broker,
    /// What every host of the test writes into.
    pub ledger: Ledger,
}

impl Ground {
    /// Starts the broker.
    ///
    /// # Panics
    /// When it cannot be started; the text says what to do.
    pub async fn new() -> Self {
        Self::with("").await
    }

    /// As [`Ground::new`], with further lines of `rabbitmq.conf`.
    ///
    /// # Panics
    /// As [`Ground::new`].
    pub async fn with(settings: &str) -> Self {
        Self {
            broker: Broker::start_with(settings).await,
            ledger: Ledger::new(),
        }
    }

    /// A host with these plugins and this configuration, which keeps its rows under `slot`.
    #[must_use]
    pub fn host<const N: usize>(&self, slot: &str, plugins: [&str; N], config: &str) -> Setup {
        Setup::new(&Site::of(&self.broker))
            .with_plugins(plugins)
            .with_config(config)
            .with_variable("WARREN_DATA_DIR", &self.ledger.slot(slot).to_string_lossy())
    }

    /// Producers on the broker itself.
    #[must_use]
    pub fn load(&self, plan: Plan) -> Load {
        Load::start(&[self.broker.url()], plan)
    }

    /// A proxy before the broker.
    ///
    /// # Panics
    /// When no port can be taken.
    #[allow(clippy::panic, reason = "a test without its proxy has failed")]
    pub async fn proxy(&self) -> Proxy {
        match Proxy::start(self.broker.port()).await {
            Ok(proxy) => proxy,
            Err(error) => panic!("no proxy: {error:#}"),
        }
    }

    /// The checker of what ran as `FL`.
    #[must_use]
    pub fn checker(&self) -> Checker<'_> {
        Checker::new(&self.broker, &self.ledger)
    }
}

/// The configuration of a host that runs this many jobs of a type at a time, with further lines of
/// `[limits]`. Without a circuit breaker: jobs that are told to fail are not a dependency that is
/// down, and a worker that pauses would hide what a row is about.
#[must_use]
pub fn limits(concurrency: u16, more: &str) -> String {
    let mut config = String::new();
    let _ = writeln!(
        config,
        "[limits]\nconcurrency = {concurrency}\nbreaker = 0\n{more}"
    );
    config
}

/// The prefetch of a consumer with this concurrency.
#[must_use]
pub fn prefetch(concurrency: u16) -> u16 {
    concurrency * 2 + SETTLE_WINDOW
}
