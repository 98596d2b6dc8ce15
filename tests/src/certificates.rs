//! Certificates for the tests of TLS, made when they are needed: an authority, and what it signs.

#![allow(clippy::panic, reason = "a test without its certificates has failed")]

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, Error, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, KeyUsagePurpose, date_time_ymd,
};

/// Signs certificates.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its private key, both in PEM.
#[derive(Clone)]
pub struct Certificate {
    /// The certificate.
    pub certificate: String,
    /// The key, in PKCS#8.
    pub key: String,
}

/// Until when a certificate counts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    /// For longer than the test runs.
    Good,
    /// It has expired years ago.
    Expired,
}

impl Authority {
    /// A new one, which nobody trusts yet.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let mut params = must(CertificateParams::new(Vec::new()));
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let key = must(KeyPair::generate());
        Self {
            issuer: must(CertifiedIssuer::self_signed(params, key)),
        }
    }

    /// Its own certificate, in PEM.
    #[must_use]
    pub fn certificate(&self) -> String {
        pem("CERTIFICATE", self.issuer.der())
    }

    /// A certificate for a server that is reached by this name or address.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn server(&self, host: &str, validity: Validity) -> Certificate {
        let params = must(CertificateParams::new(vec![host.to_owned()]));
        self.sign(params, host, ExtendedKeyUsagePurpose::ServerAuth, validity)
    }

    /// A certificate for a client, with its user in the common name.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn client(&self, user: &str, validity: Validity) -> Certificate {
        let params = must(CertificateParams::new(Vec::new()));
        self.sign(params, user, ExtendedKeyUsagePurpose::ClientAuth, validity)
    }

    fn sign(
        &self,
        mut params: CertificateParams,
        name: &str,
        usage: ExtendedKeyUsagePurpose,
        validity: Validity,
    ) -> Certificate {
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![usage];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        if validity == Validity::Expired {
            params.not_before = date_time_ymd(2001, 1, 1);
            params.not_after = date_time_ymd(2002, 1, 1);
        }
        let key = must(KeyPair::generate());
        let certificate = must(params.signed_by(&key, &self.issuer));
        Certificate {
            certificate: pem("CERTIFICATE", certificate.der()),
            key: pem("PRIVATE KEY", key.serialized_der()),
        }
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut lines = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        lines.push_str(&String::from_utf8_lossy(line));
        lines.push('\n');
    }
    lines + &format!("-----END {label}-----\n")
}

#[track_caller]
fn must<T>(made: Result<T, Error>) -> T {
    match made {
        Ok(made) => made,
        Err(error) => panic!("no certificate for this test: {error}"),
    }
}
