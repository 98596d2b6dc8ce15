//! Whether the URLs of the broker and the files beside them come to something. Several keys decide
//! together which of them count, so this is looked at when all sources have been read.

use std::path::{Path, PathBuf};

use warren_bus::BrokerFiles;

use super::{Broker, BrokerUrl, Config, Mistake, read::Report};

const PASSWORD: &str = "broker_password_file";
const CA: &str = "broker_tls.ca_file";
const CERTIFICATE: &str = "broker_tls.cert_file";
const KEY: &str = "broker_tls.key_file";

/// Notes what does not fit together, and each file that counts and cannot be used. The embedded bus
/// needs none.
pub(super) fn check(config: &Config, report: &mut Report) {
    let Broker::RabbitMq(urls) = &config.broker else {
        return;
    };
    let BrokerFiles {
        password,
        ca,
        certificate,
        key,
    } = &config.broker_files;
    let mut used = config.broker_files.clone();
    if let Some(file) = password {
        used.password = check_password(file, urls, report);
    }
    match (certificate, key) {
        (Some(file), None) => note(
            report,
            CERTIFICATE,
            format!("there is no key to the certificate {}", file.display()),
            "name the file of its private key as key_file in [broker_tls]",
        ),
        (None, Some(file)) => note(
            report,
            KEY,
            format!("there is no certificate to the key {}", file.display()),
            "name the file of its certificate as cert_file in [broker_tls]",
        ),
        _ => {}
    }
    if !urls.iter().any(BrokerUrl::is_tls) {
        if ca.is_some() || certificate.is_some() || key.is_some() {
            let warning = "[broker_tls] does nothing: no broker URL begins with amqps://";
            report.warnings.push(warning.to_owned());
        }
        (used.ca, used.certificate, used.key) = (None, None, None);
    }
    for problem in used.problems() {
        let named = [
            (PASSWORD, &used.password),
            (CA, &used.ca),
            (CERTIFICATE, &used.certificate),
            (KEY, &used.key),
        ];
        let named = named
            .into_iter()
            .find(|(_, file)| file.as_ref() == Some(&problem.path));
        if let Some((name, _)) = named {
            note(report, name, problem.to_string(), problem.remedy);
        }
    }
}

/// The file, if any URL leaves the password to it.
fn check_password(file: &Path, urls: &[BrokerUrl], report: &mut Report) -> Option<PathBuf> {
    if !urls.iter().all(BrokerUrl::names_user) {
        note(
            report,
            PASSWORD,
            "a broker URL names no user whose password this could be",
            "write the user into each URL: amqps://warren@rabbit-1",
        );
    }
    if urls.iter().any(BrokerUrl::has_password) {
        report.warnings.push(
            "a broker URL holds a password, which counts there instead of broker_password_file; \
             take it out, so that the file is used"
                .to_owned(),
        );
    }
    let is_used = !urls.iter().all(BrokerUrl::has_password);
    is_used.then(|| file.to_owned())
}

/// Notes a mistake at the place where the key was written.
fn note(report: &mut Report, key: &str, message: impl Into<String>, remedy: &str) {
    // The keys have no defaults, so each has been written somewhere.
    if let Some(place) = report.places.get(key) {
        report.mistakes.push(Mistake {
            place: place.clone(),
            message: message.into(),
            remedy: remedy.to_owned(),
        });
    }
}
