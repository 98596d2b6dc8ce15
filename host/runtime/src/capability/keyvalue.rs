//! `wasi:keyvalue`: buckets of keys and values, which the workers of one type share, and nobody else
//! sees. Where they are kept is the operator's choice: in a file of the host, or on a Redis.
//!
//! Everything that a guest names is bounded here, before an engine sees it. The engines do the same
//! things under the same names; what comes of them is in `tests/runtime/keyvalue.rs`, once for each.
//!
//! Invariant: an engine hears of a worker type and of the names of buckets and keys as they are; it
//! must keep them apart whatever they are.

mod embedded;
mod engine;
mod handles;
mod outside;
mod redis;
mod stores;
mod url;

use std::sync::Arc;

use wasmtime::component::Resource;

use self::engine::{Engine, Failure, Key, Swap};
pub(crate) use self::handles::Session;
#[allow(unreachable_pub, reason = "the generated bindings name them in public")]
pub use self::handles::{Bucket, Cas};
pub use self::{
    stores::{KeyValueStore, KeyValueStores},
    url::RedisUrl,
};
use crate::{
    bindings::wasi::keyvalue::{
        atomics, batch,
        store::{self, Error, KeyResponse},
    },
    state::State,
};

/// The name of the bucket that is opened as "".
const DEFAULT_BUCKET: &str = "default";
/// The longest name of a bucket, in bytes.
const MAX_BUCKET_BYTES: usize = 64;
/// The longest key, in bytes.
const MAX_KEY_BYTES: usize = 1 << 10;
/// The largest value, in bytes. What is larger is a file.
const MAX_VALUE_BYTES: usize = 1 << 20;
/// Keys of one call of `batch`, and those that one page of `list-keys` has.
const MAX_KEYS: usize = 1000;

impl From<Failure> for Error {
    /// The contract has one case for all of these: its text begins with a word that tells them apart.
    fn from(failure: Failure) -> Self {
        Self::Other(match failure {
            Failure::Invalid(text) => format!("invalid: {text}"),
            Failure::Unavailable(text) => format!("unavailable: {text}"),
        })
    }
}

fn invalid(text: impl Into<String>) -> Error {
    Failure::Invalid(text.into()).into()
}

/// The name of a bucket that there is.
fn bucket_name(identifier: &str) -> Option<&str> {
    let is_name = identifier.len() <= MAX_BUCKET_BYTES
        && identifier.starts_with(|first: char| first.is_ascii_alphanumeric())
        && identifier
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
    match identifier {
        "" => Some(DEFAULT_BUCKET),
        name => is_name.then_some(name),
    }
}

fn check_key(key: &str) -> Result<(), Error> {
    if key.len() > MAX_KEY_BYTES {
        return Err(invalid(format!(
            "the key has {} bytes; at most {MAX_KEY_BYTES} are taken",
            key.len()
        )));
    }
    Ok(())
}

fn check_keys<'a>(keys: impl ExactSizeIterator<Item = &'a str>) -> Result<(), Error> {
    if keys.len() > MAX_KEYS {
        return Err(invalid(format!(
            "the call has {} keys; at most {MAX_KEYS} are taken",
            keys.len()
        )));
    }
    for key in keys {
        check_key(key)?;
    }
    Ok(())
}

fn check_value(value: &[u8]) -> Result<(), Error> {
    if value.len() > MAX_VALUE_BYTES {
        return Err(invalid(format!(
            "the value has {} bytes; at most {MAX_VALUE_BYTES} are taken",
            value.len()
        )));
    }
    Ok(())
}

/// A bucket in use: what is asked of it goes on without the rest of the run.
struct Open {
    engine: Arc<dyn Engine>,
    bucket: String,
    /// What the values of one call may have together.
    most_bytes: usize,
}

impl Open {
    fn key<'a>(&'a self, key: &'a str) -> Result<Key<'a>, Error> {
        let bucket = &self.bucket;
        check_key(key).map(|()| Key { bucket, key })
    }

    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        let value = self.engine.get(self.key(key)?).await?;
        // Another program may have written it.
        check_value(value.as_deref().unwrap_or_default())?;
        Ok(value)
    }

    async fn set(&self, key: &str, value: Vec<u8>) -> Result<(), Error> {
        check_value(&value)?;
        Ok(self.engine.set(self.key(key)?, value).await?)
    }

    async fn exists(&self, key: &str) -> Result<bool, Error> {
        Ok(self.engine.exists(self.key(key)?).await?)
    }

    async fn list_keys(&self, cursor: Option<String>) -> Result<KeyResponse, Error> {
        check_key(cursor.as_deref().unwrap_or_default())?;
        let page = self
            .engine
            .list_keys(&self.bucket, cursor, MAX_KEYS)
            .await?;
        Ok(KeyResponse {
            keys: page.keys,
            cursor: page.cursor,
        })
    }

    async fn increment(&self, key: &str, delta: i64) -> Result<i64, Error> {
        Ok(self.engine.increment(self.key(key)?, delta).await?)
    }

    async fn get_many(&self, keys: Vec<String>) -> Result<Vec<Option<(String, Vec<u8>)>>, Error> {
        check_keys(keys.iter().map(String::as_str))?;
        let values = self.engine.get_many(&self.bucket, &keys, self.most_bytes);
        let pairs = keys.iter().cloned().zip(values.await?);
        Ok(pairs
            .map(|(key, value)| value.map(|value| (key, value)))
            .collect())
    }

    async fn set_many(&self, pairs: Vec<(String, Vec<u8>)>) -> Result<(), Error> {
        check_keys(pairs.iter().map(|(key, _)| key.as_str()))?;
        for (_, value) in &pairs {
            check_value(value)?;
        }
        let (n_bytes, most_bytes) = (
            pairs.iter().map(|(_, value)| value.len()).sum::<usize>(),
            self.most_bytes,
        );
        if n_bytes > most_bytes {
            return Err(invalid(format!(
                "the values have {n_bytes} bytes together; at most {most_bytes} are taken \
                 (`payload`)"
            )));
        }
        Ok(self.engine.set_many(&self.bucket, pairs).await?)
    }

    async fn delete_many(&self, keys: &[String]) -> Result<(), Error> {
        check_keys(keys.iter().map(String::as_str))?;
        Ok(self.engine.delete_many(&self.bucket, keys).await?)
    }
}

impl State {
    fn most_bytes(&self) -> usize {
        self.worker.limits.payload_bytes.max(MAX_VALUE_BYTES)
    }

    /// Where the worker's buckets are, if it has any.
    fn engine(&self) -> Result<Arc<dyn Engine>, Error> {
        let is_granted = self.worker.reach.grants.keyvalue;
        let engine = self.worker.keyvalue.engine().filter(|_| is_granted);
        engine.ok_or(Error::AccessDenied)
    }

    /// What is behind a handle. The outer error is a handle that the guest made up.
    fn open_bucket(&self, handle: &Resource<Bucket>) -> wasmtime::Result<Result<Open, Error>> {
        let bucket = self.table.get(handle)?.name().to_owned();
        Ok(self.engine().map(|engine| Open {
            engine,
            bucket,
            most_bytes: self.most_bytes(),
        }))
    }
}

impl store::Host for State {
    async fn open(
        &mut self,
        identifier: String,
    ) -> wasmtime::Result<Result<Resource<Bucket>, Error>> {
        if let Err(error) = self.engine() {
            return Ok(Err(error));
        }
        let Some(name) = bucket_name(&identifier) else {
            return Ok(Err(Error::NoSuchStore));
        };
        self.hold(Bucket::new(name))
    }
}

impl store::HostBucket for State {
    async fn get(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
    ) -> wasmtime::Result<Result<Option<Vec<u8>>, Error>> {
        let bucket = self.open_bucket(&bucket)?;
        Ok(async { bucket?.get(&key).await }.await)
    }

    async fn set(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
        value: Vec<u8>,
    ) -> wasmtime::Result<Result<(), Error>> {
        let bucket = self.open_bucket(&bucket)?;
        Ok(async { bucket?.set(&key, value).await }.await)
    }

    async fn delete(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
    ) -> wasmtime::Result<Result<(), Error>> {
        let bucket = self.open_bucket(&bucket)?;
        Ok(async { bucket?.delete_many(&[key]).await }.await)
    }

    async fn exists(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
    ) -> wasmtime::Result<Result<bool, Error>> {
        let bucket = self.open_bucket(&bucket)?;
        Ok(async { bucket?.exists(&key).await }.await)
    }

    async fn list_keys(
        &mut self,
        bucket: Resource<Bucket>,
        cursor: Option<String>,
    ) -> wasmtime::Result<Result<KeyResponse, Error>> {
        let bucket = self.open_bucket(&bucket)?;
        Ok(async { bucket?.list_keys(cursor).await }.await)
    }

    async fn drop(&mut self, bucket: Resource<Bucket>) -> wasmtime::Result<()> {
        self.table.delete(bucket)?;
        Ok(())
    }
}

impl atomics::Host for State {
    async fn increment(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
        delta: i64,
    ) -> wasmtime::Result<Result<i64, Error>> {
        let bucket = self.open_bucket(&bucket)?;
        Ok(async { bucket?.increment(&key, delta).await }.await)
    }

    async fn swap(
        &mut self,
        cas: Resource<Cas>,
        value: Vec<u8>,
    ) -> wasmtime::Result<Result<(), atomics::CasError>> {
        let cas = self.let_go(cas)?;
        let engine = self.engine();
        let swapped = async {
            check_value(&value)?;
            Ok(engine?.swap(cas.key(), cas.seen(), value).await?)
        };
        match swapped.await {
            Ok(Swap::Done) => Ok(Ok(())),
            Ok(Swap::Other(now)) => Ok(Err(match self.hold_cas(cas.again(now))? {
                Ok(next) => atomics::CasError::CasFailed(next),
                Err(error) => atomics::CasError::StoreError(error),
            })),
            Err(error) => Ok(Err(atomics::CasError::StoreError(error))),
        }
    }
}

impl atomics::HostCas for State {
    async fn new(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
    ) -> wasmtime::Result<Result<Resource<Cas>, Error>> {
        let bucket = self.open_bucket(&bucket)?;
        let seen = async {
            let bucket = bucket?;
            let seen = bucket.get(&key).await?;
            Ok(Cas::new(bucket.bucket, key, seen))
        };
        match seen.await {
            Ok(cas) => self.hold_cas(cas),
            Err(error) => Ok(Err(error)),
        }
    }

    async fn current(
        &mut self,
        cas: Resource<Cas>,
    ) -> wasmtime::Result<Result<Option<Vec<u8>>, Error>> {
        let cas = self.table.get(&cas)?;
        Ok(Ok(cas.seen().map(<[u8]>::to_vec)))
    }

    async fn drop(&mut self, cas: Resource<Cas>) -> wasmtime::Result<()> {
        self.let_go(cas)?;
        Ok(())
    }
}

impl batch::Host for State {
    async fn get_many(
        &mut self,
        bucket: Resource<Bucket>,
        keys: Vec<String>,
    ) -> wasmtime::Result<Result<Vec<Option<(String, Vec<u8>)>>, Error>> {
        let bucket = self.open_bucket(&bucket)?;
        Ok(async { bucket?.get_many(keys).await }.await)
    }

    async fn set_many(
        &mut self,
        bucket: Resource<Bucket>,
        key_values: Vec<(String, Vec<u8>)>,
    ) -> wasmtime::Result<Result<(), Error>> {
        let bucket = self.open_bucket(&bucket)?;
        Ok(async { bucket?.set_many(key_values).await }.await)
    }

    async fn delete_many(
        &mut self,
        bucket: Resource<Bucket>,
        keys: Vec<String>,
    ) -> wasmtime::Result<Result<(), Error>> {
        let bucket = self.open_bucket(&bucket)?;
        Ok(async { bucket?.delete_many(&keys).await }.await)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_has_a_plain_name() {
        assert_eq!(bucket_name(""), Some("default"));
        for name in ["default", "sessions", "2026-11", "a.b_c", &"x".repeat(64)] {
            assert_eq!(bucket_name(name), Some(name));
        }
        for name in [
            "a:b",
            "a b",
            "../a",
            ".a",
            "-",
            "*",
            "a\0",
            "größe",
            &"x".repeat(65),
        ] {
            assert_eq!(bucket_name(name), None, "{name}");
        }
    }
}
