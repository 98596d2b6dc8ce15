//! What a worker may reach, and where its secrets are kept.

use std::{fs, path::Path};

use super::*;

/// A worker of this table, with these files in a folder that the text names `DIR`.
fn secrets(table: &str, environment: &[(&str, &str)]) -> Result<Config, Mistakes> {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &[u8]| fs::write(folder.path().join(name), content).unwrap();
    file("key", b"s3cret-key\r\n");
    file("empty", b"\n");
    file("binary", b"\xff\xfe s3cret");
    file("large", &[b'x'; (64 << 10) + 1]);
    file("no-pem", b"s3cret");
    file("url", b"postgres://u:s3cret@127.0.0.1/d\n");
    file("redis-url", b"rediss://u:s3cret@h:1/2\n");
    let shown = Path::new(folder.path()).display().to_string();
    let toml = table.replace("DIR", &shown);
    let sources = with(environment, &[]);
    let read = merge(Some(("w.toml".into(), toml)), &sources, Report::default());
    read.map_err(|Mistakes(mut mistakes)| {
        for mistake in &mut mistakes {
            mistake.message = mistake.message.replace(&shown, "DIR");
        }
        Mistakes(mistakes)
    })
}

#[test]
fn without_a_word_a_worker_has_the_bus_a_database_and_a_store_and_no_network() {
    let grants = worker(&good("[workers.WB]"), "WB").grants;
    assert_eq!(grants, warren_runtime::Grants::default());
    assert!(grants.bus.is_none() && grants.sql && grants.outgoing_http.is_none());
    assert!(grants.keyvalue && worker(&good("[workers.WB]"), "WB").redis.is_none());
}

#[test]
fn grants_are_read_as_they_are_written() {
    let config = good(
        "[workers.WB]\nbus = [\"WA\"]\nsql = false\n\
         outgoing_http = [\"https://API.example.com/\", \"http://10.0.0.7:8080\"]\n\
         private_addresses = [\"10.0.0.0/8\", \"::1\"]",
    );
    let grants = worker(&config, "WB").grants;
    assert_eq!(grants.bus, Some(vec![WorkerType::new("WA").unwrap()]));
    assert!(!grants.sql);
    let shown: Vec<String> = grants
        .outgoing_http
        .iter()
        .flatten()
        .map(ToString::to_string)
        .chain(grants.private_addresses.iter().map(ToString::to_string))
        .collect();
    assert_eq!(
        shown,
        [
            "https://api.example.com",
            "http://10.0.0.7:8080",
            "10.0.0.0/8",
            "::1/128"
        ]
    );
    assert_eq!(
        worker(&good("[workers.WB]\nbus = \"*\""), "WB").grants.bus,
        None
    );
}

#[test]
fn a_grant_of_the_wrong_form_is_a_mistake_with_its_place() {
    check(
        "[workers.WB]\n\
         bus = 1\n\
         sql = \"no\"\n\
         outgoing_http = \"https://a\"\n\
         private_addresses = [\"10.0.0.0/8\", \"10.0.0.1/8\", 10]\n",
        &[
            "w.toml:2:7 (key workers.WB.bus): worker types are expected, this is a number",
            "w.toml:3:7 (key workers.WB.sql): true, false or the URL of a database is expected, this is a text",
            "w.toml:4:17 (key workers.WB.outgoing_http): a list of hosts is expected, this is a text",
            "w.toml:5:36 (key workers.WB.private_addresses): the address has bits behind the prefix, so it is not clear what is meant",
            "w.toml:5:50 (key workers.WB.private_addresses): a text is expected, this is a number",
        ],
    );
    check(
        "[workers.WB]\noutgoing_http = [\n\"api.example.com\",\n\"https://u:s3cret@a\",\n\"https://a/b\"]",
        &[
            "w.toml:3:1 (key workers.WB.outgoing_http): there is no http:// or https://",
            "w.toml:4:1 (key workers.WB.outgoing_http): a user or a password has no place here: the worker sends its own",
            "w.toml:5:1 (key workers.WB.outgoing_http): a path cannot be granted, only a whole host",
        ],
    );
    remedy("[workers.WB]\noutgoing_http = 1", "https://api.example.com");
    remedy(
        "[workers.WB]\noutgoing_htp = []",
        "did you mean `outgoing_http`?",
    );
}

#[test]
fn keys_and_values_are_in_a_file_on_a_server_or_nowhere() {
    for (value, is_granted, shown) in [
        ("true", true, "keyvalue = true\n"),
        ("false", false, "keyvalue = false\n"),
        (
            "\"redis://u:s3cret@h:1/0\"",
            true,
            "keyvalue = \"redis://u:***@h:1/0\"\n",
        ),
        (
            "{ file = \"DIR/redis-url\" }",
            true,
            "keyvalue = { file = \"",
        ),
        ("{ env = \"URL\" }", true, "keyvalue = { env = \"URL\" }\n"),
    ] {
        let table = format!("[workers.WB]\nkeyvalue = {value}");
        let config = secrets(&table, &[("URL", "redis://:s3cret@h")]).unwrap();
        assert_eq!(worker(&config, "WB").grants.keyvalue, is_granted, "{value}");
        assert!(config.to_string().contains(shown), "{config}");
        let shown = format!("{config} {config:?} {config:#?}");
        assert!(!shown.contains("s3cret"), "{shown}");
    }
    let kept = "[workers.WB]\nkeyvalue = { env = \"URL\" }";
    let config = secrets(kept, &[("URL", "redis://:s3cret@h/7")]).unwrap();
    let source = worker(&config, "WB").redis.unwrap();
    let url = crate::config::read_redis(&source).unwrap();
    assert_eq!(url.to_string(), "redis://:***@h/7");
}

#[test]
fn what_is_no_server_is_a_mistake_that_shows_nothing_of_it() {
    for value in [
        "1",
        "\"s3cret\"",
        "\"http://u:s3cret@h\"",
        "\"redis://u:s3/cret@h\"",
        "[\"redis://u:s3cret@h\"]",
        "{ url = \"redis://u:s3cret@h\" }",
        "{ file = \"DIR/missing\" }",
        "{ file = \"DIR/no-pem\" }",
        "{ env = \"NONE\" }",
        "{ env = \"URL\" }",
    ] {
        let table = format!("[workers.WB]\nkeyvalue = {value}");
        let mistakes = secrets(&table, &[("URL", "rediss:s3cret")]).unwrap_err();
        for text in [mistakes.to_string(), format!("{mistakes:?}")] {
            assert!(text.contains("keyvalue"), "{text}");
            assert!(!text.contains("s3"), "{value} gives {text}");
        }
        for mistake in &mistakes.0 {
            assert!(!mistake.remedy.is_empty(), "{mistake}");
        }
    }
    remedy("[workers.WB]\nkeyvalue = \"file\"", "redis://host:6379/0");
}

#[test]
fn addresses_without_hosts_are_warned_of() {
    let config = good("[workers.WB]\nprivate_addresses = [\"::1\"]");
    assert!(config.warnings[0].contains("do nothing without outgoing_http"));
}

#[test]
fn secrets_are_taken_from_files_and_from_the_environment_and_show_nowhere() {
    let table = "[workers.WB.secrets]\nkey = { file = \"DIR/key\" }\ntoken = { env = \"TOKEN\" }";
    let config = secrets(table, &[("TOKEN", "s3cret-token")]).unwrap();
    for text in [config.to_string(), format!("{config:?} {config:#?}")] {
        assert!(text.contains("key") && text.contains("TOKEN"), "{text}");
        assert!(!text.contains("s3cret"), "{text}");
    }
    let sources = with(&[("TOKEN", "s3cret-token")], &[]);
    assert!(!format!("{sources:?}").contains("s3cret"), "{sources:?}");
}

#[test]
fn a_secret_that_is_not_there_is_a_mistake_at_the_start() {
    let table = "[workers.WB.config]\nboth = \"x\"\n\
         [workers.WB.secrets]\n\
         missing = { file = \"DIR/missing\" }\n\
         empty = { file = \"DIR/empty\" }\n\
         binary = { file = \"DIR/binary\" }\n\
         large = { file = \"DIR/large\" }\n\
         none = { env = \"NONE\" }\n\
         blank = { env = \"BLANK\" }\n\
         both = { file = \"DIR/key\" }\n\
         [workers.WC]\noutgoing_http = []\noutgoing_ca_file = \"DIR/no-pem\"";
    let mistakes = shown(secrets(table, &[("BLANK", "")]));
    let at = |line: u32, name: &str, message: &str| {
        format!("w.toml:{line}:1 (key workers.WB.secrets.{name}): {message}")
    };
    let mut expected = [
        at(4, "missing", "DIR/missing cannot be read: No such file or directory (os error 2)"),
        at(5, "empty", "DIR/empty is empty"),
        at(6, "binary", "DIR/binary is not text"),
        at(7, "large", "DIR/large is larger than 64 KiB, too large for a secret"),
        at(8, "none", "there is no environment variable `NONE`"),
        at(9, "blank", "there is no environment variable `BLANK`"),
        at(10, "both", "`both` is in [config] already"),
        "w.toml:13:1 (key workers.WC.outgoing_ca_file): DIR/no-pem holds no certificate in PEM (-----BEGIN CERTIFICATE-----)".to_owned(),
    ];
    expected.sort();
    let mut mistakes = mistakes;
    mistakes.sort();
    assert_eq!(mistakes, expected);
}

#[test]
fn a_secret_itself_has_no_place_in_the_configuration() {
    for value in [
        "\"s3cret\"",
        "[\"s3cret\"]",
        "{ file = \"s3\\ncret\" }",
        "{ value = \"s3cret\" }",
        "{ file = \"a\", env = \"b\" }",
        "{ env = \"\" }",
        "{}",
    ] {
        let toml = format!("[workers.WB.secrets]\nkey = {value}");
        let mistakes = read(&toml).expect_err("this should be refused");
        let text = mistakes.to_string();
        let remedies = ["{ env = ", "write the path of the file"];
        let has_remedy = remedies.iter().any(|remedy| text.contains(remedy));
        assert!(has_remedy, "no remedy: {text}");
        assert!(!text.contains("s3cret"), "{text}");
    }
}

#[test]
fn who_runs_no_workers_needs_no_secrets() {
    let file = "[workers.WB.secrets]\nkey = { file = \"missing\" }\nother = { env = \"NONE\" }";
    let sources = Sources {
        without_secrets: true,
        ..Sources::default()
    };
    let file = Some(("w.toml".into(), file.to_owned()));
    merge(file, &sources, Report::default()).unwrap();
}

#[test]
fn a_database_is_named_by_its_url_or_by_where_that_is_kept() {
    let url = "postgres://127.0.0.1/d".parse().unwrap();
    let config = good("[workers.WB]\nsql = \"postgres://127.0.0.1/d\"");
    let own = worker(&config, "WB");
    assert!(own.grants.sql);
    assert_eq!(own.database, Some(DatabaseSource::Url(url)));
    let shown = config.to_string();
    assert!(
        shown.contains("sql = \"postgres://127.0.0.1/d\""),
        "{shown}"
    );

    for (table, environment) in [
        ("[workers.WB]\nsql = { file = \"DIR/url\" }", None),
        (
            "[workers.WB]\nsql = { env = \"URL\" }",
            Some(("URL", "postgresql://u:s3cret@127.0.0.1/d")),
        ),
        (
            "[workers.WB]\nsql = \"postgres://u:s3cret@127.0.0.1/d\"",
            None,
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("url");
        fs::write(&file, "postgres://u:s3cret@127.0.0.1/d\n").unwrap();
        let table = table.replace("DIR", &folder.path().display().to_string());
        let config = secrets(&table, environment.as_slice()).unwrap();
        let own = worker(&config, "WB");
        let url = read_database(own.database.as_ref()).unwrap().unwrap();
        assert!(url.to_string().ends_with("://u:***@127.0.0.1/d"), "{url}");
        for text in [
            config.to_string(),
            format!("{config:?} {config:#?} {url:?}"),
        ] {
            assert!(!text.contains("s3cret"), "{text}");
        }
        assert_eq!(config.warnings, [""; 0]);
    }
}

#[test]
fn a_database_that_is_not_named_well_is_a_mistake_without_its_password() {
    for (value, says) in [
        (
            "\"mysql://u:s3cret@h/d\"",
            "does not begin with postgres://",
        ),
        ("\"postgres://u:s3cret@h\"", "names no database"),
        ("\"postgres://u:s3/cret@h/d\"", "percent-encoded"),
        ("\"postgres://u@h/d?password=s3cret\"", "unknown parameter"),
        ("\"s3cret\"", "this is a text"),
        ("{ url = \"s3cret\" }", "not kept in `url`"),
        ("{ env = \"NONE\" }", "no environment variable `NONE`"),
        (
            "{ env = \"WRONG\" }",
            "`WRONG`: the URL of the database does not begin",
        ),
        (
            "{ file = \"DIR/key\" }",
            "DIR/key: the URL of the database does not begin",
        ),
        ("{ file = \"DIR/missing\" }", "DIR/missing cannot be read"),
    ] {
        let table = format!("[workers.WB]\nsql = {value}");
        let read = secrets(&table, &[("WRONG", "s3cret")]);
        let mistakes = read.expect_err("this should be refused");
        let text = mistakes.to_string();
        assert!(text.contains(says), "{value}: {text}");
        assert!(text.contains("postgres://user@host/database"), "{text}");
        assert!(
            !text.contains("s3cret") && !text.contains("cret@"),
            "{text}"
        );
    }
}

#[test]
fn a_server_elsewhere_without_a_checked_certificate_is_warned_of() {
    for (url, is_warned_of) in [
        ("postgres://u@db.example.com/d", true),
        ("postgres://u@db.example.com/d?sslmode=verify-full", false),
        ("postgres://u@localhost/d", false),
    ] {
        let config = good(&format!("[workers.WB]\nsql = \"{url}\""));
        let warned = config
            .warnings
            .iter()
            .any(|text| text.contains("verify-full"));
        assert_eq!(warned, is_warned_of, "{url}: {:?}", config.warnings);
    }
}
