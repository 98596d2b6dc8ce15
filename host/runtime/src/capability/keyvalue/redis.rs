//! A Redis server: for workers on several hosts.
//!
//! A key is `warren:kv:<TYPE>:<bucket>:<key>`. Neither types nor names of buckets have a colon in
//! them, so nothing that a guest can say leads to another one's keys. What has to happen in one step
//! is one command or one script, which the server runs without anything in between.

mod server;

use std::sync::Arc;

use async_trait::async_trait;
use redis::{Cmd, RedisError, cmd};
use warren_protocol::WorkerType;

pub(super) use self::server::Server;
use super::engine::{Engine, Failure, Key, Page, Swap};

/// The values of several keys, unless they are too large together: what is on its way to us is in
/// memory before we can count it.
const GET_MANY: &str = "
    local size = 0
    for _, key in ipairs(KEYS) do size = size + redis.call('STRLEN', key) end
    if size > tonumber(ARGV[1]) then return redis.error_reply('TOOLARGE ' .. size) end
    return redis.call('MGET', unpack(KEYS))";
/// Compares with what was seen (the third argument, if the second is 1) and sets, or says what is
/// there.
const SWAP: &str = "
    local seen = ARGV[2] == '1' and ARGV[3]
    local now = redis.call('GET', KEYS[1])
    if now ~= seen then return {0, now} end
    redis.call('SET', KEYS[1], ARGV[1])
    return {1, false}";

/// The buckets of one worker type on a server.
pub(super) struct Redis {
    server: Arc<Server>,
    /// `warren:kv:<TYPE>:`
    prefix: String,
}

impl Redis {
    pub(super) fn new(server: Arc<Server>, worker_type: &WorkerType) -> Self {
        Self {
            server,
            prefix: format!("warren:kv:{worker_type}:"),
        }
    }

    fn name(&self, Key { bucket, key }: Key<'_>) -> String {
        format!("{}{bucket}:{key}", self.prefix)
    }

    fn names<'a>(
        &'a self,
        bucket: &'a str,
        keys: &'a [String],
    ) -> impl Iterator<Item = String> + 'a {
        keys.iter().map(move |key| self.name(Key { bucket, key }))
    }

    async fn ask<T: redis::FromRedisValue>(&self, command: &Cmd) -> Result<T, Failure> {
        let value = self.server.ask(command).await?;
        redis::from_redis_value(value).map_err(|error| {
            Failure::Unavailable(format!("the server's answer makes no sense: {error}"))
        })
    }
}

#[async_trait]
impl Engine for Redis {
    async fn get(&self, key: Key<'_>) -> Result<Option<Vec<u8>>, Failure> {
        self.ask(cmd("GET").arg(self.name(key))).await
    }

    async fn set(&self, key: Key<'_>, value: Vec<u8>) -> Result<(), Failure> {
        self.ask(cmd("SET").arg(self.name(key)).arg(value)).await
    }

    async fn exists(&self, key: Key<'_>) -> Result<bool, Failure> {
        self.ask(cmd("EXISTS").arg(self.name(key))).await
    }

    /// The cursor is the server's own, which goes through all of its keys. It may name a key twice
    /// while others write.
    async fn list_keys(
        &self,
        bucket: &str,
        cursor: Option<String>,
        n_keys: usize,
    ) -> Result<Page, Failure> {
        let mut cursor = match cursor {
            None => 0,
            Some(cursor) => cursor.parse::<u64>().map_err(|_| {
                Failure::Invalid("this is no cursor that `list-keys` has given".to_owned())
            })?,
        };
        let prefix = format!("{}{bucket}:", self.prefix);
        loop {
            let mut scan = cmd("SCAN");
            // No character of a type or of a bucket's name means anything in a pattern.
            scan.arg(cursor).arg("MATCH").arg(format!("{prefix}*"));
            let (next, names): (u64, Vec<Vec<u8>>) =
                self.ask(scan.arg("COUNT").arg(n_keys)).await?;
            let keys = names.into_iter().filter_map(|name| {
                // What is not text, nobody has written by `set`.
                let name = String::from_utf8(name).ok()?;
                Some(name.strip_prefix(&prefix)?.to_owned())
            });
            let keys: Vec<String> = keys.collect();
            if next == 0 || !keys.is_empty() {
                let cursor = (next != 0).then(|| next.to_string());
                return Ok(Page { keys, cursor });
            }
            cursor = next;
        }
    }

    async fn increment(&self, key: Key<'_>, delta: i64) -> Result<i64, Failure> {
        self.ask(cmd("INCRBY").arg(self.name(key)).arg(delta)).await
    }

    async fn swap(
        &self,
        key: Key<'_>,
        seen: Option<&[u8]>,
        value: Vec<u8>,
    ) -> Result<Swap, Failure> {
        let mut script = cmd("EVAL");
        script.arg(SWAP).arg(1).arg(self.name(key)).arg(value);
        script.arg(i32::from(seen.is_some()));
        let (is_done, now): (bool, Option<Vec<u8>>) =
            self.ask(script.arg(seen.unwrap_or_default())).await?;
        Ok(if is_done {
            Swap::Done
        } else {
            Swap::Other(now)
        })
    }

    async fn get_many(
        &self,
        bucket: &str,
        keys: &[String],
        most_bytes: usize,
    ) -> Result<Vec<Option<Vec<u8>>>, Failure> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let mut script = cmd("EVAL");
        script.arg(GET_MANY).arg(keys.len());
        for name in self.names(bucket, keys) {
            script.arg(name);
        }
        match self.ask(script.arg(most_bytes)).await {
            Err(Failure::Invalid(text)) => Err(match text.strip_prefix("TOOLARGE ") {
                Some(n_bytes) => Failure::too_large(n_bytes, most_bytes),
                None => Failure::Invalid(text),
            }),
            values => values,
        }
    }

    async fn set_many(&self, bucket: &str, pairs: Vec<(String, Vec<u8>)>) -> Result<(), Failure> {
        if pairs.is_empty() {
            return Ok(());
        }
        let mut set = cmd("MSET");
        for (key, value) in pairs {
            let key = &key;
            set.arg(self.name(Key { bucket, key })).arg(value);
        }
        self.ask(&set).await
    }

    async fn delete_many(&self, bucket: &str, keys: &[String]) -> Result<(), Failure> {
        if keys.is_empty() {
            return Ok(());
        }
        let mut delete = cmd("DEL");
        for name in self.names(bucket, keys) {
            delete.arg(name);
        }
        let _n_deleted: u64 = self.ask(&delete).await?;
        Ok(())
    }
}

/// What a server's refusal means (<https://redis.io/docs/latest/develop/reference/protocol-spec/>:
/// the first word is the kind).
fn read_refusal(error: &RedisError) -> Failure {
    let code = error.code().unwrap_or_default();
    let detail = error.detail().unwrap_or_default();
    match code {
        "TOOLARGE" => Failure::Invalid(format!("TOOLARGE {detail}")),
        "WRONGTYPE" => Failure::Invalid(
            "under the key is something that another program keeps there".to_owned(),
        ),
        "OOM" => Failure::Unavailable("the server is full (its `maxmemory`)".to_owned()),
        _ if detail.contains("not an integer") => Failure::no_number(),
        _ if detail.contains("overflow") => Failure::overflow(),
        _ => Failure::Unavailable(format!("the server refuses: {code} {detail}")),
    }
}
