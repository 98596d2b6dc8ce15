//! The address of a broker, which usually holds a password and therefore never shows itself whole.

use std::{fmt, net::Ipv6Addr, str::FromStr};

/// `amqp://user:password@host:port/vhost?…` or `amqps://…`, checked.
///
/// `Debug` and `Display` hide the password and what follows a `?`; [`BrokerUrl::expose`] does not.
#[derive(Clone, PartialEq, Eq)]
pub struct BrokerUrl {
    text: String,
    redacted: String,
    names_user: bool,
    has_password: bool,
}

/// Why a text is not the address of a broker. Never quotes it: what looks like a port may be the
/// second half of a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BrokerUrlError {
    /// The scheme is missing or another one.
    #[error("the address of the broker does not begin with `amqp://` or `amqps://`")]
    Scheme,
    /// Nothing between the scheme (or the user) and the port or path.
    #[error("the address of the broker names no host")]
    Host,
    /// Not 1 to 65535.
    #[error("the port of the broker is not a number from 1 to 65535")]
    Port,
    /// A character that must be written as `%` and two hex digits.
    #[error("the address of the broker holds a character that has a meaning of its own there")]
    Encoding,
}

impl BrokerUrl {
    /// The whole address, password included: for the connection, never for a log.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// Whether it says who connects.
    #[must_use]
    pub fn names_user(&self) -> bool {
        self.names_user
    }

    /// Whether it holds a password.
    #[must_use]
    pub fn has_password(&self) -> bool {
        self.has_password
    }

    /// Whether TLS is spoken with this broker.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.text.starts_with("amqps://")
    }
}

impl BrokerUrlError {
    /// What to do about it.
    pub(super) fn remedy(self) -> &'static str {
        match self {
            Self::Scheme | Self::Host => {
                "write amqp://user:password@host:5672, or amqps://user:password@host:5671 for TLS"
            }
            Self::Port => {
                "write host:port with a numeric port, or leave the port out; after a user and \
                 password comes an @ and the host"
            }
            Self::Encoding => {
                "in the user, the password and the virtual host, write @ as %40, / as %2F, ? as %3F, # as %23, % as %25 and a space as %20"
            }
        }
    }
}

impl FromStr for BrokerUrl {
    type Err = BrokerUrlError;

    fn from_str(text: &str) -> Result<Self, BrokerUrlError> {
        let (scheme, rest) = text.split_once("://").ok_or(BrokerUrlError::Scheme)?;
        if !["amqp", "amqps"].contains(&scheme) {
            return Err(BrokerUrlError::Scheme);
        }
        check_characters(rest)?;
        let (authority, tail) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        // An `@` further on means that the user or the password holds a raw `/` or `?`.
        if tail.contains('@') {
            return Err(BrokerUrlError::Encoding);
        }
        let (user, host_and_port) = match authority.rsplit_once('@') {
            Some((user, host_and_port)) => (Some(user), host_and_port),
            None => (None, authority),
        };
        if user.is_some_and(|user| user.contains('@')) {
            return Err(BrokerUrlError::Encoding);
        }
        check_host_and_port(host_and_port)?;

        let names_user = user.is_some_and(|user| !user.is_empty() && !user.starts_with(':'));
        let has_password = user.is_some_and(|user| user.contains(':'));
        let user = match user.map(|user| user.split_once(':').ok_or(user)) {
            None => String::new(),
            Some(Ok((user, _password))) => format!("{user}:***@"),
            Some(Err(user)) => format!("{user}@"),
        };
        let path = match tail.split_once('?') {
            // A query may name a password, too (that of a TLS key).
            Some((path, _query)) => format!("{path}?***"),
            None => tail.to_owned(),
        };
        Ok(Self {
            text: text.to_owned(),
            redacted: format!("{scheme}://{user}{host_and_port}{path}"),
            names_user,
            has_password,
        })
    }
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted)
    }
}

impl fmt::Debug for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BrokerUrl({})", self.redacted)
    }
}

/// No spaces, no fragment, and every `%` begins an encoded byte.
fn check_characters(text: &str) -> Result<(), BrokerUrlError> {
    let refused = |c: char| c.is_whitespace() || c.is_control() || "#\\\"<>".contains(c);
    let is_encoded_byte =
        |digits: &str| digits.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2;
    if text.contains(refused) || !text.split('%').skip(1).all(is_encoded_byte) {
        return Err(BrokerUrlError::Encoding);
    }
    Ok(())
}

fn check_host_and_port(text: &str) -> Result<(), BrokerUrlError> {
    let (host_is_good, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) => (host.parse::<Ipv6Addr>().is_ok(), port),
        None => {
            let (host, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            (!host.is_empty(), port)
        }
    };
    if !host_is_good {
        return Err(BrokerUrlError::Host);
    }
    match port.strip_prefix(':').map(str::parse::<u16>) {
        None if port.is_empty() => Ok(()),
        Some(Ok(1..)) => Ok(()),
        _ => Err(BrokerUrlError::Port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn shown(text: &str, expected: &str) {
        let url: BrokerUrl = text.parse().unwrap();
        assert_eq!(url.to_string(), expected);
        assert_eq!(format!("{url:?}"), format!("BrokerUrl({expected})"));
        assert_eq!(url.expose(), text);
    }

    #[track_caller]
    fn refused(text: &str, expected: BrokerUrlError) {
        assert_eq!(text.parse::<BrokerUrl>(), Err(expected));
    }

    #[test]
    fn passwords_and_queries_are_not_shown() {
        shown("amqp://u:s3cret@h:5672/v", "amqp://u:***@h:5672/v");
        shown("amqp://u:s%40cret@h", "amqp://u:***@h");
        shown("amqp://u:s3:cret@h", "amqp://u:***@h");
        shown("amqps://u:@h", "amqps://u:***@h");
        shown("amqps://h/?password=s3cret", "amqps://h/?***");
        shown("amqps://h?password=s3cret", "amqps://h?***");
    }

    #[test]
    fn everything_else_is_shown() {
        shown("amqp://localhost", "amqp://localhost");
        shown("amqp://u@localhost:1/%2f", "amqp://u@localhost:1/%2f");
        shown("amqp://[::1]:5672/v", "amqp://[::1]:5672/v");
        shown("amqp://[::1]", "amqp://[::1]");
    }

    #[test]
    fn another_scheme_is_refused() {
        for text in [
            "",
            "localhost",
            "http://localhost",
            "amqp:/h",
            "u:s3cret@h",
            "redis://h:1",
        ] {
            refused(text, BrokerUrlError::Scheme);
        }
    }

    #[test]
    fn a_host_is_needed() {
        for text in [
            "amqp://",
            "amqp:///v",
            "amqp://u:p@",
            "amqp://:5672",
            "amqp://[x]",
            "amqp://?a",
        ] {
            refused(text, BrokerUrlError::Host);
        }
    }

    #[test]
    fn a_port_is_a_number_from_1_to_65535() {
        for text in [
            "amqp://h:",
            "amqp://h:0",
            "amqp://h:65536",
            "amqp://u:s3cret",
            "amqp://[::1]x",
            "amqp://h:1:2",
        ] {
            refused(text, BrokerUrlError::Port);
        }
    }

    #[test]
    fn characters_with_a_meaning_must_be_encoded() {
        for text in [
            "amqp://u:a/b@h",
            "amqp://u:a?b@h",
            "amqp://u:a#b@h",
            "amqp://u:a@b@h",
            "amqp://u:a%b@h",
            "amqp://u:a%4@h",
            "amqp://u:a b@h",
            "amqp://h/v@x",
        ] {
            refused(text, BrokerUrlError::Encoding);
        }
    }
}
