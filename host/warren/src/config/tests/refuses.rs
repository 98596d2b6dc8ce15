//! What is refused, where, and with which words.

use super::*;

#[test]
fn all_mistakes_of_all_sources_are_reported_together() {
    let file = (
        "w.toml".into(),
        "colour = 1\nhttp = 8080\n[limits]\nattempts = 0".to_owned(),
    );
    let sources = with(
        &[
            ("WARREN_ADMIN", "admin"),
            ("BROKER_URL", "redis://u:s3cret@h"),
        ],
        &[("--log", "log.level", "loud")],
    );
    assert_eq!(
        shown(merge(Some(file), &sources, Report::default())),
        [
            "w.toml:1:1 (key colour): unknown key `colour`",
            "w.toml:2:8 (key http): 8080 has no address",
            "w.toml:4:12 (key limits.attempts): 0 is out of range",
            "environment variable BROKER_URL: the address of the broker does not begin with `amqp://` or `amqps://`",
            "environment variable WARREN_ADMIN: `admin` is not an IP address and a port",
            "option --log: `loud` is not a log level",
        ]
    );
}

#[test]
fn unknown_keys_are_refused_in_every_table() {
    check("x = 1", &["w.toml:1:1 (key x): unknown key `x`"]);
    check(
        "[broker_tls]\nx = 1",
        &["w.toml:2:1 (key broker_tls.x): unknown key `x`"],
    );
    check("[log]\nx = 1", &["w.toml:2:1 (key log.x): unknown key `x`"]);
    check(
        "[limits]\nx = 1",
        &["w.toml:2:1 (key limits.x): unknown key `x`"],
    );
    check(
        "[workers.WB]\nx = 1",
        &["w.toml:2:1 (key workers.WB.x): unknown key `x`"],
    );
    check("[x.y]", &["w.toml:1:2 (key x): unknown key `x`"]);
}

#[test]
fn an_unknown_key_is_answered_with_what_was_meant() {
    remedy(
        "brokr = 1",
        "did you mean `broker`? known here: broker, broker_password_file, plugins, data_dir,",
    );
    remedy("data-dir = 1", "did you mean `data_dir`?");
    remedy("HTTP = 1", "did you mean `http`?");
    remedy(
        "[limits]\nmemroy = 1",
        "did you mean `memory`? known here: memory, deadline,",
    );
    remedy("[workers.WB]\nhttp_pat = 1", "did you mean `http_path`?");
    remedy("zzz = 1", "remove it; known here: broker,");
}

#[test]
fn a_key_of_another_table_is_sent_there() {
    remedy("deadline = \"1s\"", "write it as `deadline` under [limits]");
    remedy(
        "[limits]\nplugins = \"x\"",
        "write it as `plugins` at the top of the file",
    );
    remedy(
        "broker_url = \"amqp://h\"",
        "write it as `broker` at the top of the file",
    );
    remedy("Worker_log = true", "write it as `worker` under [log]");
}

#[test]
fn values_of_another_type_are_refused() {
    check(
        "plugins = 1",
        &["w.toml:1:11 (key plugins): a text is expected, this is a number"],
    );
    check(
        "broker = 1",
        &["w.toml:1:10 (key broker): the address of a broker is expected, this is a number"],
    );
    check(
        "http = true",
        &["w.toml:1:8 (key http): an address is expected, this is true or false"],
    );
    check(
        "log.worker = \"yes\"",
        &["w.toml:1:14 (key log.worker): true or false is expected, this is a text"],
    );
    check(
        "limits.attempts = \"5\"",
        &["w.toml:1:19 (key limits.attempts): a whole number is expected, this is a text"],
    );
    check(
        "limits.attempts = 1.5",
        &[
            "w.toml:1:19 (key limits.attempts): a whole number is expected, this is a number with a fraction",
        ],
    );
    check(
        "limits.memory = []",
        &["w.toml:1:17 (key limits.memory): a size is expected, this is a list"],
    );
    check(
        "keepalive = 2020-01-01",
        &["w.toml:1:13 (key keepalive): a duration is expected, this is a date"],
    );
    check(
        "log = 1",
        &["w.toml:1:7 (key log): a table is expected, this is a number"],
    );
    check(
        "workers = \"WB\"",
        &["w.toml:1:11 (key workers): a table is expected, this is a text"],
    );
    check(
        "workers.WB = 1",
        &["w.toml:1:14 (key workers.WB): a table is expected, this is a number"],
    );
    check(
        "workers.WB.config.n = 1",
        &["w.toml:1:23 (key workers.WB.config.n): a text is expected, this is a number"],
    );
}

#[test]
fn peers_are_given_worker_types_and_a_field() {
    check(
        "peers.expose = [\"W B\"]",
        &[
            "w.toml:1:16 (key peers.expose): `W B` is not a worker type: use a letter, then up to 63 letters, digits, `_`, `-` or `.`",
        ],
    );
    check(
        "peers.expose = true",
        &["w.toml:1:16 (key peers.expose): worker types are expected, this is true or false"],
    );
    check(
        "peers.request_field = \"\"",
        &["w.toml:1:23 (key peers.request_field): this is not the name of a field"],
    );
    check(
        "peers.resId = \"x\"",
        &["w.toml:1:7 (key peers.resId): unknown key `resId`"],
    );
}

#[test]
fn durations_need_a_unit_and_a_measure() {
    check(
        "keepalive = 10",
        &["w.toml:1:13 (key keepalive): 10 has no unit"],
    );
    for text in [
        "",
        "s",
        "10",
        "1.5s",
        "-1s",
        "10 days",
        "99999999999999999999s",
        "9999999999999999h",
    ] {
        check(
            &format!("keepalive = \"{text}\""),
            &[&format!(
                "w.toml:1:13 (key keepalive): `{text}` is not a duration"
            )],
        );
    }
    for (key, text) in [
        ("call_timeout", "26m"),
        ("drain_timeout", "25h"),
        ("limits.retry_base", "0ms"),
        ("consumer_timeout", "59s"),
    ] {
        let mistake = format!(
            "w.toml:1:{} (key {key}): `{text}` is out of range",
            key.len() + 4
        );
        check(&format!("{key} = \"{text}\""), &[&mistake]);
    }
}

#[test]
fn a_consumer_timeout_that_is_set_bounds_every_deadline() {
    check(
        "consumer_timeout = \"1m\"\nlimits.deadline = \"31s\"",
        &[
            "w.toml:1:20 (key consumer_timeout): limits.deadline is 31s, and with this \
             consumer_timeout no job may run for longer than 30s",
        ],
    );
    check(
        "consumer_timeout = \"10m\"\n[workers.WB]\ndeadline = \"9m\"",
        &[
            "w.toml:1:20 (key consumer_timeout): workers.WB.deadline is 540s, and with this \
             consumer_timeout no job may run for longer than 480s",
        ],
    );
}

#[test]
fn a_deadline_stays_below_the_consumer_timeout_of_the_broker() {
    check(
        "limits.deadline = \"1501s\"",
        &["w.toml:1:19 (key limits.deadline): `1501s` is out of range"],
    );
    remedy(
        "limits.deadline = \"30m\"",
        "write at least 1ms and at most 25m",
    );
}

#[test]
fn sizes_and_numbers_have_their_ranges() {
    for text in ["64 potatoes", "1.5GiB", "", "MiB", "99999999999999GiB"] {
        check(
            &format!("limits.memory = \"{text}\""),
            &[&format!(
                "w.toml:1:17 (key limits.memory): `{text}` is not a size"
            )],
        );
    }
    check(
        "limits.memory = -1",
        &["w.toml:1:17 (key limits.memory): `-1` is not a size"],
    );
    check(
        "limits.memory = \"1KiB\"",
        &["w.toml:1:17 (key limits.memory): `1KiB` is out of range"],
    );
    remedy(
        "limits.memory = \"8GiB\"",
        "write at least 64KiB and at most 4GiB",
    );
    check(
        "limits.payload = \"1GiB\"",
        &["w.toml:1:18 (key limits.payload): `1GiB` is out of range"],
    );
    check(
        "limits.cpu = \"0s\"",
        &["w.toml:1:14 (key limits.cpu): `0s` is out of range"],
    );
    check(
        "limits.host_calls = 0",
        &["w.toml:1:21 (key limits.host_calls): 0 is out of range"],
    );
    check(
        "limits.tables = 1000001",
        &["w.toml:1:17 (key limits.tables): 1000001 is out of range"],
    );
    check(
        "limits.concurrency = 0",
        &["w.toml:1:22 (key limits.concurrency): 0 is out of range"],
    );
    check(
        "limits.attempts = -1",
        &["w.toml:1:19 (key limits.attempts): -1 is out of range"],
    );
}

#[test]
fn an_address_says_who_may_connect() {
    for text in [":8080", "8080"] {
        check(
            &format!("http = \"{text}\""),
            &[&format!(
                "w.toml:1:8 (key http): `{text}` does not say who may connect"
            )],
        );
    }
    remedy("http = 8080", "127.0.0.1:8080");
    check(
        "http = \"127.0.0.1\"",
        &["w.toml:1:8 (key http): `127.0.0.1` has no port"],
    );
    check(
        "http = \"example.org:80\"",
        &["w.toml:1:8 (key http): `example.org:80` is not an IP address and a port"],
    );
    check(
        "http = \"127.0.0.1:65536\"",
        &["w.toml:1:8 (key http): `127.0.0.1:65536` is not an IP address and a port"],
    );
}

#[test]
fn http_and_admin_cannot_share_a_port() {
    check(
        "http = \"127.0.0.1:9091\"",
        &[
            "w.toml:1:8 (key http): http (127.0.0.1:9091) and admin (127.0.0.1:9091) are on the same port",
        ],
    );
    check(
        "admin = \"0.0.0.0:8080\"",
        &[
            "w.toml:1:9 (key admin): http (127.0.0.1:8080) and admin (0.0.0.0:8080) are on the same port",
        ],
    );
    good("http = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"");
    good("http = \"127.0.0.1:80\"\nadmin = \"127.0.0.2:80\"");
}

#[test]
fn every_broker_of_a_list_is_looked_at() {
    check(
        "broker = [\"amqp://a\", \"b\", 3, \"amqp://\"]",
        &[
            "w.toml:1:23 (key broker): the address of the broker does not begin with `amqp://` or `amqps://`",
            "w.toml:1:28 (key broker): a text is expected, this is a number",
            "w.toml:1:31 (key broker): the address of the broker names no host",
        ],
    );
    check(
        "broker = []",
        &["w.toml:1:10 (key broker): the list of brokers is empty"],
    );
}

#[test]
fn choices_have_their_names() {
    check(
        "encoding = \"xml\"",
        &["w.toml:1:12 (key encoding): `xml` is not an encoding"],
    );
    check(
        "log.format = \"xml\"",
        &["w.toml:1:14 (key log.format): `xml` is not a log format"],
    );
    // `tracing` would take it for a module of this name.
    check(
        "log.level = \"infoo\"",
        &["w.toml:1:13 (key log.level): `infoo` is not a log level"],
    );
    check(
        "log.level = \"\"",
        &["w.toml:1:13 (key log.level): `` is not a log level"],
    );
    remedy("log.level = \"info,warren=loud\"", "warren_bus=debug");
}

#[test]
fn folders_have_names_that_no_shell_must_expand() {
    check(
        "plugins = \"\"",
        &["w.toml:1:11 (key plugins): the folder has no name"],
    );
    check(
        "data_dir = \"~/x\"",
        &["w.toml:1:12 (key data_dir): `~/x` would be a folder with the name `~`"],
    );
}

#[test]
fn workers_have_types_and_paths_of_their_own() {
    check(
        "[workers.\"W B\"]",
        &[
            "w.toml:1:10 (key workers.W B): `W B` is not a worker type: use a letter, then up to 63 letters, digits, `_`, `-` or `.`",
        ],
    );
    check(
        "workers.WB.http_path = \"movies\"",
        &["w.toml:1:24 (key workers.WB.http_path): `movies` is not the beginning of an HTTP path"],
    );
    check(
        "[workers.WA]\nhttp_path = \"/m/\"\n[workers.WB]\nhttp_path = \"/m\"",
        &["w.toml:3:10 (key workers.WB): the http_path /m is that of WA already"],
    );
}

#[test]
fn every_line_that_is_not_toml_is_named() {
    let mistakes = shown(read("plugins = \nhttp = \"x\nbroker = 1"));
    assert!(mistakes.len() > 1, "{mistakes:?}");
    assert!(
        mistakes[0].starts_with("w.toml:1:11: this is not TOML: "),
        "{mistakes:?}"
    );
    assert!(shown(read("plugins = \"a\"\nplugins = \"b\""))[0].contains("duplicate key"));
}

#[test]
fn columns_count_characters() {
    check(
        "\"ä\" = 1\nlog = { \"ä\" = 1 }",
        &[
            "w.toml:1:1 (key ä): unknown key `ä`",
            "w.toml:2:9 (key log.ä): unknown key `ä`",
        ],
    );
}

#[test]
fn reuse_has_bounds_and_known_keys() {
    check(
        "workers.WB.reuse = 1",
        &["w.toml:1:20 (key workers.WB.reuse): true or false is expected, this is a number"],
    );
    check(
        "[workers.WB.reuse]\ncalls = 0",
        &["w.toml:2:9 (key workers.WB.reuse.calls): 0 is out of range"],
    );
    remedy("[workers.WB.reuse]\ncall = 1", "did you mean `calls`?");
    remedy("[workers.WB.reuse]\nage = \"1ms\"", "1s");
    // It is a worker's own business.
    remedy("[limits]\nreuse = true", "remove it");
}
