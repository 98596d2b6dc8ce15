//! `keyvalue` under `[workers.TYPE]`: whether a worker has keys and values, and which server has them.
//!
//! Invariant: the address may hold a password. What is written here or kept elsewhere shows in no
//! message, whether it is an address or not.

use warren_runtime::RedisUrl;

use super::{
    RedisSource, WorkerConfig,
    reach::{read_secret_of, secret},
    read::{Key, Report},
    tree::{Node, Value},
    values::{self, Read},
};

const REMEDY: &str = "write true for a file of this host, false for none, \"redis://host:6379/0\" for \
     a server (rediss:// with TLS), or where that address is kept: { file = \"/run/secrets/redis-url\" } \
     or { env = \"REDIS_URL\" }";

/// Beside the other grants.
pub(super) const KEYVALUE: Key<WorkerConfig> = Key {
    name: "keyvalue",
    set: |worker, node, report: &mut Report| match read(node) {
        Ok((is_granted, redis)) => {
            worker.grants.keyvalue = is_granted;
            worker.keeps_values_here = is_granted && redis.is_none();
            worker.redis = redis;
        }
        Err(mistake) => report.mistakes.push(mistake),
    },
};

fn read(node: &Node) -> Read<(bool, Option<RedisSource>)> {
    match &node.value {
        Value::Table(_) => Ok((true, Some(RedisSource::Kept(secret(node)?)))),
        Value::Text(text) => match text.parse() {
            Ok(url) => Ok((true, Some(RedisSource::Written(url)))),
            Err(problem) => Err(node.mistake(problem, REMEDY)),
        },
        Value::Bool(is_granted) => Ok((*is_granted, None)),
        Value::Untyped(_) => values::truth(node).map(|is_granted| (is_granted, None)),
        other => Err(node.mistake(
            format!(
                "true, false or a server is expected, this is {}",
                other.kind()
            ),
            REMEDY,
        )),
    }
}

/// Reads the address as it is now.
///
/// # Errors
/// A text that names where it is kept and shows nothing of what is there.
pub(crate) fn read_redis(source: &RedisSource) -> Result<RedisUrl, String> {
    match source {
        RedisSource::Written(url) => Ok(url.clone()),
        RedisSource::Kept(source) => {
            let url = RedisUrl::of_secret(&read_secret_of(source)?);
            url.map_err(|problem| format!("in {source}: {problem}"))
        }
    }
}
