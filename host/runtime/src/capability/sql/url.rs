//! The address of a PostgreSQL database, which may hold a password and therefore never shows itself
//! whole.

use std::{
    fmt,
    hash::{Hash, Hasher},
    str::FromStr,
};

use sqlx::postgres::{PgConnectOptions, PgSslMode};

use crate::Secret;

/// `postgres://user:password@host:port/database?…`, checked.
///
/// `Debug` and `Display` hide the password.
#[derive(Clone)]
pub struct DatabaseUrl {
    text: String,
    shown: String,
    options: Box<PgConnectOptions>,
}

/// What may stand behind the `?`. A password may not: it has one place, where it is not shown.
const PARAMETERS: [&str; 11] = [
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "application_name",
    "options",
];

impl DatabaseUrl {
    /// The address that is kept as a secret.
    ///
    /// # Errors
    /// As for [`DatabaseUrl::from_str`]: a text that shows nothing of it.
    pub fn from_secret(secret: &Secret) -> Result<Self, &'static str> {
        secret.expose().parse()
    }

    /// For the connection.
    pub(super) fn options(&self) -> &PgConnectOptions {
        &self.options
    }

    /// Whether the password and the data may be read by others on the way: TLS that is not asked
    /// for, or with anybody, and a server that is not on this machine.
    #[must_use]
    pub fn is_exposed(&self) -> bool {
        let host = self.options.get_host();
        let is_local = self.options.get_socket().is_some()
            || host == "localhost"
            || host
                .trim_matches(['[', ']'])
                .parse::<std::net::IpAddr>()
                .is_ok_and(|address| address.is_loopback());
        let mode = self.options.get_ssl_mode();
        !is_local && !matches!(mode, PgSslMode::VerifyCa | PgSslMode::VerifyFull)
    }
}

impl FromStr for DatabaseUrl {
    type Err = &'static str;

    /// The error never quotes the text: what looks like a port may be the second half of a password.
    fn from_str(text: &str) -> Result<Self, &'static str> {
        let (scheme, rest) = text
            .split_once("://")
            .filter(|(scheme, _)| ["postgres", "postgresql"].contains(scheme))
            .ok_or("the URL of the database does not begin with postgres:// or postgresql://")?;
        let refused = |c: char| c.is_whitespace() || c.is_control() || "#\\\"<>".contains(c);
        if rest.contains(refused) {
            return Err("the URL of the database holds a character that must be percent-encoded");
        }
        let (authority, tail) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (path, query) = tail.split_once('?').unwrap_or((tail, ""));
        let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
        // An `@` further on means that the user or the password holds a raw `/` or `?`.
        if tail.contains('@') || user.contains('@') {
            return Err(
                "the user or password in the URL of the database holds a character that \
                        must be percent-encoded: @ as %40, / as %2F, ? as %3F",
            );
        }
        let names = query.split('&').filter(|pair| !pair.is_empty());
        let mut names = names.map(|pair| pair.split('=').next().unwrap_or_default());
        if !names.all(|name| PARAMETERS.contains(&name)) {
            return Err("the URL of the database has an unknown parameter behind the `?`");
        }
        if path.trim_start_matches('/').is_empty() && !query.contains("dbname=") {
            return Err("the URL names no database");
        }
        if host.is_empty() && !query.contains("host") {
            return Err("the URL of the database names no host");
        }
        let options = PgConnectOptions::from_str(text)
            .map_err(|_| "the URL of the database has a host, port or parameter that is none")?;
        let shown_user = match user.split_once(':') {
            Some((user, _password)) => format!("{user}:***@"),
            None if authority.contains('@') => format!("{user}@"),
            None => String::new(),
        };
        Ok(Self {
            text: text.to_owned(),
            shown: format!("{scheme}://{shown_user}{host}{tail}"),
            options: Box::new(options),
        })
    }
}

impl PartialEq for DatabaseUrl {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for DatabaseUrl {}

impl Hash for DatabaseUrl {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DatabaseUrl({})", self.shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> DatabaseUrl {
        text.parse().unwrap()
    }

    #[test]
    fn the_password_is_not_shown() {
        for (text, shown) in [
            ("postgres://u:s3cret@h/d", "postgres://u:***@h/d"),
            (
                "postgresql://u:s%40cret@h:1/d?sslmode=require",
                "postgresql://u:***@h:1/d?sslmode=require",
            ),
            ("postgres://u:@h/d", "postgres://u:***@h/d"),
            ("postgres://u@h/d", "postgres://u@h/d"),
            ("postgres://h/d", "postgres://h/d"),
            ("postgres://u@[::1]:5433/d", "postgres://u@[::1]:5433/d"),
            (
                "postgres:///d?host=/run/postgresql&user=u",
                "postgres:///d?host=/run/postgresql&user=u",
            ),
        ] {
            assert_eq!(url(text).to_string(), shown);
            assert_eq!(format!("{:?}", url(text)), format!("DatabaseUrl({shown})"));
        }
    }

    #[test]
    fn what_is_no_url_of_a_database_is_refused_and_not_quoted() {
        for text in [
            "",
            "mysql://u:s3cret@h/d",
            "u:s3cret@h/d",
            "postgres://u:s3cret@h",
            "postgres://u:s3cret@/d",
            "postgres://u:s3/cret@h/d",
            "postgres://u:s3@cret@h/d",
            "postgres://u:s3 cret@h/d",
            "postgres://h:s3cret/d",
            "postgres://u@h/d?password=s3cret",
            "postgres://u@h/d?sslmode=s3cret",
            "postgres://u@h/d?x=s3cret",
        ] {
            let error = text.parse::<DatabaseUrl>().unwrap_err();
            assert!(!error.contains("s3") && !error.contains("cret"), "{error}");
        }
    }

    #[test]
    fn a_server_elsewhere_is_exposed_without_a_checked_certificate() {
        for (text, is_exposed) in [
            ("postgres://h/d", true),
            ("postgres://h/d?sslmode=require", true),
            ("postgres://h/d?sslmode=verify-full", false),
            ("postgres://localhost/d", false),
            ("postgres://127.0.0.1/d", false),
            ("postgres://[::1]/d", false),
            ("postgres:///d?host=/run/postgresql", false),
        ] {
            assert_eq!(url(text).is_exposed(), is_exposed, "{text}");
        }
    }
}
