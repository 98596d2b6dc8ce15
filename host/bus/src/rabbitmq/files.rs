//! The files that a connection to the broker needs: a password and certificates.
//!
//! They are read anew for every connection, so that what has been rotated is used by the next one.
//! Invariant: what is in them reaches lapin and rustls only, never an error or a debug print.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rustls::{
    crypto::ring,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    sign::CertifiedKey,
};

/// Where the password and the certificates for the connection to a broker lie.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BrokerFiles {
    /// The password alone, for URLs that name a user and no password.
    pub password: Option<PathBuf>,
    /// The certificates (PEM) of the authorities that may sign the broker's certificate. `None`:
    /// those of the operating system.
    pub ca: Option<PathBuf>,
    /// The certificate (PEM) that is shown to the broker, and after it those that lead to its
    /// authority.
    pub certificate: Option<PathBuf>,
    /// The private key (PEM) of `certificate`. Both or neither.
    pub key: Option<PathBuf>,
}

/// A file cannot be used. Names it, and shows nothing of what is in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} {problem}", path.display())]
pub struct FileProblem {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: String,
    /// What to do about it.
    pub remedy: &'static str,
}

/// What proves to the broker who the client is.
pub(super) struct Identity {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
}

impl BrokerFiles {
    /// Reads every file, and says which of them cannot be used.
    #[must_use]
    pub fn problems(&self) -> Vec<FileProblem> {
        // The certificate and the key each by itself, since both may be wrong, and then together.
        let single = [
            self.read_password().err(),
            self.read_authorities().err(),
            self.certificate
                .as_deref()
                .and_then(|path| certificates(path).err()),
            self.key.as_deref().and_then(|path| key(path).err()),
        ];
        let problems: Vec<_> = single.into_iter().flatten().collect();
        if problems.is_empty() {
            self.read_identity().err().into_iter().collect()
        } else {
            problems
        }
    }

    pub(super) fn read_password(&self) -> Result<Option<String>, FileProblem> {
        self.password.as_deref().map(password).transpose()
    }

    pub(super) fn read_authorities(
        &self,
    ) -> Result<Option<Vec<CertificateDer<'static>>>, FileProblem> {
        self.ca.as_deref().map(certificates).transpose()
    }

    pub(super) fn read_identity(&self) -> Result<Option<Identity>, FileProblem> {
        let (Some(certificate), Some(key_file)) = (&self.certificate, &self.key) else {
            return Ok(None);
        };
        let identity = Identity {
            chain: certificates(certificate)?,
            key: key(key_file)?,
        };
        match CertifiedKey::from_der(
            identity.chain.clone(),
            identity.key.clone_key(),
            &ring::default_provider(),
        ) {
            Ok(_) => Ok(Some(identity)),
            Err(rustls::Error::InconsistentKeys(_)) => Err(wrong(
                key_file,
                format!("is not the key of {}", certificate.display()),
                "replace both files together; the certificate of the client itself comes first",
            )),
            // rustls words it as if the other side had sent it.
            Err(_) => Err(wrong(
                key_file,
                format!(
                    "and {} cannot be used: one of them is damaged or of an unknown kind",
                    certificate.display()
                ),
                "use a key of RSA (2048 bits or more), ECDSA (P-256, P-384) or Ed25519",
            )),
        }
    }
}

fn password(path: &Path) -> Result<String, FileProblem> {
    parse_password(read(path)?).map_err(|problem| {
        wrong(
            path,
            problem,
            "write the password alone into it, on one line",
        )
    })
}

/// All of the file but the end of its line.
fn parse_password(content: Vec<u8>) -> Result<String, &'static str> {
    let text = String::from_utf8(content).map_err(|_| "is not text")?;
    let line = text
        .strip_suffix("\r\n")
        .or_else(|| text.strip_suffix('\n'));
    match line.unwrap_or(&text) {
        "" => Err("holds no password"),
        line if line.contains('\n') => Err("has more than one line"),
        line => Ok(line.to_owned()),
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, FileProblem> {
    parse_certificates(&read(path)?).map_err(|problem| {
        wrong(
            path,
            problem,
            "it has to hold certificates in PEM (-----BEGIN CERTIFICATE-----)",
        )
    })
}

fn parse_certificates(content: &[u8]) -> Result<Vec<CertificateDer<'static>>, &'static str> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(content).collect();
    match read {
        Ok(certificates) if certificates.is_empty() => Err("holds no certificate"),
        Ok(certificates) => Ok(certificates),
        // The parser's own error quotes what it read.
        Err(_) => Err("is damaged: it is not PEM"),
    }
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, FileProblem> {
    parse_key(&read(path)?).map_err(|problem| {
        wrong(
            path,
            problem,
            "it has to hold a private key in PEM (PKCS#8, PKCS#1 or SEC1) without a passphrase",
        )
    })
}

fn parse_key(content: &[u8]) -> Result<PrivateKeyDer<'static>, &'static str> {
    let is_encrypted = String::from_utf8_lossy(content).contains("ENCRYPTED");
    PrivateKeyDer::from_pem_slice(content).map_err(|error| match error {
        _ if is_encrypted => "holds a key that is locked with a passphrase",
        pem::Error::NoItemsFound => "holds no private key",
        _ => "is damaged: it is not PEM",
    })
}

fn read(path: &Path) -> Result<Vec<u8>, FileProblem> {
    fs::read(path).map_err(|error| {
        let remedy = match error.kind() {
            io::ErrorKind::NotFound => "put it there, or correct the path",
            io::ErrorKind::PermissionDenied => "let the user that Warren runs as read it",
            _ => "name a file that can be read",
        };
        wrong(path, format!("cannot be read: {error}"), remedy)
    })
}

fn wrong(path: &Path, problem: impl Into<String>, remedy: &'static str) -> FileProblem {
    FileProblem {
        path: path.to_owned(),
        problem: problem.into(),
        remedy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_a_line_with_or_without_its_end() {
        for content in ["s3 cret ", "s3 cret \n", "s3 cret \r\n"] {
            assert_eq!(parse_password(content.into()).unwrap(), "s3 cret ");
        }
        // Only the end of the line is left away: the rest may be meant.
        assert_eq!(parse_password("s\r".into()).unwrap(), "s\r");
        for content in ["", "\n", "\r\n"] {
            assert_eq!(parse_password(content.into()), Err("holds no password"));
        }
        for content in ["a\nb", "a\n\n"] {
            let refused = parse_password(content.into());
            assert_eq!(refused, Err("has more than one line"), "{content:?}");
        }
        assert_eq!(parse_password(vec![0xff, 0xfe]), Err("is not text"));
    }

    #[test]
    fn what_is_no_certificate_and_no_key_is_said_without_quoting_it() {
        assert_eq!(parse_certificates(b"hunter2"), Err("holds no certificate"));
        assert_eq!(
            parse_certificates(b"-----BEGIN CERTIFICATE-----\nhunter2"),
            Err("is damaged: it is not PEM")
        );
        let refused = |content: &[u8]| parse_key(content).map(|_| ()).unwrap_err();
        assert_eq!(refused(b"hunter2"), "holds no private key");
        assert_eq!(
            refused(b"-----BEGIN PRIVATE KEY-----\nhunter2"),
            "is damaged: it is not PEM"
        );
        assert_eq!(
            refused(b"-----BEGIN ENCRYPTED PRIVATE KEY-----\naGk=\n-----END ENCRYPTED PRIVATE KEY-----\n"),
            "holds a key that is locked with a passphrase"
        );
    }

    #[test]
    fn every_file_that_is_missing_is_named_with_a_remedy() {
        let missing = |name: &str| Some(PathBuf::from("no/such").join(name));
        let files = BrokerFiles {
            password: missing("password"),
            ca: missing("ca"),
            certificate: missing("certificate"),
            key: missing("key"),
        };
        let problems = files.problems();
        let named: Vec<_> = problems.iter().map(|problem| &problem.path).collect();
        assert_eq!(
            named,
            ["password", "ca", "certificate", "key"]
                .map(|name| PathBuf::from("no/such").join(name))
                .iter()
                .collect::<Vec<_>>()
        );
        for problem in &problems {
            assert!(problem.to_string().contains("cannot be read"), "{problem}");
            assert!(problem.remedy.contains("correct the path"));
        }
        assert_eq!(BrokerFiles::default().problems(), []);
    }
}
