//! Keeps keys and values as a job says, through the bare contract: `{"steps": [{"do": "<word>", …}]}`.
//! It forwards what came of each step, or `{"error", "text"}`. A step is in the bucket `bucket`, or in
//! the default one.
//!
//! | `do` | what comes back |
//! |---|---|
//! | `open` | null |
//! | `get` | the value under `key`, as text, or null; of one of more than 1000 bytes, how many |
//! | `set` | null; the value is `value`, or `size` bytes |
//! | `delete`, `exists`, `increment` | as the contract says; `by` is the delta |
//! | `list` | `{"keys", "cursor"}` of the page at `cursor` |
//! | `list-all` | the keys of all pages, sorted, and the number of pages |
//! | `get-many`, `set-many`, `delete-many` | as the contract says, of `keys`; each is set to `value` or `size` bytes |
//! | `cas` | null; a handle for `key` is kept under the name `handle` |
//! | `current` | what that handle has seen |
//! | `swap` | `"swapped"`, or `{"now"}`, and the handle is kept; it is gone otherwise |
//! | `add-many` | the last sum, of `n` times adding `by` |
//! | `swap-many` | how many swaps failed on the way to `n` that added 1 to the number under `key` |
//! | `hold` | how many of `n` handles could be made, all held at once: of `bucket`, or with `key`, for a swap |
//! | `sleep` | nothing: it holds a bucket and waits for a minute |

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::{Value, json};
use warren_sdk::bindings::imports::wasi::keyvalue::{
    atomics::{self, Cas, CasError},
    batch,
    store::{self, Bucket, Error},
};
use warren_sdk::{Job, Outcome, Result, Worker};

/// A worker that keeps things.
pub struct Keeper;

#[derive(Deserialize)]
struct Order {
    steps: Vec<Step>,
}

/// What a job says. Fields that a step does not need are absent.
#[derive(Deserialize)]
struct Step {
    r#do: String,
    #[serde(default)]
    bucket: String,
    #[serde(default)]
    key: String,
    #[serde(default)]
    keys: Vec<String>,
    #[serde(default)]
    value: String,
    size: Option<usize>,
    #[serde(default)]
    by: i64,
    #[serde(default)]
    n: usize,
    cursor: Option<String>,
    #[serde(default)]
    handle: String,
}

type Handles = HashMap<String, Cas>;

impl Worker for Keeper {
    const TYPE: &'static str = "FV";
    const SUMMARY: &'static str = "Keeps keys and values on request, for tests";

    fn handle(job: Job) -> Result<Outcome> {
        let order: Order = job.json()?;
        let mut handles = Handles::new();
        let results = order.steps.iter().map(|step| {
            step.run(&mut handles).unwrap_or_else(|error| {
                let (name, text) = match error {
                    Error::NoSuchStore => ("no-such-store", String::new()),
                    Error::AccessDenied => ("access-denied", String::new()),
                    Error::Other(text) => ("other", text),
                };
                json!({ "error": name, "text": text })
            })
        });
        Outcome::forward(&results.collect::<Vec<Value>>())
    }
}

impl Step {
    fn run(&self, handles: &mut Handles) -> Result<Value, Error> {
        let bucket = store::open(&self.bucket)?;
        let key = self.key.as_str();
        Ok(match self.r#do.as_str() {
            "open" => Value::Null,
            "get" => shown(bucket.get(key)?),
            "set" => json!(bucket.set(key, &self.value())?),
            "delete" => json!(bucket.delete(key)?),
            "exists" => json!(bucket.exists(key)?),
            "list" => {
                let page = bucket.list_keys(self.cursor.as_deref())?;
                json!({ "keys": page.keys, "cursor": page.cursor })
            }
            "list-all" => list_all(&bucket)?,
            "increment" => json!(atomics::increment(&bucket, key, self.by)?),
            "get-many" => {
                let found = batch::get_many(&bucket, &self.keys)?;
                let found = found.into_iter().map(|pair| match pair {
                    Some((key, value)) => json!([key, shown(Some(value))]),
                    None => Value::Null,
                });
                found.collect()
            }
            "set-many" => {
                let pairs = self.keys.iter().map(|key| (key.clone(), self.value()));
                json!(batch::set_many(&bucket, &pairs.collect::<Vec<_>>())?)
            }
            "delete-many" => json!(batch::delete_many(&bucket, &self.keys)?),
            "cas" => {
                handles.insert(self.handle.clone(), Cas::new(&bucket, key)?);
                Value::Null
            }
            "current" => match handles.get(&self.handle) {
                Some(cas) => shown(cas.current()?),
                None => json!("no handle"),
            },
            "swap" => self.swap(handles)?,
            "add-many" => {
                let mut sum = 0;
                for _ in 0..self.n {
                    sum = atomics::increment(&bucket, key, self.by)?;
                }
                json!(sum)
            }
            "swap-many" => json!(swap_many(&bucket, key, self.n)?),
            "hold" => self.hold(&bucket)?,
            "sleep" => {
                std::thread::sleep(std::time::Duration::from_secs(60));
                Value::Null
            }
            other => json!(format!("nothing is called {other}")),
        })
    }

    fn value(&self) -> Vec<u8> {
        match self.size {
            Some(size) => vec![b'x'; size],
            None => self.value.clone().into_bytes(),
        }
    }

    fn swap(&self, handles: &mut Handles) -> Result<Value, Error> {
        let Some(cas) = handles.remove(&self.handle) else {
            return Ok(json!("no handle"));
        };
        match atomics::swap(cas, &self.value()) {
            Ok(()) => Ok(json!("swapped")),
            Err(CasError::StoreError(error)) => Err(error),
            Err(CasError::CasFailed(next)) => {
                let now = shown(next.current()?);
                handles.insert(self.handle.clone(), next);
                Ok(json!({ "now": now }))
            }
        }
    }

    fn hold(&self, bucket: &Bucket) -> Result<Value, Error> {
        let (mut buckets, mut swaps) = (Vec::new(), Vec::new());
        for _ in 0..self.n {
            let held = if self.key.is_empty() {
                store::open(&self.bucket).map(|bucket| buckets.push(bucket))
            } else {
                Cas::new(bucket, &self.key).map(|cas| swaps.push(cas))
            };
            match held {
                Err(Error::Other(text)) => {
                    return Ok(json!({ "held": buckets.len() + swaps.len(), "text": text }));
                }
                held => held?,
            }
        }
        Ok(json!({ "held": buckets.len() + swaps.len() }))
    }
}

fn shown(value: Option<Vec<u8>>) -> Value {
    const SHOWN_BYTES: usize = 1000;
    match value {
        None => Value::Null,
        Some(value) if value.len() > SHOWN_BYTES => json!(value.len()),
        Some(value) => json!(String::from_utf8_lossy(&value)),
    }
}

fn list_all(bucket: &Bucket) -> Result<Value, Error> {
    let (mut keys, mut n_pages, mut cursor) = (Vec::new(), 0, None);
    loop {
        let page = bucket.list_keys(cursor.as_deref())?;
        keys.extend(page.keys);
        n_pages += 1;
        cursor = page.cursor;
        if cursor.is_none() {
            keys.sort();
            // One may come twice.
            keys.dedup();
            return Ok(json!({ "keys": keys, "pages": n_pages }));
        }
    }
}

fn swap_many(bucket: &Bucket, key: &str, n: usize) -> Result<usize, Error> {
    let mut n_failed = 0;
    for _ in 0..n {
        let mut cas = Cas::new(bucket, key)?;
        loop {
            let now = cas.current()?.unwrap_or_default();
            let now: u64 = String::from_utf8_lossy(&now).parse().unwrap_or(0);
            match atomics::swap(cas, (now + 1).to_string().as_bytes()) {
                Ok(()) => break,
                Err(CasError::CasFailed(next)) => cas = next,
                Err(CasError::StoreError(error)) => return Err(error),
            }
            n_failed += 1;
        }
    }
    Ok(n_failed)
}

warren_sdk::export_worker!(Keeper);
