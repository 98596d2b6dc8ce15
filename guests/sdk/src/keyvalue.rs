//! Keys and values, private to this type of worker; on one host, or on a server that hosts share.
//!
//! ```no_run
//! use serde::{Deserialize, Serialize};
//! use warren_sdk::keyvalue::Bucket;
//!
//! #[derive(Deserialize, Serialize)]
//! struct Session {
//!     user: String,
//!     n_visits: u32,
//! }
//!
//! # fn handle(token: &str) -> warren_sdk::Result<()> {
//! let sessions = Bucket::open("sessions")?;
//! let session: Option<Session> = sessions.get_json(token)?;
//! let n_requests = sessions.increment("n_requests", 1)?;
//! # Ok(())
//! # }
//! ```
//!
//! A key has at most 1 KiB and a value at most 1 MiB. A bucket is there as soon as it is opened, under
//! any name of up to 64 letters, digits, `_`, `-` and `.` that begins with a letter or a digit. Where
//! instances are reused, drop a bucket before the job ends: an instance that holds one is not used
//! again.

use std::fmt::Display;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::bindings::imports::wasi::keyvalue::{atomics, batch, store};
use crate::{Error as RunError, Result as RunResult};

pub use store::Error;

/// What most functions of this module return. [`crate::Error`] is made from it by `?`.
pub type Result<T> = std::result::Result<T, Error>;

/// How often [`Bucket::update`] tries. Each time that one fails, another one has not.
const MAX_TRIES: u32 = 1000;

/// A bucket of keys and values.
#[derive(Debug)]
pub struct Bucket(store::Bucket);

impl Bucket {
    /// Opens the bucket of this name; `""` is the same as `"default"`.
    ///
    /// # Errors
    /// [`Error::NoSuchStore`] when this cannot be a name, [`Error::AccessDenied`] when the operator
    /// gives this worker none.
    pub fn open(name: &str) -> Result<Self> {
        store::open(name).map(Self)
    }

    /// Reads the value under a key.
    ///
    /// # Errors
    /// [`Error::Other`]; its text begins with `unavailable:` when it may work later, and with
    /// `invalid:` when it never will. So for all functions here.
    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>> {
        self.0.get(key)
    }

    /// Writes a value, over another one if there is one.
    ///
    /// # Errors
    /// As for [`Bucket::get`].
    pub fn set(&self, key: &str, value: impl AsRef<[u8]>) -> Result<()> {
        self.0.set(key, value.as_ref())
    }

    /// Removes a key. It need not be there.
    ///
    /// # Errors
    /// As for [`Bucket::get`].
    pub fn delete(&self, key: &str) -> Result<()> {
        self.0.delete(key)
    }

    /// Whether there is anything under a key.
    ///
    /// # Errors
    /// As for [`Bucket::get`].
    pub fn exists(&self, key: &str) -> Result<bool> {
        self.0.exists(key)
    }

    /// All keys, in no particular order, read in pages as they are asked for. While others write, one
    /// may come twice.
    ///
    /// ```no_run
    /// # fn handle(bucket: &warren_sdk::keyvalue::Bucket) -> warren_sdk::Result<()> {
    /// for key in bucket.keys() {
    ///     let key = key?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn keys(&self) -> impl Iterator<Item = Result<String>> + use<'_> {
        let mut page = Vec::new().into_iter();
        // `None`: there is no further page.
        let mut next = Some(None);
        std::iter::from_fn(move || {
            loop {
                if let Some(key) = page.next() {
                    return Some(Ok(key));
                }
                let cursor: Option<String> = next.take()?;
                match self.0.list_keys(cursor.as_deref()) {
                    Ok(response) => {
                        page = response.keys.into_iter();
                        next = response.cursor.map(Some);
                    }
                    Err(error) => return Some(Err(error)),
                }
            }
        })
    }

    /// Adds to the number under a key, in one step whoever else does, and returns the sum. What is not
    /// there counts as 0. The value is the number in decimal digits.
    ///
    /// # Errors
    /// As for [`Bucket::get`]; `invalid:` when the value is no such number, or the sum has more than
    /// 64 bits.
    pub fn increment(&self, key: &str, by: i64) -> Result<i64> {
        atomics::increment(&self.0, key, by)
    }

    /// Puts what `change` makes of a value in its place, and returns it. Where somebody else has
    /// written in between, `change` is called again, with what is there then.
    ///
    /// ```no_run
    /// # fn handle(bucket: &warren_sdk::keyvalue::Bucket) -> warren_sdk::Result<()> {
    /// bucket.update("log", |log| {
    ///     let mut log = log.unwrap_or_default();
    ///     log.extend(b"one more line\n");
    ///     Ok(log)
    /// })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// What `change` returns, or why the store cannot be used. Retried when others are always faster.
    pub fn update(
        &self,
        key: &str,
        mut change: impl FnMut(Option<Vec<u8>>) -> RunResult<Vec<u8>>,
    ) -> RunResult<Vec<u8>> {
        let mut cas = atomics::Cas::new(&self.0, key)?;
        for _ in 0..MAX_TRIES {
            let value = change(cas.current()?)?;
            match atomics::swap(cas, &value) {
                Ok(()) => return Ok(value),
                Err(atomics::CasError::CasFailed(next)) => cas = next,
                Err(atomics::CasError::StoreError(error)) => return Err(error.into()),
            }
        }
        Err(RunError::retry(format!(
            "others are always faster in writing the key `{key}`"
        )))
    }

    /// Reads a value as JSON.
    ///
    /// # Errors
    /// As for [`Bucket::get`]; a value of another shape is rejected.
    pub fn get_json<T: DeserializeOwned>(&self, key: &str) -> RunResult<Option<T>> {
        let value = self.get(key)?;
        value.map(|value| parsed(key, &value)).transpose()
    }

    /// Writes a value as JSON.
    ///
    /// # Errors
    /// As for [`Bucket::set`]; what cannot be written as JSON is rejected.
    pub fn set_json<T: Serialize + ?Sized>(&self, key: &str, value: &T) -> RunResult<()> {
        Ok(self.set(key, serde_json::to_vec(value)?)?)
    }

    /// As [`Bucket::update`], of a value that is JSON.
    ///
    /// ```no_run
    /// # fn handle(bucket: &warren_sdk::keyvalue::Bucket) -> warren_sdk::Result<()> {
    /// let names: Vec<String> = bucket.update_json("names", |names| {
    ///     let mut names: Vec<String> = names.unwrap_or_default();
    ///     names.push("Ripley".to_owned());
    ///     Ok(names)
    /// })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As for [`Bucket::update`]; a value of another shape is rejected.
    pub fn update_json<T: Serialize + DeserializeOwned>(
        &self,
        key: &str,
        mut change: impl FnMut(Option<T>) -> RunResult<T>,
    ) -> RunResult<T> {
        let value = self.update(key, |value| {
            let value = value.map(|value| parsed(key, &value)).transpose()?;
            Ok(serde_json::to_vec(&change(value)?)?)
        })?;
        parsed(key, &value)
    }

    /// Reads several values in one call: one for each key, in their order.
    ///
    /// # Errors
    /// As for [`Bucket::get`]; `invalid:` for more than 1000 keys, or more bytes than a payload may
    /// have.
    pub fn get_many<K: ToString>(&self, keys: &[K]) -> Result<Vec<Option<Vec<u8>>>> {
        let pairs = batch::get_many(&self.0, &owned(keys))?;
        Ok(pairs
            .into_iter()
            .map(|pair| pair.map(|(_, value)| value))
            .collect())
    }

    /// Writes several values in one call. Where it fails, some may have been written.
    ///
    /// # Errors
    /// As for [`Bucket::get_many`].
    pub fn set_many<K: ToString, V: AsRef<[u8]>>(&self, pairs: &[(K, V)]) -> Result<()> {
        let pairs = pairs.iter();
        let pairs = pairs.map(|(key, value)| (key.to_string(), value.as_ref().to_vec()));
        batch::set_many(&self.0, &pairs.collect::<Vec<_>>())
    }

    /// Removes several keys in one call. They need not be there.
    ///
    /// # Errors
    /// As for [`Bucket::get_many`].
    pub fn delete_many<K: ToString>(&self, keys: &[K]) -> Result<()> {
        batch::delete_many(&self.0, &owned(keys))
    }
}

fn owned<K: ToString>(keys: &[K]) -> Vec<String> {
    keys.iter().map(ToString::to_string).collect()
}

fn parsed<T: DeserializeOwned>(key: impl Display, value: &[u8]) -> RunResult<T> {
    serde_json::from_slice(value).map_err(|error| {
        RunError::reject(format!("unexpected value under the key `{key}`: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_another_shape_names_its_key() {
        assert_eq!(parsed("n", b"12"), Ok(12));
        let error = parsed::<u64>("n", b"soon").unwrap_err();
        assert!(error.reason().contains("`n`"), "{error}");
        assert!(!error.is_retryable());
    }
}
