//! Keys and values: the same on both engines, bounded, apart from others', and there again when the
//! server is.

#[path = "../../../../tests/src/redis.rs"]
#[allow(dead_code, unreachable_pub, reason = "other tests need the rest")]
mod redis;

/// Makes a test of each case on each engine.
macro_rules! on_both_engines {
    ($($case:ident)*) => {
        mod embedded {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    super::$case(&super::Place::embedded()).await;
                }
            )*
        }
        mod on_redis {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    super::$case(&super::Place::redis()).await;
                }
            )*
        }
    };
}

mod conformance;
mod embedded_only;
mod redis_only;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::{Value, json};
use warren_runtime::{KeyValueStore, KeyValueStores, Pool, Worker};

use self::redis::Redis;
use super::host::{Host, guest, reply};

/// Where keys and values are.
struct Place {
    host: Host,
    stores: Arc<KeyValueStores>,
    redis: Option<Redis>,
}

impl Place {
    fn embedded() -> Self {
        let host = Host::new();
        let stores = Arc::new(KeyValueStores::new(folder(&host)));
        Self {
            host,
            stores,
            redis: None,
        }
    }

    fn redis() -> Self {
        Self::on(Redis::start())
    }

    fn on(redis: Redis) -> Self {
        Self {
            redis: Some(redis),
            ..Self::embedded()
        }
    }

    /// The stores of another process that shares the place.
    fn other_process(&self) -> KeyValueStores {
        KeyValueStores::new(folder(&self.host))
    }

    fn store(&self, stores: &KeyValueStores, worker: &Worker) -> KeyValueStore {
        let worker_type = worker.id.worker_type();
        match &self.redis {
            Some(redis) => stores.redis(worker_type, &redis.url().parse().unwrap()),
            None => stores.embedded(worker_type, worker.limits.database_bytes),
        }
    }

    /// The guest `keeper` at work.
    async fn keeper(&self) -> Pool {
        self.keeper_with(|_| ()).await
    }

    /// `set` changes its worker first.
    async fn keeper_with(&self, set: impl FnOnce(&mut Worker)) -> Pool {
        self.keeper_of(&self.stores, set).await
    }

    async fn keeper_of(&self, stores: &KeyValueStores, set: impl FnOnce(&mut Worker)) -> Pool {
        let mut worker = self.host.worker("FV");
        set(&mut worker);
        worker.keyvalue = self.store(stores, &worker);
        Pool::new(self.host.load(guest("keeper")).await.unwrap(), worker)
    }
}

fn folder(host: &Host) -> PathBuf {
    host.folder.path().join("keyvalue")
}

fn file(place: &Place) -> PathBuf {
    Path::new(&folder(&place.host)).join("FV/store.sqlite")
}

/// What comes of each of these steps.
async fn steps(pool: &Pool, steps: Value) -> Vec<Value> {
    let answer = reply(pool, json!({ "steps": steps })).await;
    answer.as_array().unwrap().clone()
}

/// What comes of one step.
async fn step(pool: &Pool, step: Value) -> Value {
    steps(pool, json!([step])).await.remove(0)
}

/// Checks that a step is refused, and how.
#[track_caller]
fn refused(result: &Value, error: &str, says: &str) {
    let text = result["text"].as_str().unwrap_or_default();
    assert!(
        result["error"] == error && text.contains(says),
        "`{error}: {says}` is not in: {result}"
    );
}
