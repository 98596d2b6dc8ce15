//! Where the buckets of each worker type are kept: one file for each on this host, or the servers
//! that the operator names. Files are opened and servers asked when a worker first needs them.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use warren_protocol::WorkerType;

use super::{
    embedded::Embedded,
    engine::Engine,
    redis::{Redis, Server},
    url::RedisUrl,
};
use crate::capability::first_use::FirstUse;

/// The key-value stores of one host, kept while plugins change.
#[derive(Debug)]
pub struct KeyValueStores {
    folder: PathBuf,
    embedded: Mutex<HashMap<WorkerType, Arc<Embedded>>>,
    /// One connection for each server, however many workers use it. It ends with the last of them.
    servers: Mutex<HashMap<RedisUrl, Weak<Server>>>,
    first_use: FirstUse,
}

/// The store of one worker. The default is none. Cheap to clone.
#[derive(Clone, Default)]
pub struct KeyValueStore(Option<Arc<dyn Engine>>);

impl KeyValueStores {
    /// Stores of which the embedded ones are files under `folder`, each `<folder>/<TYPE>/store.sqlite`.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            embedded: Mutex::default(),
            servers: Mutex::default(),
            first_use: FirstUse::default(),
        }
    }

    /// The same, where somebody hears of the first use of each embedded store.
    #[must_use]
    pub fn telling(self, first_use: FirstUse) -> Self {
        Self { first_use, ..self }
    }

    /// The embedded store of a worker type, which may have so many bytes. Nothing is opened yet.
    pub fn embedded(&self, worker_type: &WorkerType, most_bytes: u64) -> KeyValueStore {
        let mut embedded = lock(&self.embedded);
        let store = embedded.entry(worker_type.clone()).or_insert_with(|| {
            Arc::new(Embedded::new(
                &self.folder,
                worker_type.clone(),
                most_bytes,
                self.first_use.clone(),
            ))
        });
        KeyValueStore(Some(store.clone()))
    }

    /// The store of a worker type on a server. Nothing is connected yet.
    pub fn redis(&self, worker_type: &WorkerType, url: &RedisUrl) -> KeyValueStore {
        let mut servers = lock(&self.servers);
        let server = servers.get(url).and_then(Weak::upgrade);
        let server = server.unwrap_or_else(|| {
            servers.retain(|_, server| server.strong_count() > 0);
            let server = Arc::new(Server::new(url.clone()));
            servers.insert(url.clone(), Arc::downgrade(&server));
            server
        });
        KeyValueStore(Some(Arc::new(Redis::new(server, worker_type))))
    }

    /// Closes the files, so that the write-ahead logs are folded into them.
    pub async fn close(&self) {
        let stores: Vec<_> = lock(&self.embedded).drain().collect();
        for (_, store) in stores {
            store.close().await;
        }
    }
}

impl KeyValueStore {
    pub(super) fn engine(&self) -> Option<Arc<dyn Engine>> {
        self.0.clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
