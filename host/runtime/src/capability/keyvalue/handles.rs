//! What a guest holds in its hands: buckets, and what it has seen under a key before it swaps.

use wasmtime::component::{Resource, ResourceTableError};

use super::{engine::Key, invalid};
use crate::{
    bindings::wasi::keyvalue::store::Error,
    state::{MAX_RESOURCES, State},
};

/// The guest's handle to a bucket: its name.
#[allow(unreachable_pub, reason = "the generated bindings name it in public")]
pub struct Bucket(String);

/// The guest's handle to a swap: what was under the key.
#[allow(unreachable_pub, reason = "the generated bindings name it in public")]
pub struct Cas {
    bucket: String,
    key: String,
    seen: Option<Vec<u8>>,
}

/// What the handles of one run keep in memory.
#[derive(Default)]
pub(crate) struct Session {
    seen_bytes: usize,
}

impl Bucket {
    pub(super) fn new(name: &str) -> Self {
        Self(name.to_owned())
    }

    pub(super) fn name(&self) -> &str {
        &self.0
    }
}

impl Cas {
    pub(super) fn new(bucket: String, key: String, seen: Option<Vec<u8>>) -> Self {
        Self { bucket, key, seen }
    }

    pub(super) fn key(&self) -> Key<'_> {
        Key {
            bucket: &self.bucket,
            key: &self.key,
        }
    }

    pub(super) fn seen(&self) -> Option<&[u8]> {
        self.seen.as_deref()
    }

    /// Another try, with what is there now.
    pub(super) fn again(self, seen: Option<Vec<u8>>) -> Self {
        Self { seen, ..self }
    }

    fn n_bytes(&self) -> usize {
        self.seen.as_ref().map_or(0, Vec::len)
    }
}

impl State {
    pub(super) fn hold<T: Send + 'static>(
        &mut self,
        handle: T,
    ) -> wasmtime::Result<Result<Resource<T>, Error>> {
        match self.table.push(handle) {
            Ok(handle) => Ok(Ok(handle)),
            Err(ResourceTableError::Full) => Ok(Err(invalid(format!(
                "{MAX_RESOURCES} handles are open already: drop those that are not needed"
            )))),
            Err(error) => Err(error.into()),
        }
    }

    /// Holds what a guest has seen, within what one run may hold of that.
    pub(super) fn hold_cas(&mut self, cas: Cas) -> wasmtime::Result<Result<Resource<Cas>, Error>> {
        let (n_bytes, most_bytes) = (cas.n_bytes(), self.most_bytes());
        let seen_bytes = self.run.keyvalue.seen_bytes.saturating_add(n_bytes);
        if seen_bytes > most_bytes {
            return Ok(Err(invalid(format!(
                "the swaps that are open hold values of {seen_bytes} bytes together; at most \
                 {most_bytes} may be (`payload`): drop those that are not needed"
            ))));
        }
        let held = self.hold(cas)?;
        if held.is_ok() {
            self.run.keyvalue.seen_bytes = seen_bytes;
        }
        Ok(held)
    }

    pub(super) fn let_go(&mut self, cas: Resource<Cas>) -> wasmtime::Result<Cas> {
        let cas = self.table.delete(cas)?;
        let seen_bytes = &mut self.run.keyvalue.seen_bytes;
        *seen_bytes = seen_bytes.saturating_sub(cas.n_bytes());
        Ok(cas)
    }
}
