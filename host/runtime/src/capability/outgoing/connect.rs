//! From a destination to a connection. A name is looked up once, every address that it stands for
//! is judged, and what is connected to is an address that was judged, never the name again: who owns
//! the name cannot answer differently the second time.

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{timeout, timeout_at},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use wasmtime_wasi_http::Error;

use super::{Detour, Refusal, Slot, Trust};
use crate::grants::{AddressRange, Destination, Host, Scheme, may_connect};

/// Addresses of one name that are tried, one after the other.
const MAX_TRIED: usize = 4;

/// Which addresses may be connected to.
pub(super) struct Allowed<'a> {
    pub(super) any: bool,
    pub(super) ranges: &'a [AddressRange],
}

/// A connection, with TLS or without.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

pub(super) async fn connect(
    destination: &Destination,
    allowed: Allowed<'_>,
    trust: Option<&Trust>,
    until: Instant,
    slot: &Slot,
) -> Result<Stream, Refusal> {
    let addresses = look_up(destination, until, slot).await?;
    let first = addresses.first().copied();
    let addresses: Vec<SocketAddr> = addresses
        .into_iter()
        .filter(|address| allowed.any || may_connect(address.ip(), allowed.ranges))
        .take(MAX_TRIED)
        .collect();
    if addresses.is_empty() {
        return Err(match first {
            Some(address) => prohibited(address.ip()),
            None => Error::DestinationNotFound.into(),
        });
    }
    let stream = open(&addresses, until).await?;
    if destination.scheme == Scheme::Http {
        return Ok(Stream::Plain(stream));
    }
    let name = match &destination.host {
        Host::Address(address) => ServerName::from(*address),
        Host::Name(name) => {
            ServerName::try_from(name.clone()).map_err(|_| Error::HttpRequestUriInvalid)?
        }
    };
    let trust = match trust {
        Some(trust) => Some(trust.clone()),
        None => Trust::system().await,
    };
    let trust = trust.ok_or(Error::ConfigurationError)?;
    let connecting = TlsConnector::from(trust.0).connect(name, stream);
    match timeout_at(until.into(), connecting).await {
        Err(_) => Err(Error::ConnectionTimeout.into()),
        Ok(Err(error)) => Err(tls_error(&error).into()),
        Ok(Ok(stream)) => Ok(Stream::Tls(Box::new(stream))),
    }
}

/// A connection to whoever answers in the place of all hosts.
pub(super) async fn led(
    destination: &Destination,
    detour: Detour,
    until: Instant,
) -> Result<Stream, Refusal> {
    let address = match destination.scheme {
        Scheme::Http => detour.http,
        Scheme::Https => detour.https,
    };
    Ok(Stream::Plain(open(&[address], until).await?))
}

fn prohibited(address: IpAddr) -> Refusal {
    Refusal {
        error: Error::DestinationIpProhibited,
        what: "its name stands for an address that is not public",
        remedy: format!("add \"{}\" to private_addresses", address.to_canonical()),
    }
}

async fn look_up(
    destination: &Destination,
    until: Instant,
    slot: &Slot,
) -> Result<Vec<SocketAddr>, Error> {
    let port = destination.port;
    let name = match &destination.host {
        Host::Address(address) => return Ok(vec![SocketAddr::new(*address, port)]),
        Host::Name(name) => name.clone(),
    };
    let slot = slot.clone();
    let looking = tokio::task::spawn_blocking(move || {
        let _until_it_has_answered = slot;
        (name.as_str(), port).to_socket_addrs().map(Vec::from_iter)
    });
    match timeout_at(until.into(), looking).await {
        Err(_) => Err(Error::DnsTimeout),
        Ok(Ok(Ok(addresses))) => Ok(addresses),
        Ok(_) => Err(Error::DnsError {
            rcode: None,
            info_code: None,
        }),
    }
}

/// Tries the addresses in their order, each in its share of the time.
async fn open(addresses: &[SocketAddr], until: Instant) -> Result<TcpStream, Error> {
    let mut last = Error::ConnectionTimeout;
    for (n_tried, address) in addresses.iter().enumerate() {
        let n_left = u32::try_from(addresses.len() - n_tried).unwrap_or(1);
        let share = until.saturating_duration_since(Instant::now()) / n_left.max(1);
        last = match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Requests are written whole; waiting for more to send only delays them.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => tcp_error(&error),
            Err(_) => Error::ConnectionTimeout,
        };
    }
    Err(last)
}

fn tcp_error(error: &io::Error) -> Error {
    match error.kind() {
        ErrorKind::ConnectionRefused => Error::ConnectionRefused,
        ErrorKind::TimedOut => Error::ConnectionTimeout,
        _ => Error::DestinationUnavailable,
    }
}

fn tls_error(error: &io::Error) -> Error {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
    match cause {
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented) => {
            Error::TlsCertificateError
        }
        Some(rustls::Error::AlertReceived(alert)) => Error::TlsAlertReceived {
            alert_id: Some(u8::from(*alert)),
            alert_message: Some(format!("{alert:?}")),
        },
        Some(_) => Error::TlsProtocolError,
        None => Error::ConnectionTerminated,
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
