//! What a person sets for a RabbitMQ bus, and the only place that sees a password.

use std::{fmt, time::Duration};

use lapin::uri::{AMQPScheme, AMQPUri, SASLMechanism};
use warren_protocol::Encoding;

use super::{files::BrokerFiles, peers::PeersConfig};
use crate::DEFAULT_MAX_MESSAGE_BYTES;

/// How to reach RabbitMQ and how to behave there. Its debug print shows no password.
#[derive(Clone)]
pub struct RabbitMqConfig {
    /// The nodes of one cluster, tried in turn: `amqp://user:password@host:5672/vhost`, or
    /// `amqps://` for TLS. At least one.
    pub urls: Vec<String>,
    /// The password and the certificates that the URLs do not hold.
    pub files: BrokerFiles,
    /// A name for this host that no other host has: it names the inbox.
    pub host: String,
    /// The encoding of the announcements, and of messages that do not say theirs: they carry no
    /// mark, so the whole bus has to agree.
    pub encoding: Encoding,
    /// How often each side shows that it lives. A frozen peer is noticed after three of them.
    pub heartbeat: Duration,
    /// How long a publish may take in all, waiting for the connection and for the confirm included.
    pub publish_timeout: Duration,
    /// The largest body that is published, in bytes.
    pub max_message_bytes: usize,
    /// How this host gets on with workers of MicroServices.js.
    pub peers: PeersConfig,
}

/// The configuration cannot be used. Never shows a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No URL at all.
    #[error("no broker URL is given: set at least one, such as amqp://localhost:5672")]
    NoUrl,
    /// One URL has another form.
    #[error(
        "broker URL number {number} cannot be read ({reason}): write it as \
         amqp://user:password@host:5672/vhost, special characters percent-encoded"
    )]
    Url {
        /// Its place in the list, from 1: the text itself may hold a password.
        number: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// The host's name does not fit into a queue's name.
    #[error(
        "`{0}` cannot name a host on the broker: use 1 to 100 letters, digits, `_`, `-` or `.`"
    )]
    Host(String),
}

/// One node, ready to be connected to.
#[derive(Clone)]
pub(super) struct Broker {
    pub(super) uri: AMQPUri,
    /// The URL as it may be shown.
    pub(super) shown: String,
    /// What is read when it is connected to.
    pub(super) files: BrokerFiles,
}

impl RabbitMqConfig {
    /// How often each side shows that it lives: a dead peer is noticed after about 21 s.
    pub const DEFAULT_HEARTBEAT: Duration = Duration::from_secs(7);
    /// How long a publish may take in all.
    pub const DEFAULT_PUBLISH_TIMEOUT: Duration = Duration::from_secs(8);

    /// The defaults for the given nodes and host name.
    #[must_use]
    pub fn new(urls: Vec<String>, host: impl Into<String>) -> Self {
        Self {
            urls,
            files: BrokerFiles::default(),
            host: host.into(),
            encoding: Encoding::Json,
            heartbeat: Self::DEFAULT_HEARTBEAT,
            publish_timeout: Self::DEFAULT_PUBLISH_TIMEOUT,
            max_message_bytes: DEFAULT_MAX_MESSAGE_BYTES,
            peers: PeersConfig::default(),
        }
    }

    pub(super) fn brokers(&self) -> Result<Vec<Broker>, ConfigError> {
        if self.urls.is_empty() {
            return Err(ConfigError::NoUrl);
        }
        self.urls
            .iter()
            .enumerate()
            .map(|(index, url)| {
                let number = index + 1;
                Broker::parse(url, self.heartbeat, &self.files)
                    .map_err(|reason| ConfigError::Url { number, reason })
            })
            .collect()
    }
}

impl Broker {
    /// The same node, where each side shows more often that it lives.
    pub(super) fn with_heartbeat(&self, seconds: u16) -> Self {
        let mut broker = self.clone();
        let own = broker.uri.query.heartbeat.unwrap_or(seconds);
        broker.uri.query.heartbeat = Some(own.min(seconds));
        broker
    }

    fn parse(url: &str, heartbeat: Duration, files: &BrokerFiles) -> Result<Self, String> {
        if !url.starts_with("amqp://") && !url.starts_with("amqps://") {
            return Err("it must begin with amqp:// or amqps://".to_owned());
        }
        // lapin's URL type takes such a host for a missing one and goes to localhost.
        if url.contains("@[") || url.contains("://[") {
            return Err("an IPv6 address is not supported here, use a host name".to_owned());
        }
        // The parser's message may quote the URL, password included; only short ones are facts.
        let mut uri: AMQPUri = url.parse().map_err(|reason: String| {
            if reason.contains("://") {
                "it is not a URL".to_owned()
            } else {
                reason
            }
        })?;
        // `amqp://host/` names the virtual host "", which nobody has; every other client of this
        // bus (amqplib) reads it as the default one.
        if uri.vhost.is_empty() {
            uri.vhost = "/".to_owned();
        }
        if uri.query.heartbeat.is_none() {
            let seconds = heartbeat.as_secs().clamp(1, 3600);
            uri.query.heartbeat = u16::try_from(seconds).ok();
        }
        let mut files = files.clone();
        let user = userinfo(url);
        if uri.scheme == AMQPScheme::AMQP {
            (files.ca, files.certificate, files.key) = (None, None, None);
        }
        // Who shows a certificate and gives no name is who the certificate says.
        if files.certificate.is_some() && user.is_none() && uri.query.auth_mechanism.is_none() {
            uri.query.auth_mechanism = Some(SASLMechanism::External);
        }
        let has_password = user.is_some_and(|user| user.contains(':'));
        if has_password || uri.query.auth_mechanism == Some(SASLMechanism::External) {
            files.password = None;
        }
        Ok(Self {
            shown: shown(&uri),
            uri,
            files,
        })
    }

    /// Whether the client's certificate, and no password, says who it is.
    pub(super) fn is_external(&self) -> bool {
        self.uri.query.auth_mechanism == Some(SASLMechanism::External)
    }
}

/// The user and the password of a URL, as they are written there.
fn userinfo(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?']).next()?;
    let (user, _) = authority.rsplit_once('@')?;
    Some(user).filter(|user| !user.is_empty())
}

/// The URL without the password.
fn shown(uri: &AMQPUri) -> String {
    let AMQPUri {
        scheme,
        authority,
        vhost,
        query,
    } = uri;
    let (user, host, port) = (
        &authority.userinfo.username,
        &authority.host,
        authority.port,
    );
    let vhost = if vhost == "/" { "" } else { vhost };
    let slash = if vhost.is_empty() { "" } else { "/" };
    // lapin fills in `guest` where a certificate is to say who it is.
    let user = match query.auth_mechanism {
        Some(SASLMechanism::External) => String::new(),
        _ => format!("{user}@"),
    };
    format!("{scheme}://{user}{host}:{port}{slash}{vhost}")
}

impl fmt::Debug for RabbitMqConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let urls: Vec<String> = self
            .urls
            .iter()
            .map(
                |url| match Broker::parse(url, self.heartbeat, &self.files) {
                    Ok(broker) => broker.shown,
                    Err(_) => "(unreadable URL)".to_owned(),
                },
            )
            .collect();
        f.debug_struct("RabbitMqConfig")
            .field("urls", &urls)
            .field("files", &self.files)
            .field("host", &self.host)
            .field("encoding", &self.encoding)
            .field("heartbeat", &self.heartbeat)
            .field("publish_timeout", &self.publish_timeout)
            .field("max_message_bytes", &self.max_message_bytes)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(url: &str) -> RabbitMqConfig {
        RabbitMqConfig::new(vec![url.to_owned()], "host")
    }

    #[test]
    fn no_print_and_no_error_shows_the_password() {
        for url in [
            "amqp://user:hunter2@broker:5672/vhost",
            "amqp://user:hunter2@broker:notaport/vhost",
            "amqp:user:hunter2@broker",
            "user:hunter2@broker",
            "http://user:hunter2@broker",
            "amqp://user:hunter2@[::1]:5672",
            "amqp://user:hunter2@broker?heartbeat=hunter",
        ] {
            let config = config(url);
            assert!(!format!("{config:?}").contains("hunter2"), "{url}");
            if let Err(error) = config.brokers() {
                assert!(!format!("{error} {error:?}").contains("hunter2"), "{url}");
            }
        }
    }

    #[test]
    fn a_url_is_shown_without_its_password() {
        let broker = &config("amqp://user:hunter2@broker:5673/shop")
            .brokers()
            .unwrap()[0];
        assert_eq!(broker.shown, "amqp://user@broker:5673/shop");
    }

    #[test]
    fn a_certificate_says_who_it_is_where_the_url_does_not() {
        let files = BrokerFiles {
            password: Some("password".into()),
            ca: None,
            certificate: Some("certificate".into()),
            key: Some("key".into()),
        };
        let check = |url: &str, external: bool, password: bool, shown: &str| {
            let mut config = config(url);
            config.files = files.clone();
            let broker = &config.brokers().unwrap()[0];
            let read = broker.files.password.is_some();
            assert_eq!((broker.is_external(), read), (external, password), "{url}");
            assert_eq!(broker.shown, shown);
        };
        check("amqps://b", true, false, "amqps://b:5671");
        check(
            "amqps://b/v@w?heartbeat=5",
            true,
            false,
            "amqps://b:5671/v@w",
        );
        check("amqps://u@b", false, true, "amqps://u@b:5671");
        check("amqps://u:p@b", false, false, "amqps://u@b:5671");
        check(
            "amqps://u:p@b?auth_mechanism=external",
            true,
            false,
            "amqps://b:5671",
        );
        check(
            "amqps://b?auth_mechanism=plain",
            false,
            true,
            "amqps://guest@b:5671",
        );
        check("amqp://b", false, true, "amqp://guest@b:5672");
    }

    #[test]
    fn an_empty_virtual_host_is_the_default_one() {
        let broker = &config("amqp://localhost/").brokers().unwrap()[0];
        assert_eq!(broker.uri.vhost, "/");
    }

    #[test]
    fn the_heartbeat_is_seven_seconds_unless_the_url_says_otherwise() {
        let heartbeat = |url| config(url).brokers().unwrap()[0].uri.query.heartbeat;
        assert_eq!(heartbeat("amqp://localhost"), Some(7));
        assert_eq!(heartbeat("amqp://localhost?heartbeat=3"), Some(3));
    }
}
