//! News that a worker type keeps something in a file of this machine.

use std::{fmt, sync::Arc};

use warren_protocol::WorkerType;

/// Who is told, once in the life of a host, that a worker type has begun to use a file of this machine.
/// The default is nobody. Cheap to clone.
#[derive(Clone, Default)]
pub struct FirstUse(Option<Arc<Tell>>);

type Tell = dyn Fn(&WorkerType) + Send + Sync;

impl FirstUse {
    /// `tell` is called by whoever opens the file, and may not wait.
    pub fn new(tell: impl Fn(&WorkerType) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(tell)))
    }

    pub(super) fn tell(&self, worker_type: &WorkerType) {
        if let Some(tell) = &self.0 {
            tell(worker_type);
        }
    }
}

impl fmt::Debug for FirstUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FirstUse")
    }
}
