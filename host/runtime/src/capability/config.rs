//! `wasi:config/store`: the operator's tables `[workers.<TYPE>.config]` and `[workers.<TYPE>.secrets]`,
//! and nothing else. No name is in both.

use crate::{
    bindings::wasi::config::store::{Error, Host},
    state::State,
};

impl Host for State {
    fn get(&mut self, key: String) -> wasmtime::Result<Result<Option<String>, Error>> {
        let open = self.worker.config.get(&key).cloned();
        Ok(Ok(open.or_else(|| self.worker.reach.secrets.get(&key))))
    }

    fn get_all(&mut self) -> wasmtime::Result<Result<Vec<(String, String)>, Error>> {
        let pairs = self.worker.config.iter();
        Ok(Ok(pairs
            .map(|(key, value)| (key.clone(), value.clone()))
            .chain(self.worker.reach.secrets.pairs())
            .collect()))
    }
}
