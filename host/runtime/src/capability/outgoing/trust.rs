//! Who may sign the certificates of other hosts.
//!
//! Invariant: certificates are always checked, their names included; there is no switch.

use std::{fmt, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    client::Resumption,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};
use tokio::sync::OnceCell;

/// The authorities that are trusted for TLS. Cheap to clone.
#[derive(Clone)]
pub struct Trust(pub(super) Arc<ClientConfig>);

/// Certificates of authorities that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// There is none, or none that can be read.
    #[error("holds no certificate in PEM (-----BEGIN CERTIFICATE-----)")]
    None,
    /// One of them is damaged or of an unknown kind.
    #[error("holds a certificate that cannot be used")]
    Unusable,
}

impl Trust {
    /// The authorities of the operating system, and beside them those in `pem`.
    ///
    /// # Errors
    /// [`TrustError`] when `pem` holds no certificates, or one that cannot be used.
    pub fn with_authorities(pem: &[u8]) -> Result<Self, TrustError> {
        let further: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let further = further.map_err(|_| TrustError::None)?;
        if further.is_empty() {
            return Err(TrustError::None);
        }
        let mut roots = system_roots();
        for authority in further {
            roots.add(authority).map_err(|_| TrustError::Unusable)?;
        }
        Self::in_roots(roots).ok_or(TrustError::Unusable)
    }

    /// The authorities of the operating system, read when they are first asked for. Where it has
    /// none, no certificate is good. `None`: there is no TLS at all.
    pub(super) async fn system() -> Option<Self> {
        static SYSTEM: OnceCell<Option<Trust>> = OnceCell::const_new();
        let read = || async {
            let read = tokio::task::spawn_blocking(|| Self::in_roots(system_roots()));
            read.await.ok().flatten()
        };
        SYSTEM.get_or_init(read).await.clone()
    }

    fn in_roots(roots: RootCertStore) -> Option<Self> {
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .ok()?;
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        // A ticket would tell a server which requests come from one host.
        config.resumption = Resumption::disabled();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Some(Self(Arc::new(config)))
    }
}

/// One damaged certificate among those of a system is no reason to trust none of them.
fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Trust")
    }
}
