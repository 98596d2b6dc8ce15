//! Where requests may go: scheme, host and port, as an operator writes it and as a request names it.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
};

/// The longest name in the domain name system.
const MAX_NAME_BYTES: usize = 253;

/// An entry of the operator's list: `https://api.example.com`, `http://10.0.0.7:8080`,
/// `https://*.example.com` (every name under it, not itself), `https://*` (every host).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    scheme: Scheme,
    host: Pattern,
    port: u16,
}

/// Where one request wants to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Destination {
    pub(crate) scheme: Scheme,
    pub(crate) host: Host,
    pub(crate) port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    Http,
    Https,
}

/// A host of a request, in lower case and without the dot at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    Name(String),
    Address(IpAddr),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    Any,
    /// Every name that ends with a dot and this.
    Under(String),
    One(Host),
}

impl Origin {
    pub(crate) fn covers(&self, destination: &Destination) -> bool {
        let Destination { scheme, host, port } = destination;
        let is_host = match (&self.host, host) {
            (Pattern::Any, _) => true,
            (Pattern::Under(parent), Host::Name(name)) => name
                .strip_suffix(parent.as_str())
                .is_some_and(|child| child.len() > 1 && child.ends_with('.')),
            (Pattern::Under(_), Host::Address(_)) => false,
            (Pattern::One(granted), host) => granted == host,
        };
        is_host && self.scheme == *scheme && self.port == *port
    }

    /// Whether the operator has written an address, which is granted by that, and not a name.
    pub(crate) fn names_address(&self) -> bool {
        matches!(self.host, Pattern::One(Host::Address(_)))
    }
}

impl Destination {
    /// What the URI of a request says. `None`: nothing that a request could go to.
    pub(crate) fn of(uri: &http::Uri) -> Option<Self> {
        let scheme = Scheme::read(uri.scheme_str()?)?;
        let authority = uri.authority()?.as_str();
        // A user and a password have no place in a request, and hide where it goes.
        if authority.contains('@') {
            return None;
        }
        let (host, port) = split(authority, scheme)?;
        let host = Host::read(&host)?;
        Some(Self { scheme, host, port })
    }
}

impl Scheme {
    fn read(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "http" => Some(Self::Http),
            "https" => Some(Self::Https),
            _ => None,
        }
    }

    fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl Host {
    fn read(text: &str) -> Option<Self> {
        if let Some(inner) = text.strip_prefix('[') {
            let address: Ipv6Addr = inner.strip_suffix(']')?.parse().ok()?;
            return Some(Self::Address(IpAddr::V6(address).to_canonical()));
        }
        if let Ok(address) = text.parse() {
            return Some(Self::Address(IpAddr::V4(address)));
        }
        is_name(text).then(|| Self::Name(text.to_owned()))
    }
}

impl FromStr for Origin {
    /// What is wrong with it; shows nothing of the text, which may be a URL with a password.
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (scheme, rest) = text
            .split_once("://")
            .ok_or("there is no http:// or https://")?;
        let scheme = Scheme::read(scheme).ok_or("only http:// and https:// can be granted")?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains('@') {
            return Err("a user or a password has no place here: the worker sends its own");
        }
        if rest.contains(['/', '?', '#']) {
            return Err("a path cannot be granted, only a whole host");
        }
        let (host, port) = split(rest, scheme).ok_or("the port is not a number from 1 to 65535")?;
        let pattern = match host.strip_prefix("*.") {
            // Not `*.`, which is `*` once its dot is gone: half a name must not grant every host.
            _ if host == "*" && !rest.starts_with("*.") => Some(Pattern::Any),
            Some(parent) => {
                let is_parent = is_name(parent) && !ends_in_number(parent);
                is_parent.then(|| Pattern::Under(parent.to_owned()))
            }
            None => Host::read(&host)
                // `127.1` and `0x7f000001` are addresses to some, and names to others.
                .filter(|host| !matches!(host, Host::Name(name) if ends_in_number(name)))
                .map(Pattern::One),
        };
        let host = pattern.ok_or("the host is neither a name nor an IP address")?;
        Ok(Self { scheme, host, port })
    }
}

/// Host and port. Another port than the scheme's follows the last colon, but one in brackets.
fn split(authority: &str, scheme: Scheme) -> Option<(String, u16)> {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => {
            let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
            let port = port.parse().ok().filter(|port| *port > 0 && is_number)?;
            (host, port)
        }
        _ => (authority, scheme.port()),
    };
    let host = host.to_ascii_lowercase();
    let host = host.strip_suffix('.').unwrap_or(&host);
    Some((host.to_owned(), port))
}

fn is_name(text: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() < 64
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    text.len() <= MAX_NAME_BYTES && text.split('.').all(is_label)
}

fn ends_in_number(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    last.starts_with("0x") || last.bytes().all(|byte| byte.is_ascii_digit())
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = match &self.host {
            Pattern::Any => "*".to_owned(),
            Pattern::Under(parent) => format!("*.{parent}"),
            Pattern::One(host) => host.to_string(),
        };
        write_origin(f, self.scheme, &host, self.port)
    }
}

impl fmt::Display for Destination {
    /// As the operator would write it to grant it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_origin(f, self.scheme, &self.host.to_string(), self.port)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => write!(f, "{address}"),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

fn write_origin(f: &mut fmt::Formatter<'_>, scheme: Scheme, host: &str, port: u16) -> fmt::Result {
    let name = match scheme {
        Scheme::Http => "http",
        Scheme::Https => "https",
    };
    write!(f, "{name}://{host}")?;
    if port == scheme.port() {
        Ok(())
    } else {
        write!(f, ":{port}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(origin: &str, covered: &[&str], others: &[&str]) {
        let origin: Origin = origin.parse().unwrap();
        let covers = |uri: &&&str| {
            let destination = Destination::of(&uri.parse().unwrap());
            destination.is_some_and(|destination| origin.covers(&destination))
        };
        let missed: Vec<_> = covered.iter().filter(|uri| !covers(uri)).collect();
        let leaked: Vec<_> = others.iter().filter(covers).collect();
        assert!(
            missed.is_empty() && leaked.is_empty(),
            "{origin} does not cover {missed:?}, but {leaked:?}"
        );
    }

    #[test]
    fn scheme_host_and_port_have_to_be_those_that_are_granted() {
        check(
            "https://api.example.com",
            &[
                "https://api.example.com",
                "https://api.example.com/any/path?and=query",
                "https://api.example.com:443/",
                "HTTPS://API.Example.COM./",
            ],
            &[
                "http://api.example.com/",
                "https://api.example.com:8443/",
                "https://example.com/",
                "https://x.api.example.com/",
                "https://api.example.com.evil.example/",
                "https://evilapi.example.com/",
                "https://api.example.com@evil.example/",
                "https://evil.example:443@api.example.com/",
                "https://user@api.example.com/",
                "https://93.184.216.34/",
            ],
        );
        check(
            "http://10.0.0.7:8080",
            &["http://10.0.0.7:8080/", "http://[::ffff:10.0.0.7]:8080/"],
            &[
                "http://10.0.0.7/",
                "https://10.0.0.7:8080/",
                "http://10.0.0.8:8080/",
                "http://10.0.0.07:8080/",
                "http://167772167:8080/",
                "http://10.7:8080/",
            ],
        );
        check(
            "http://[fd00::7]:8080/",
            &["http://[fd00::7]:8080/", "http://[FD00:0::7]:8080/x"],
            &["http://[fd00::7]/", "http://[fd00::8]:8080/"],
        );
    }

    #[test]
    fn a_star_stands_for_whole_labels() {
        check(
            "https://*.example.com",
            &["https://a.example.com/", "https://a.b.example.com./"],
            &[
                "https://example.com/",
                "https://.example.com/",
                "https://aexample.com/",
                "https://a.example.com:8443/",
                "http://a.example.com/",
                "https://a.example.com.evil.example/",
            ],
        );
        check(
            "http://*:8080",
            &[
                "http://localhost:8080/",
                "http://127.0.0.1:8080/",
                "http://[::1]:8080/",
            ],
            &["http://localhost/", "https://localhost:8080/"],
        );
    }

    #[test]
    fn an_origin_shows_itself_as_it_is_written() {
        for text in [
            "https://api.example.com",
            "http://10.0.0.7:8080",
            "https://*.example.com",
            "https://*",
            "http://[fd00::7]:8080",
        ] {
            assert_eq!(text.parse::<Origin>().unwrap().to_string(), text);
        }
        for (text, shown) in [
            ("HTTPS://API.example.com.:443/", "https://api.example.com"),
            ("http://a:443", "http://a:443"),
            ("http://[::ffff:1.2.3.4]", "http://1.2.3.4"),
        ] {
            assert_eq!(text.parse::<Origin>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_origin_is_refused() {
        for text in [
            "",
            "api.example.com",
            "ftp://a",
            "https://",
            "https://a/b",
            "https://a?b",
            "https://u:p@a",
            "https://a:0",
            "https://a:65536",
            "https://a:+80",
            "https://a:*",
            "https://a b",
            "https://a..b",
            "https://*a.example.com",
            "https://a.*.com",
            "https://*.",
            "https://*.1.2.3",
            "https://127.1",
            "https://0x7f000001",
            "https://[::1",
            "https://::1",
            "https://münchen.example",
        ] {
            assert!(text.parse::<Origin>().is_err(), "{text}");
        }
    }
}
