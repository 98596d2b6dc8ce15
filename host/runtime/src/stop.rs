//! What ends a run from outside.

use std::{future::poll_fn, pin::pin, sync::Arc};

use tokio_util::sync::CancellationToken;

/// Interrupts a run: when its token is cancelled, or when what is asked before each step of the guest
/// says so. Cheap to clone.
#[derive(Clone)]
pub struct Stop {
    token: CancellationToken,
    check: Option<Arc<dyn Fn() -> bool + Send + Sync>>,
}

impl Stop {
    /// Asks `is_over` whenever the guest is about to go on, wherever it runs: between that moment and the
    /// last one the whole process may have stood still. Cancels the token then. It must not wait.
    #[must_use]
    pub fn when(token: CancellationToken, is_over: Arc<dyn Fn() -> bool + Send + Sync>) -> Self {
        Self {
            token,
            check: Some(is_over),
        }
    }

    pub(crate) fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Polls a run, after having asked.
    pub(crate) async fn asked_before<F: Future>(&self, run: F) -> F::Output {
        let mut run = pin!(run);
        poll_fn(|context| {
            if !self.token.is_cancelled() && self.check.as_ref().is_some_and(|is_over| is_over()) {
                self.token.cancel();
            }
            run.as_mut().poll(context)
        })
        .await
    }
}

impl From<CancellationToken> for Stop {
    fn from(token: CancellationToken) -> Self {
        Self { token, check: None }
    }
}
