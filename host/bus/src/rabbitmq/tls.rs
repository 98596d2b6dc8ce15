//! How the broker is connected to, with TLS where the URL says so. What to do when the two sides do
//! not get along is in [`remedy`].
//!
//! Invariant: the broker's certificate is always checked, its name included; there is no switch.

mod remedy;

use std::{io, time::Duration};

use lapin::{
    AsyncTcpStream, Connection, ConnectionProperties,
    tcp::{AMQPUriTcpExt, RustlsConnector, RustlsConnectorConfig, TLSConfig},
    uri::{AMQPScheme, AMQPUri},
};
use tokio::{task::spawn_blocking, time::timeout};

use super::{config::Broker, files::BrokerFiles};

pub(super) use remedy::remedy;

/// TCP and the handshake of TLS. Less than the whole of connecting may take, so that the error says
/// which of the two was too slow.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(8);

/// The other side accepts connections and then says nothing.
#[derive(Debug, thiserror::Error)]
#[error("no answer in {} s", HANDSHAKE_TIMEOUT.as_secs())]
struct Late;

/// The operating system trusts nobody.
#[derive(Debug, thiserror::Error)]
#[error("the operating system has no certificates of authorities: {0}")]
struct NoAuthorities(io::Error);

/// Opens one connection, with the files as they are now.
pub(super) async fn connect(
    broker: &Broker,
    properties: ConnectionProperties,
) -> lapin::Result<Connection> {
    let Broker { uri, files, .. } = broker;
    let (mut uri, files) = (uri.clone(), files.clone());
    let read = spawn_blocking(move || {
        if let Some(password) = files.read_password().map_err(io::Error::other)? {
            uri.authority.userinfo.password = password;
        }
        let tls = match uri.scheme {
            AMQPScheme::AMQP => None,
            AMQPScheme::AMQPS => Some(connector(&files)?),
        };
        Ok::<_, io::Error>((uri, tls))
    });
    let (uri, tls) = read.await.map_err(io::Error::other)??;
    let runtime = lapin::runtime::default_runtime()?;
    let open = async move |uri: AMQPUri, runtime| {
        let opening = async {
            // lapin's own TLS always trusts the operating system's authorities, too, and fails where
            // there are none, as in small containers.
            let mut plain = uri.clone();
            plain.scheme = AMQPScheme::AMQP;
            let tcp = plain.connect_with_config_async(TLSConfig::default(), &runtime);
            let tcp: AsyncTcpStream<_> = tcp.await?;
            match &tls {
                None => Ok(tcp),
                Some(tls) => tcp.into_rustls(tls, &uri.authority.host).await,
            }
        };
        let opened = timeout(HANDSHAKE_TIMEOUT, opening).await;
        let opened = opened.unwrap_or_else(|_| Err(io::Error::other(Late)));
        opened.map_err(lapin::Error::from)
    };
    Connection::connector(uri, runtime, open, properties).await
}

fn connector(files: &BrokerFiles) -> io::Result<RustlsConnector> {
    let trusted = match files.read_authorities().map_err(io::Error::other)? {
        Some(authorities) => {
            RustlsConnectorConfig::default().with_parsable_certificates(authorities)
        }
        None => RustlsConnectorConfig::new_with_native_certs()
            .map_err(|error| io::Error::other(NoAuthorities(error)))?,
    };
    match files.read_identity().map_err(io::Error::other)? {
        Some(identity) => trusted.connector_with_single_cert(identity.chain, identity.key),
        None => trusted.connector_with_no_client_auth(),
    }
}
