//! The address of a Redis server, which may hold a password and therefore never shows itself whole.

use std::{fmt, str::FromStr};

use redis::{ConnectionInfo, IntoConnectionInfo};

use crate::Secret;

/// `redis://user:password@host:port/database`, or `rediss://` for TLS; checked.
///
/// `Debug` and `Display` hide the password.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RedisUrl {
    text: String,
    redacted: String,
}

impl RedisUrl {
    /// The address that is kept as a secret.
    ///
    /// # Errors
    /// A text that shows nothing of it.
    pub fn of_secret(secret: &Secret) -> Result<Self, &'static str> {
        secret.expose().parse()
    }

    /// For the connection, never for a log.
    pub(super) fn connection_info(&self) -> Result<ConnectionInfo, redis::RedisError> {
        self.text.as_str().into_connection_info()
    }
}

impl FromStr for RedisUrl {
    /// Never quotes the text: it may be another secret.
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const SCHEME: &str = "there is no redis:// or rediss://";
        let (scheme, _) = text.split_once("://").ok_or(SCHEME)?;
        if !["redis", "rediss"].contains(&scheme) {
            return Err(SCHEME);
        }
        let url = redis::parse_redis_url(text).ok_or(
            "this is not the address of a server (in a user and a password, write @ as %40, / as \
             %2F, : as %3A, # as %23 and % as %25)",
        )?;
        let host = url.host_str().filter(|host| !host.is_empty());
        let host = host.ok_or("the address names no host")?;
        if url.query().is_some() || url.fragment().is_some() {
            return Err("a ? or a # has no place in the address (in a password: %3F, %23)");
        }
        let database = url.path().trim_matches('/');
        if !database.is_empty() && database.parse::<u32>().is_err() {
            return Err("after the host comes the number of a database: /0");
        }
        text.into_connection_info()
            .map_err(|_| "this is not the address of a Redis server")?;
        let user = match (url.username(), url.password()) {
            ("", None) => String::new(),
            (user, None) => format!("{user}@"),
            (user, Some(_)) => format!("{user}:***@"),
        };
        let port = url.port().map(|port| format!(":{port}"));
        let port = port.unwrap_or_default();
        let path = url.path();
        Ok(Self {
            text: text.to_owned(),
            redacted: format!("{scheme}://{user}{host}{port}{path}"),
        })
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted)
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisUrl({})", self.redacted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_shown_and_everything_else_is() {
        for (text, shown) in [
            ("redis://h", "redis://h"),
            ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
            ("rediss://[::1]:1/7", "rediss://[::1]:1/7"),
            ("redis://:s3cret@h/", "redis://:***@h/"),
            ("rediss://u:s3cret%40@h:1", "rediss://u:***@h:1"),
            ("redis://u@h", "redis://u@h"),
        ] {
            let url: RedisUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), shown);
            assert_eq!(format!("{url:?}"), format!("RedisUrl({shown})"));
        }
    }

    #[test]
    fn what_is_no_server_is_refused_without_being_quoted() {
        for text in [
            "",
            "h:6379",
            "s3cret",
            "http://s3cret@h",
            "unix:///s3cret",
            "redis+unix:///s3cret",
            "redis://",
            "redis:///0",
            "redis://u:s3cret@",
            "redis://u:s3/cret@h",
            "redis://u:s3#cret@h",
            "redis://u:s3?cret@h",
            "redis://h:s3cret",
            "redis://h:99999",
            "redis://h/s3cret",
            "redis://h/-1",
            "redis://h?password=s3cret",
            "rediss://h#insecure",
        ] {
            let error = text.parse::<RedisUrl>().unwrap_err();
            assert!(!error.contains("s3"), "{text}: {error}");
        }
    }
}
