//! What an operator can do when the broker and this client do not get along.
//!
//! Invariant: names files, hosts and users, never what is in a file.

use std::{io, path::Path};

use lapin::{ErrorKind, uri::AMQPScheme};
use rustls::{AlertDescription, CertificateError};

use super::{Late, NoAuthorities};
use crate::rabbitmq::{
    bounded::Failure,
    config::Broker,
    files::{BrokerFiles, FileProblem},
};

/// What to do about a failure, where it has to do with TLS or with the files.
pub(in super::super) fn remedy(broker: &Broker, failure: &Failure) -> Option<String> {
    let Failure::Refused(_, error) = failure else {
        return None;
    };
    match error.kind() {
        ErrorKind::IOError(error) => of_socket(broker, error),
        ErrorKind::ParsingError(_) if is_plain(broker) => Some(
            "what answers there does not speak plain AMQP: if it is the port for TLS, write \
             amqps:// in the URL"
                .to_owned(),
        ),
        ErrorKind::ProtocolError(_) => of_login(broker, failure),
        _ => None,
    }
}

/// The broker was there and does not let this client in.
fn of_login(broker: &Broker, failure: &Failure) -> Option<String> {
    let vhost = &broker.uri.vhost;
    if let Some(file) = broker.files.password.as_deref()
        && failure.is_access_refused()
    {
        let user = &broker.uri.authority.userinfo.username;
        return Some(format!(
            "check that {} holds the password of `{user}`, and the permissions of `{user}` on \
             virtual host `{vhost}`",
            file.display()
        ));
    }
    if !broker.is_external() {
        return None;
    }
    (failure.is_access_refused() || failure.is_not_allowed()).then(|| {
        format!(
            "create the user that {} names (see ssl_cert_login_from of the broker) \
             without a password, and give it permissions on virtual host `{vhost}`",
            certificate(&broker.files)
        )
    })
}

/// The connection could not be opened, or was ended.
fn of_socket(broker: &Broker, error: &io::Error) -> Option<String> {
    let cause = error.get_ref();
    if let Some(problem) = cause.and_then(|cause| cause.downcast_ref::<FileProblem>()) {
        return Some(problem.remedy.to_owned());
    }
    if let Some(error) = cause.and_then(|cause| cause.downcast_ref::<rustls::Error>()) {
        return of_tls(broker, error);
    }
    if cause.is_some_and(|cause| cause.is::<NoAuthorities>()) {
        return Some(
            "install them (ca-certificates), or name those of the broker's authority with ca_file \
             in [broker_tls]"
                .to_owned(),
        );
    }
    if cause.is_some_and(|cause| cause.is::<Late>()) {
        return Some("check that RabbitMQ, and nothing else, listens at this address".to_owned());
    }
    // What the broker says before it ends a connection is lost when the end comes first.
    let is_ended = matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::UnexpectedEof
            | io::ErrorKind::BrokenPipe
    );
    is_ended.then(|| {
        if is_plain(broker) {
            "the other side ended the connection: if it is the port for TLS, write amqps:// in the \
             URL; otherwise the broker's log says why"
                .to_owned()
        } else if broker.is_external() {
            // RabbitMQ closes without a word on a mechanism that it does not have.
            format!(
                "{}; or it cannot take a name from a certificate: then enable its plugin \
                 rabbitmq_auth_mechanism_ssl and add EXTERNAL to its auth_mechanisms, or write a \
                 user into the URL",
                of_certificate_of_client(&broker.files)
            )
        } else {
            of_certificate_of_client(&broker.files)
        }
    })
}

/// One of the two sides gave up on TLS.
fn of_tls(broker: &Broker, error: &rustls::Error) -> Option<String> {
    let files = &broker.files;
    let remedy = match error {
        rustls::Error::InvalidCertificate(error) => return of_certificate_of_broker(broker, error),
        rustls::Error::InvalidMessage(_) => {
            "what answers there does not speak TLS: write amqp:// in the URL, or the port for TLS \
             (commonly 5671)"
                .to_owned()
        }
        rustls::Error::AlertReceived(alert) => match alert {
            AlertDescription::CertificateRequired | AlertDescription::NoCertificate => {
                of_certificate_of_client(files)
            }
            AlertDescription::CertificateExpired => format!(
                "the broker says that {} has expired: renew it; it is read at every attempt",
                certificate(files)
            ),
            AlertDescription::UnknownCA => format!(
                "the broker does not know the authority that signed {}: add it to the broker's \
                 ssl_options.cacertfile, or use a certificate of an authority that is there",
                certificate(files)
            ),
            AlertDescription::ProtocolVersion | AlertDescription::InsufficientSecurity => {
                no_common_protocol()
            }
            _ => of_certificate_of_client(files),
        },
        rustls::Error::PeerIncompatible(_) => no_common_protocol(),
        _ => return None,
    };
    Some(remedy)
}

/// The broker's certificate is not good enough.
fn of_certificate_of_broker(broker: &Broker, error: &CertificateError) -> Option<String> {
    let host = &broker.uri.authority.host;
    let trusted = match broker.files.ca.as_deref().map(Path::display) {
        Some(file) => format!("{file} (ca_file)"),
        None => "the operating system's certificates".to_owned(),
    };
    let remedy = match error {
        // A new authority under the name of an old one gives a bad signature.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => format!(
            "the broker's certificate was not signed by an authority in {trusted}: name a file with \
             the certificate of its authority with ca_file in [broker_tls]"
        ),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!(
                "the broker's certificate is for another host: name the broker in the URL as its \
                 certificate does, or give it a certificate for `{host}`"
            )
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the broker's certificate has expired: renew it on the broker, or correct the clock of \
             this machine"
                .to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the broker's certificate is not valid yet: correct the clock of this machine, or the \
             certificate on the broker"
                .to_owned()
        }
        _ => format!(
            "give the broker a certificate for servers, for `{host}`, signed by an authority in \
             {trusted}"
        ),
    };
    Some(remedy)
}

/// The broker does not take what the client has shown, if it has shown anything.
fn of_certificate_of_client(files: &BrokerFiles) -> String {
    if files.certificate.is_none() {
        return "the broker ended the handshake of TLS, most likely because it wants a client \
                certificate: name one with cert_file and key_file in [broker_tls]; the broker's \
                log says why"
            .to_owned();
    }
    format!(
        "the broker ended the handshake of TLS, most likely because it does not accept {}; its log \
         says why",
        certificate(files)
    )
}

fn no_common_protocol() -> String {
    "let the broker speak TLS 1.2 or 1.3 with ECDHE (ssl_options.versions, ssl_options.ciphers)"
        .to_owned()
}

fn certificate(files: &BrokerFiles) -> String {
    match &files.certificate {
        Some(file) => format!("{} (cert_file)", file.display()),
        None => "the client certificate".to_owned(),
    }
}

fn is_plain(broker: &Broker) -> bool {
    broker.uri.scheme == AMQPScheme::AMQP
}
