//! What the URLs of the broker and the files beside them come to, together.

use super::*;

const CHECKED: &str = "broker = [\"amqps://u@a\", \"amqp://u@b\"]\n";

#[test]
fn every_file_that_cannot_be_read_is_named_with_the_other_mistakes() {
    let toml = "\
        broker_password_file = \"no/password\"\n\
        http = 8080\n\
        [broker_tls]\n\
        ca_file = \"no/ca\"\n\
        cert_file = \"no/cert\"\n\
        key_file = \"no/key\"\n";
    let missing = "cannot be read: No such file or directory (os error 2)";
    check(
        &format!("{CHECKED}{toml}"),
        &[
            "w.toml:3:8 (key http): 8080 has no address",
            &format!("w.toml:2:24 (key broker_password_file): no/password {missing}"),
            &format!("w.toml:5:11 (key broker_tls.ca_file): no/ca {missing}"),
            &format!("w.toml:6:13 (key broker_tls.cert_file): no/cert {missing}"),
            &format!("w.toml:7:12 (key broker_tls.key_file): no/key {missing}"),
        ],
    );
    let variable = [("WARREN_BROKER_TLS_CA_FILE", "no/ca")];
    let file = Some(("w.toml".into(), CHECKED.to_owned()));
    assert_eq!(
        shown(merge(file, &with(&variable, &[]), Report::default())),
        [format!(
            "environment variable WARREN_BROKER_TLS_CA_FILE: no/ca {missing}"
        )]
    );
}

#[test]
fn files_that_do_not_count_need_not_be_there() {
    let files = "broker_password_file = \"no\"\nbroker_tls.ca_file = \"no\"\n";
    let warnings = |broker: &str| good(&format!("broker = {broker}\n{files}")).warnings;
    assert_eq!(warnings("\"embedded\""), [""; 0]);
    assert_eq!(
        warnings("\"amqp://u:p@h\""),
        [
            "a broker URL holds a password, which counts there instead of broker_password_file; take it out, so that the file is used",
            "[broker_tls] does nothing: no broker URL begins with amqps://",
        ]
    );
}

#[test]
fn a_later_source_takes_a_file_back_with_the_empty_text() {
    let toml = format!("{CHECKED}broker_tls = {{ ca_file = \"\" }}\nbroker_password_file = \"\"");
    assert_eq!(good(&toml).broker_files, BrokerFiles::default());
}

#[test]
fn a_password_needs_a_user() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "s3cret\n").unwrap();
    let toml = |broker: &str| {
        format!(
            "broker = \"{broker}\"\nbroker_password_file = '{}'",
            file.display()
        )
    };
    check(
        &toml("amqp://h"),
        &[
            "w.toml:2:24 (key broker_password_file): a broker URL names no user whose password this could be",
        ],
    );
    let config = good(&toml("amqp://u@h"));
    assert_eq!(config.broker_files.password, Some(file.clone()));
    assert_eq!(config.warnings, [""; 0]);
    for shown in [config.to_string(), format!("{config:?}")] {
        assert!(
            shown.contains("password") && !shown.contains("s3cret"),
            "{shown}"
        );
    }
    // What it shows means the same.
    assert_eq!(good(&config.to_string()), config);
}

#[test]
fn a_certificate_and_its_key_come_together() {
    check(
        &format!("{CHECKED}broker_tls.cert_file = \"no\""),
        &[
            "w.toml:2:24 (key broker_tls.cert_file): there is no key to the certificate no",
            "w.toml:2:24 (key broker_tls.cert_file): no cannot be read: No such file or directory (os error 2)",
        ],
    );
    remedy(
        &format!("{CHECKED}broker_tls.key_file = \"no\""),
        "cert_file in [broker_tls]",
    );
}

#[test]
fn the_name_of_a_file_is_a_path_and_not_what_is_in_it() {
    let pasted = shown(read("broker_tls.key_file = \"\"\"-----BEGIN\ns3cret\"\"\""));
    assert_eq!(
        pasted,
        ["w.toml:1:23 (key broker_tls.key_file): more than one line is not the name of a file"]
    );
    check(
        "broker_password_file = \"~/x\"",
        &[
            "w.toml:1:24 (key broker_password_file): `~/x` would begin in a folder with the name `~`",
        ],
    );
}
