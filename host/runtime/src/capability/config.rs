//! `wasi:config/store`: the operator's table `[workers.<TYPE>.config]`, and nothing else.

use crate::{
    bindings::wasi::config::store::{Error, Host},
    state::State,
};

impl Host for State {
    fn get(&mut self, key: String) -> wasmtime::Result<Result<Option<String>, Error>> {
        Ok(Ok(self.worker.config.get(&key).cloned()))
    }

    fn get_all(&mut self) -> wasmtime::Result<Result<Vec<(String, String)>, Error>> {
        let pairs = self.worker.config.iter();
        Ok(Ok(pairs
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()))
    }
}
