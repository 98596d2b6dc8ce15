//! Entries of a worker's store that no guest writes or reads: what a test of a guest puts there
//! before a run, and looks for after it.

use super::{
    KeyValueStore, MAX_KEYS, bucket_name,
    engine::{Failure, Key},
};

/// What there is none of is said once.
const NO_STORE: &str = "this worker has no key-value store (`keyvalue`)";

impl KeyValueStore {
    /// Sets one value.
    ///
    /// # Errors
    /// A text for whoever wrote the entry.
    pub async fn put(&self, bucket: &str, key: &str, value: Vec<u8>) -> Result<(), String> {
        let engine = self.engine().ok_or(NO_STORE)?;
        let bucket = named(bucket)?;
        engine.set(Key { bucket, key }, value).await.map_err(text)
    }

    /// Everything in a bucket, by key.
    ///
    /// # Errors
    /// As [`KeyValueStore::put`].
    pub async fn entries(&self, bucket: &str) -> Result<Vec<(String, Vec<u8>)>, String> {
        let engine = self.engine().ok_or(NO_STORE)?;
        let bucket = named(bucket)?;
        let (mut found, mut cursor) = (Vec::new(), None);
        loop {
            let page = engine.list_keys(bucket, cursor, MAX_KEYS).await;
            let page = page.map_err(text)?;
            for key in page.keys {
                let value = engine.get(Key { bucket, key: &key }).await.map_err(text)?;
                // One that has gone in the meantime is none.
                found.extend(value.map(|value| (key, value)));
            }
            cursor = page.cursor;
            if cursor.is_none() {
                found.sort();
                return Ok(found);
            }
        }
    }
}

fn named(bucket: &str) -> Result<&str, String> {
    bucket_name(bucket).ok_or_else(|| format!("`{bucket}` is not the name of a bucket"))
}

fn text(failure: Failure) -> String {
    match failure {
        Failure::Invalid(text) | Failure::Unavailable(text) => text,
    }
}
